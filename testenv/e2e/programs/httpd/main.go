// Command httpd is a web server as people write them in Go, with nothing done for drover's sake: it counts its requests, and Go
// makes it listen for multipath TCP.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
)

func main() {
	at := flag.String("listen", ":8080", "address to listen at")
	flag.Parse()
	var served atomic.Int64
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, served.Add(1)) })
	fmt.Fprintln(os.Stderr, http.ListenAndServe(*at, nil))
	os.Exit(1)
}

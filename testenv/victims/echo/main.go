// Command echo is a TCP service whose connections remember, and a client that finds out whether they forgot.
//
//	echo serve -listen 10.77.0.50:7000
//	echo call -to 10.77.0.50:7000 -for 10s
//
// The client numbers its requests; the server answers each with that number and with how many it has served on this connection.
// The client says what it saw, now and then and at the end, on standard output:
//
//	{"requests":1200,"answers":1200,"lost":0,"repeated":0,"longest_gap_ms":3.2}
//
// It listens with plain TCP: criu cannot dump an MPTCP socket, which is what Go listens with otherwise.
//
//go:debug multipathtcp=0
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"drover/testenv/victims/vital"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	switch os.Args[1] {
	case "serve":
		at := flags.String("listen", "127.0.0.1:7000", "address to listen at")
		_ = flags.Parse(os.Args[2:]) // it exits on an error
		vital.Exit(serve(*at), 0)
	case "call":
		c := caller{}
		flags.StringVar(&c.to, "to", "127.0.0.1:7000", "the service's address")
		flags.DurationVar(&c.pause, "pause", time.Millisecond, "between an answer and the next request")
		flags.DurationVar(&c.patience, "patience", 10*time.Second, "how long to wait for an answer before giving up")
		lasts := flags.Duration("for", 0, "how long to call; 0 is until a signal")
		say := flags.Duration("say", time.Second, "how often to report; 0 is only at the end")
		_ = flags.Parse(os.Args[2:]) // it exits on an error
		report, err := c.call(*lasts, vital.Every{Period: *say})
		vital.Say(report)
		vital.Exit(err, report.Lost+report.Repeated)
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: echo serve|call [flags]")
	os.Exit(2)
}

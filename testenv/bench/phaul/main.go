// Command phaul moves a process tree with go-criu's package phaul, so that drover can be measured beside it. It runs on the
// source and starts itself on the target over an SSH connection that is there already; CRIU's pages go through a forwarded socket
// of the same connection.
//
// It says, on standard output, as testenv/bench/byhand.sh does: begun, dumped and restored, each with the time in nanoseconds, and
// of each round the pages that it wrote. /run/images is there on both hosts and empty.
package main

import (
	"flag"
	"fmt"
	"os"
)

// Places on both hosts.
const (
	images  = "/run/images"
	final   = images + "/final" // of the final dump, all but pages
	rounds  = images + "/rounds"
	socket  = images + "/pages.sock"
	program = "/usr/local/bin/phaul"
)

func main() {
	var s source
	serves := flag.Bool("serve", false, "be the target's part: calls come on standard input")
	pid := flag.Int("pid", 0, "root of the tree to move")
	flag.StringVar(&s.target, "target", "", "address of the host to move to")
	flag.StringVar(&s.ssh, "ssh", "", "control socket of the SSH connection to it")
	flag.StringVar(&s.log, "log", "", "the tree's log file, which is moved along")
	flag.StringVar(&s.address, "address", "", "IPv4 address to move along; empty for none")
	flag.Parse()

	out := os.Stdout
	os.Stdout = os.Stderr // package phaul says there how it goes
	var err error
	if *serves {
		err = serve(out)
	} else {
		err = s.move(int32(*pid), out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "phaul:", err)
		os.Exit(1)
	}
}

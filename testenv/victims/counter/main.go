// Command counter is a tree of processes and threads that counts together and checks itself.
//
// Every process runs threads that rewrite pages of their own and check each page's mark before. Every beat goes from the root down
// the tree through pipes and comes back up through sockets, numbered, so that a lost or repeated message is seen. The root says
// how it goes, on standard output and in a status file:
//
//	{"beat":120,"processes":7,"threads":28,"steps":33412,"faults":0}
//
// With SIGTERM it ends, with exit code 1 if there was a fault.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"drover/testenv/victims/vital"
)

// Report is what the tree says about itself.
type Report struct {
	Beat      uint64 `json:"beat"`
	Processes int    `json:"processes"`
	Threads   int    `json:"threads"` // that count; the Go runtime has a few more
	Steps     uint64 `json:"steps"`   // of all threads
	Faults    uint64 `json:"faults"`
	Fault     string `json:"fault,omitempty"` // the first
}

type options struct {
	index     int // of this process in the tree; 0 is the root
	processes int
	fanOut    int
	threads   int
	pages     int
	pause     time.Duration
}

func main() {
	var o options
	flag.IntVar(&o.processes, "processes", 3, "processes in the tree")
	flag.IntVar(&o.fanOut, "fan-out", 3, "children of a process")
	flag.IntVar(&o.threads, "threads", 4, "counting threads in each process")
	flag.IntVar(&o.pages, "pages", 16, "pages of each thread")
	flag.DurationVar(&o.pause, "pause", 5*time.Millisecond, "between two steps of a thread, and between two beats")
	flag.IntVar(&o.index, "index", 0, "set by counter itself for its children")
	status := flag.String("status", "", "file that always holds the last report")
	say := flag.Duration("say", time.Second, "how often to report on standard output; 0 is never")
	var w witnessed
	flag.Func("witness", "address and port, IPv4, that gets the tree's heartbeat in datagrams", w.set)
	lasts := flag.Duration("for", 0, "how long to count; 0 is until a signal")
	flag.Parse()

	p, err := startProcess(o)
	if err != nil {
		vital.Exit(fmt.Errorf("process %d: %w", o.index, err), 0)
	}
	if o.index > 0 {
		vital.Exit(p.answer(), 0)
	}
	last, err := lead(p, *lasts, *status, vital.Every{Period: *say}, w)
	vital.Say(last)
	vital.Exit(err, last.Faults)
}

// lead is the root's work: a beat after the other until the time is over.
func lead(p *process, lasts time.Duration, status string, say vital.Every, w witnessed) (last Report, err error) {
	ctx, stop := vital.Until(lasts)
	defer stop()
	var file *os.File
	if status != "" {
		if file, err = os.Create(status); err != nil {
			return last, err
		}
		defer file.Close()
	}
	for n := uint64(1); ctx.Err() == nil; n++ {
		if last, err = p.beat(n); err != nil {
			return last, err
		}
		if file != nil {
			if err := writeStatus(file, last); err != nil {
				return last, err
			}
		}
		if err := w.beat(n); err != nil {
			return last, err
		}
		say.Do(func() { vital.Say(last) })
		time.Sleep(p.pause)
	}
	return last, nil
}

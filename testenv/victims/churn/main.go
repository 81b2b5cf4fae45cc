// Command churn is a tree of processes that change the layout of their memory all the time: they map, unmap, move, grow, protect, replace and
// forget it, fork, and write to it, at a set rate, from the program and from the kernel. Each keeps account of what every page must hold,
// and checks it. It says how it goes, on standard output, the first process for all:
//
//	{"processes":3,"pages":4096,"written":120000,"changes":8000,"forks":310,"faults":0}
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"drover/testenv/victims/vital"
)

// countsFd is where a child finds the counts that it shares with the first process.
const countsFd = 3

func main() {
	memory := vital.Size(8 << 20)
	flag.Var(&memory, "memory", "about how much memory each process has")
	processes := flag.Int("processes", 2, "how many processes there are, without those that fork in between")
	rate := flag.Int("rate", 5000, "pages that each process writes a second")
	changes := flag.Int("changes", 500, "changes that each process makes to its layout a second")
	threads := flag.Int("threads", 2, "threads of each process that write to memory that stays where it is, at the same rate")
	seed := flag.Uint64("seed", 1, "what the changes are drawn from")
	say := flag.Duration("say", time.Second, "how often to report; 0 is only at the end")
	lasts := flag.Duration("for", 0, "how long to run; 0 is until a signal")
	member := flag.Int("member", 0, "set by churn itself for its children: which process this is")
	flag.Parse()

	all, err := countsOf(*member)
	if err != nil {
		vital.Exit(err, 0)
	}
	var kids []*exec.Cmd
	if *member == 0 {
		if kids, err = family(*processes); err != nil {
			vital.Exit(err, 0)
		}
	}
	ctx, stop := vital.Until(*lasts)
	defer stop()
	for i := range *threads {
		pages, err := vital.NewPages(memory.Pages()/8+1, uint64(*member)<<8|uint64(i))
		if err != nil {
			vital.Exit(err, 0)
		}
		go steady(pages, *rate, all)
	}
	l := &land{random: rand.New(rand.NewPCG(*seed, uint64(*member))), most: memory.Pages(), counts: all, owner: uint64(*member)}
	report := vital.Every{Period: *say}
	pace := newPace()
	for ctx.Err() == nil {
		pace.turn(time.Millisecond)
		for range pace.owed(0, *changes) {
			l.change()
		}
		for range pace.owed(1, *rate) {
			l.write()
		}
		if *member == 0 {
			report.Do(func() { vital.Say(all.report(*processes)) })
		}
	}
	l.checkAll()
	for _, k := range kids {
		_ = k.Process.Signal(unix.SIGTERM)
		if err := k.Wait(); err != nil {
			fmt.Fprintln(os.Stderr, "a child:", err)
			atomic.AddUint64(&all.Faults, 1)
		}
	}
	if *member == 0 {
		vital.Say(all.report(*processes))
	}
	vital.Exit(nil, atomic.LoadUint64(&all.Faults))
}

// family starts the other processes, which share the counts.
func family(processes int) (kids []*exec.Cmd, err error) {
	for i := 1; i < processes; i++ {
		cmd := exec.Command("/proc/self/exe", append(append([]string{}, os.Args[1:]...), "-for", "0", "-member", strconv.Itoa(i))...)
		cmd.Args[0] = "churn"
		cmd.Stderr = os.Stderr
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(counted), "counts")}
		if err := cmd.Start(); err != nil {
			return kids, err
		}
		kids = append(kids, cmd)
	}
	return kids, nil
}

// steady writes to and checks pages that no change touches, from a thread of its own.
func steady(pages *vital.Pages, rate int, c *counts) {
	p := newPace()
	for {
		p.turn(time.Millisecond)
		for range p.owed(0, rate) {
			i := rand.IntN(pages.Len())
			if err := pages.Check(i); err != nil {
				c.fault(err)
			}
			pages.Write(i)
			atomic.AddUint64(&c.Written, 1)
		}
	}
}

// pace says how much is to be done, at some rates a second. After a freeze it does not catch up.
type pace struct {
	last time.Time
	gone float64 // seconds between the last two turns
	owes [2]float64
}

func newPace() *pace { return &pace{last: time.Now()} }

func (p *pace) turn(d time.Duration) {
	time.Sleep(d)
	now := time.Now()
	p.gone, p.last = min(now.Sub(p.last).Seconds(), 0.1), now
}

func (p *pace) owed(i, rate int) int {
	p.owes[i] += p.gone * float64(rate)
	n := int(p.owes[i])
	p.owes[i] -= float64(n)
	return n
}

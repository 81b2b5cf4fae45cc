// Command dirtier has a set amount of memory and rewrites pages of a part of it, drawn at random, at a set rate. It checks each
// page's mark before it writes it, and all pages now and then. It says how it goes, on standard output:
//
//	{"pages":65536,"written":120000,"checked":185536,"faults":0,"longest_gap_ms":3.1,"gap_ms":1.2}
package main

import (
	"flag"
	"math/rand/v2"
	"time"

	"drover/testenv/victims/vital"
)

// Report is what dirtier says about itself. A gap is between two of its turns: how long it stood still.
type Report struct {
	Pages      int     `json:"pages"`
	Written    uint64  `json:"written"`
	Checked    uint64  `json:"checked"`
	Faults     uint64  `json:"faults"`
	Fault      string  `json:"fault,omitempty"` // the first
	LongestGap float64 `json:"longest_gap_ms"`
	Gap        float64 `json:"gap_ms"` // the longest since the last report
}

func main() {
	memory, workingSet := vital.Size(64<<20), vital.Size(16<<20)
	flag.Var(&memory, "memory", "how much memory to have")
	flag.Var(&workingSet, "working-set", "how much of it to rewrite")
	var reserve vital.Size
	flag.Var(&reserve, "reserve", "how much address space to have beside, without memory")
	mappings := flag.Int("mappings", 0, "how many mappings to have beside; half of them are a page")
	rate := flag.Int("rate", 5000, "pages written a second")
	verify := flag.Duration("verify", 2*time.Second, "how often to check all pages; 0 is only at the end")
	say := flag.Duration("say", time.Second, "how often to report; 0 is only at the end")
	lasts := flag.Duration("for", 0, "how long to run; 0 is until a signal")
	flag.Parse()

	pages, err := vital.NewPages(memory.Pages(), 0xd1)
	if err != nil {
		vital.Exit(err, 0)
	}
	if err := vital.Sprawl(*mappings, reserve); err != nil {
		vital.Exit(err, 0)
	}
	d := &dirtier{pages: pages, set: max(1, min(workingSet.Pages(), pages.Len())), rate: *rate}
	d.run(*lasts, vital.Every{Period: *verify}, vital.Every{Period: *say})
	vital.Say(d.report())
	vital.Exit(nil, d.faults)
}

type dirtier struct {
	pages   *vital.Pages
	set     int // pages from the first on that are rewritten
	rate    int
	written uint64
	checked uint64
	faults  uint64
	fault   string
	gap     vital.Gap
}

func (d *dirtier) run(lasts time.Duration, verify, say vital.Every) {
	ctx, stop := vital.Until(lasts)
	defer stop()
	const turn = time.Millisecond
	owed, last := 0.0, time.Now()
	for ctx.Err() == nil {
		now := time.Now()
		owed = min(owed+now.Sub(last).Seconds()*float64(d.rate), float64(d.rate)/10) // after a freeze it does not catch up
		last = now
		for ; owed >= 1; owed-- {
			i := rand.IntN(d.set)
			d.check(i)
			d.pages.Write(i)
			d.written++
		}
		d.gap.Beat()
		verify.Do(d.checkAll)
		say.Do(func() { vital.Say(d.report()) })
		time.Sleep(turn)
	}
	d.checkAll()
}

func (d *dirtier) checkAll() {
	for i := range d.pages.Len() {
		d.check(i)
	}
}

func (d *dirtier) check(i int) {
	d.checked++
	if err := d.pages.Check(i); err != nil {
		d.faults++
		if d.fault == "" {
			d.fault = err.Error()
		}
	}
}

func (d *dirtier) report() Report {
	return Report{Pages: d.pages.Len(), Written: d.written, Checked: d.checked, Faults: d.faults, Fault: d.fault, LongestGap: d.gap.LongestMS(), Gap: d.gap.RecentMS()}
}

package report

import (
	"slices"
	"strings"
	"time"
)

// Report is all that stands under docs/benchmarks.
type Report struct {
	Data
	// Emulated is the comparison in a virtual machine whose kernel has soft-dirty; nil if there is none.
	Emulated *Data
}

// Data is one comparison: where it was made, how, and every single move.
type Data struct {
	Machine Machine   `json:"machine"`
	Command string    `json:"command"` // repeats it; several lines if it was made in parts
	Date    time.Time `json:"date"`    // when it began
	Took    Millis    `json:"took_ms"` // all of it
	// Best is the method that the figures to reach are judged by: what drover chooses by itself, unless something else was asked for.
	Best string `json:"best"`
	// LeftOut says, in a sentence each, what was not measured and why.
	LeftOut []string `json:"left_out,omitempty"`
	Links   []Link   `json:"links"`
	// Loop is how many bytes of a redis a second a bare loop on all processors reads, digests and compresses with s2.
	Loop float64 `json:"loop,omitempty"`
	Runs []Run   `json:"runs"`
}

// And is a comparison that was made in parts, d before more: with the commands, time and runs of both, and else what the later
// part says. A machine may have no hour to be quiet for.
func (d Data) And(more Data) Data {
	if !slices.Contains(strings.Split(d.Command, "\n"), more.Command) {
		more.Command = d.Command + "\n" + more.Command
	} else {
		more.Command = d.Command
	}
	more.Took += d.Took
	more.Runs = append(slices.Clone(d.Runs), more.Runs...)
	return more
}

// Machine is what everything ran on.
type Machine struct {
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
	Memory     int64  `json:"memory"` // bytes
	Kernel     string `json:"kernel"`
	CRIU       string `json:"criu"`
	Go         string `json:"go"`
	Drover     string `json:"drover"` // its commit
	// Load is the load average of the last minute before it began: well above 0 says that others used the machine.
	Load float64 `json:"load"`
}

// Link is how the hosts were joined.
type Link struct {
	Name    string  `json:"name"`
	Rate    int64   `json:"rate"` // bits a second asked for; 0 is no limit
	Delay   Millis  `json:"delay_ms"`
	Shaped  bool    `json:"shaped,omitempty"` // by a relay; else it is as fast as the machine makes it
	Carried float64 `json:"carried"`          // bits of one TCP connection a second that it was seen to carry, with nothing else going on
}

// Case is what is moved, and over which link: the runs of a case differ in method only.
type Case struct {
	Program string  `json:"program"` // "redis", "dirtier", "python", Busy or Repeated
	Size    int64   `json:"size"`    // bytes of memory that it was told to hold
	Load    float64 `json:"load"`    // redis: writes a second; dirtier: per cent of its memory a second
	Link    string  `json:"link"`
}

// Methods that drover is compared with. The latter two are for kernels with soft-dirty.
const (
	Baseline = "criu | tar | zstd -1 | ssh | criu"
	PreDumps = "criu pre-dump | tar | zstd -1 | ssh | criu"
	Phaul    = "go-criu's phaul over ssh"
)

// Run is one move.
type Run struct {
	Case
	Method string `json:"method"`           // one of those above, or "drover" and the tracker
	Failed string `json:"failed,omitempty"` // why it did not get through; nothing else counts then

	Blackout  Millis `json:"blackout_ms"`            // from the freeze to the first instruction on the other host
	Predicted Millis `json:"predicted_ms,omitempty"` // the blackout, when the freeze was granted; 0 if nobody predicts
	Gap       Millis `json:"gap_ms"`                 // the longest that the program's client (dirtier: itself) saw nothing happen
	Total     Millis `json:"total_ms"`               // from the command to the first instruction on the other host
	Wire      int64  `json:"wire"`                   // bytes that the source's network card sent meanwhile
	Memory    int64  `json:"memory"`                 // bytes: drover's worker on the source at its peak; else the images there
	Pages     uint64 `json:"pages,omitempty"`        // of the tree

	OpsBefore float64 `json:"ops_before"` // the program's operations a second before the move
	OpsDuring float64 `json:"ops_during"` // and while it was copied; 0 if it was not copied while it ran
	// OpsFilling is that while its memory was filled in on the other host, from its first operation there on; 0 if that was over too soon to say.
	OpsFilling float64 `json:"ops_filling,omitempty"`

	Codec  string            `json:"codec,omitempty"`
	Rounds []Round           `json:"rounds,omitempty"`
	Phases map[string]Millis `json:"phases,omitempty"` // when each began, from the admission on
}

// Round is one pass over the tree's memory; Final is the one in the freeze. Of methods other than drover only the pages are known,
// and not the final pass.
type Round struct {
	Final bool   `json:"final,omitempty"`
	Pages uint64 `json:"pages"`          // sent
	Wire  uint64 `json:"wire,omitempty"` // bytes
	Took  Millis `json:"took_ms,omitempty"`
}

// Millis is a time in milliseconds.
type Millis float64

// InMillis is a duration as Millis, to the microsecond.
func InMillis(d time.Duration) Millis { return Millis(d.Microseconds()) / 1000 }

// SlowDown is the part of its operations that the program lost while it was copied, 0 to 1; ok is false if that is not known.
func (r Run) SlowDown() (part float64, ok bool) { return lost(r.OpsBefore, r.OpsDuring) }

// SlowDownFilling is the part that it lost while its memory was filled in.
func (r Run) SlowDownFilling() (part float64, ok bool) { return lost(r.OpsBefore, r.OpsFilling) }

func lost(before, then float64) (part float64, ok bool) {
	if before == 0 || then == 0 {
		return 0, false
	}
	return max(0, 1-then/before), true
}

// PredictionError is by which part the blackout was longer (above 0) or shorter than predicted; ok is false if nobody predicted.
func (r Run) PredictionError() (part float64, ok bool) {
	if r.Predicted == 0 {
		return 0, false
	}
	return float64(r.Blackout/r.Predicted) - 1, true
}

// FirstRound is the first pass over a tree that runs.
func (r Run) FirstRound() (Round, bool) {
	if len(r.Rounds) == 0 || r.Rounds[0].Final {
		return Round{}, false
	}
	return r.Rounds[0], true
}

// Copying is how many rounds were made while the tree ran.
func (r Run) Copying() int {
	n := 0
	for _, round := range r.Rounds {
		if !round.Final {
			n++
		}
	}
	return n
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"drover/internal/errs"
)

// view is an answer: it is what --json prints, and it can put itself into words and tables for people.
type view interface{ text(w io.Writer) }

// moving is a view of something that is under way.
type moving interface {
	view
	stage() string   // differs when something happened that must be said at once
	line() string    // how it stands, on one line
	block() []string // the same, to be drawn in place
}

// printer is how a verb answers.
type printer interface {
	// show prints an answer.
	show(v view) error
	// update says how something under way stands now. It is called often; the printer chooses what to print.
	update(v moving) error
	// conclude sums up what update has shown to its end.
	conclude(v view) error
	// say tells people something that programs need not know.
	say(format string, args ...any)
	// question puts one to the person who watches; updates wait until answered is called.
	question(text string)
	answered()
	// fail says why the command ends without success.
	fail(err error)
}

// jsonPrinter prints one JSON value a line.
type jsonPrinter struct{ out, err io.Writer }

func (p *jsonPrinter) show(v view) error     { return json.NewEncoder(p.out).Encode(v) }
func (p *jsonPrinter) update(v moving) error { return p.show(v) }
func (p *jsonPrinter) conclude(view) error   { return nil } // its last update said it all
func (p *jsonPrinter) say(string, ...any)    {}
func (p *jsonPrinter) question(string)       {}
func (p *jsonPrinter) answered()             {}

func (p *jsonPrinter) fail(err error) {
	kind := errs.KindOf(err)
	_ = json.NewEncoder(p.err).Encode(struct { // there is nobody else to tell
		Error string `json:"error"`
		Kind  string `json:"kind"`
		Code  int    `json:"code"`
		Next  string `json:"next,omitempty"`
	}{oneLine(err.Error()), kind.String(), kind.ExitCode(), errs.NextOf(err)})
}

// quiet is how long the plain form of progress may say nothing while nothing happens but progress.
const quiet = 2 * time.Second

// textPrinter prints for people: tables and sentences; progress in place on a terminal, else in lines.
type textPrinter struct {
	out, err io.Writer
	terminal bool
	width    func() int // of the terminal, in columns

	drawn  int // lines of the block on the screen
	asking bool
	stage  string
	last   time.Time
}

func (p *textPrinter) show(v view) error {
	p.settle()
	v.text(p.out)
	return nil
}

func (p *textPrinter) conclude(v view) error { return p.show(v) }

func (p *textPrinter) update(v moving) error {
	if p.asking {
		return nil
	}
	if p.terminal {
		block := p.fitting(v.block())
		fmt.Fprintf(p.out, "%s%s\n", p.erase(), strings.Join(block, "\n"))
		p.drawn = len(block)
		return nil
	}
	if stage := v.stage(); stage != p.stage || time.Since(p.last) >= quiet {
		p.stage, p.last = stage, time.Now()
		fmt.Fprintln(p.out, v.line())
	}
	return nil
}

// fitting cuts lines that the terminal would break: the block must be as high as it has lines.
func (p *textPrinter) fitting(block []string) []string {
	width := 80
	if p.width != nil {
		width = p.width()
	}
	for i, line := range block {
		if runes := []rune(line); len(runes) >= width && width > 1 {
			block[i] = string(runes[:width-1])
		}
	}
	return block
}

// erase goes back to where the block begins.
func (p *textPrinter) erase() string {
	if p.drawn == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\r\x1b[J", p.drawn)
}

// settle leaves the block on the screen as it is.
func (p *textPrinter) settle() { p.drawn = 0 }

func (p *textPrinter) say(format string, args ...any) {
	p.settle()
	fmt.Fprintf(p.err, format+"\n", args...)
}

func (p *textPrinter) question(text string) {
	p.settle()
	p.asking = true
	fmt.Fprint(p.err, text)
}

func (p *textPrinter) answered() { p.asking = false }

func (p *textPrinter) fail(err error) {
	p.settle()
	fmt.Fprintf(p.err, "drover: %s\n", oneLine(err.Error()))
	if next := errs.NextOf(err); next != "" {
		fmt.Fprintf(p.err, "  → %s\n", oneLine(next))
	}
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' }), "; ")
}

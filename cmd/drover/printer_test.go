package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// drawn is something under way with a block of its own making.
type drawn []string

func (d drawn) text(io.Writer)  {}
func (d drawn) stage() string   { return d[0] }
func (d drawn) line() string    { return strings.Join(d, " ") }
func (d drawn) block() []string { return append([]string{}, d...) }

func TestATerminalIsRedrawnInPlace(t *testing.T) {
	var out, errOut bytes.Buffer
	p := &textPrinter{out: &out, err: &errOut, terminal: true, width: func() int { return 10 }}
	show := func(d drawn) {
		if err := p.update(d); err != nil {
			t.Error(err)
		}
	}
	show(drawn{"one", "two"})
	show(drawn{"three", "much longer than the terminal", "five"})
	p.question("sure? ")
	show(drawn{"not shown while a question is open"})
	p.answered()
	show(drawn{"six"})
	want := "one\ntwo\n" + "\x1b[2A\r\x1b[J" + "three\nmuch long\nfive\n" + "six\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if errOut.String() != "sure? " {
		t.Errorf("asked %q", errOut.String())
	}
}

func TestWithoutATerminalEachStageIsSaidOnce(t *testing.T) {
	var out bytes.Buffer
	p := &textPrinter{out: &out, err: &out}
	for _, d := range []drawn{{"copying", "1"}, {"copying", "2"}, {"copying", "3"}, {"frozen", "4"}, {"frozen", "5"}} {
		if err := p.update(d); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff("copying 1\nfrozen 4\n", out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProgressSaysOnlyWhatIsKnown(t *testing.T) {
	m := api.Migration{Workload: "web", Source: "alpha", Target: "beta", Phase: migration.Admitted, Options: workerapi.MoveOptions{MaxRounds: 8}}
	if line := migrationProgress(m).line(); !strings.HasSuffix(line, "  web  ADMITTED") {
		t.Errorf("got %q", line)
	}
	block := strings.Join(migrationProgress(m).block(), "\n")
	for _, say := range []string{"web  alpha → beta  ADMITTED", "copying has not begun", "blackout if cut over now unknown yet"} {
		if !strings.Contains(block, say) {
			t.Errorf("%q is not in\n%s", say, block)
		}
	}
	m.Progress = workerapi.Progress{Round: 2, PagesTotal: 200, PagesLeft: 50}
	if block := strings.Join(migrationProgress(m).block(), "\n"); !strings.Contains(block, "round 2 of at most 8") || !strings.Contains(block, bar(150, 200, 24)) {
		t.Errorf("got\n%s", block)
	}
}

func TestErrorsAreOneLineAndANextStep(t *testing.T) {
	var out bytes.Buffer
	(&textPrinter{err: &out}).fail(errs.New(errs.Failed, "first\nsecond").WithNext("do\nthat"))
	if diff := cmp.Diff("drover: first; second\n  → do; that\n", out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out.Reset()
	(&jsonPrinter{err: &out}).fail(errs.New(errs.Refused, "no"))
	if diff := cmp.Diff(`{"error":"no","kind":"refused","code":5}`+"\n", out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTimesToBeginAt(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                     {},
		"13:30":                time.Date(2026, 5, 4, 13, 30, 0, 0, time.UTC),
		"11:59":                time.Date(2026, 5, 5, 11, 59, 0, 0, time.UTC),
		"12:00":                time.Date(2026, 5, 5, 12, 0, 0, 0, time.UTC),
		"+90m":                 time.Date(2026, 5, 4, 13, 30, 0, 0, time.UTC),
		"2026-06-01T00:00:00Z": time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC),
	} {
		if got, err := parseAt(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"soon", "25:00", "+-5m", "+", "2020-01-01T00:00:00Z"} {
		if got, err := parseAt(text, now); err == nil {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}

func TestFiguresForPeople(t *testing.T) {
	for got, want := range map[string]string{
		bytesOf(int64(0)): "0 B", bytesOf(int64(999)): "999 B", bytesOf(int64(1500)): "1.5 kB", bytesOf(uint64(123456789)): "123 MB",
		count(0): "0", count(999): "999", count(1000): "1,000", count(12345678): "12,345,678",
		span(1234 * time.Microsecond): "1ms", span(1234 * time.Millisecond): "1.2s", span(90*time.Second + time.Millisecond): "1m30s",
		quoted([]string{"a", "b c", "it's", ""}): `a 'b c' 'it'\''s' ''`,
		bar(0, 0, 4):                             "[····]", bar(1, 2, 4): "[██··]", bar(9, 2, 4): "[████]",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

package report

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "make the committed report anew of its data")

// moves are runs of a case, with blackouts of that many milliseconds.
func moves(c Case, method string, blackouts ...Millis) (all []Run) {
	for _, ms := range blackouts {
		all = append(all, Run{Case: c, Method: method, Blackout: ms, Gap: ms + 10, Total: 10 * ms, Wire: 1 << 20, Memory: 1 << 20})
	}
	return all
}

const ours = "drover wp"

func redis(size int64, load float64, link string) Case {
	return Case{Program: "redis", Size: size, Load: load, Link: link}
}

// verdicts are the goals of the data that are measured, by the beginning of what they are about.
func verdicts(d Data) map[string]string {
	d.Best = ours
	out := map[string]string{}
	for _, g := range goals(d) {
		if g.verdict != notMeasured {
			out[g.what] = g.verdict + ": " + g.got
		}
	}
	return out
}

func TestNothingIsJudgedThatWasNotMeasured(t *testing.T) {
	if got := verdicts(Data{}); len(got) > 0 {
		t.Errorf("without data: %v", got)
	}
	other := Data{Runs: moves(redis(1<<30, 10_000, TenGigabit), "drover hash", 50)}
	if got := verdicts(other); len(got) > 0 {
		t.Errorf("by another method's moves: %v", got)
	}
}

func TestGoalsAreJudgedByTheirBounds(t *testing.T) {
	const gib = 1 << 30
	big := redis(gib, 10_000, TenGigabit)
	headline := "blackout, 1 GiB redis, 10,000 writes/s, 10 Gbit/s"
	gigabit := redis(gib, 5_000, Gigabit)
	withRounds := func(c Case, rounds ...Round) Run {
		return Run{Case: c, Method: ours, Blackout: 100, Predicted: 100, Rounds: rounds}
	}
	for name, c := range map[string]struct {
		runs  []Run
		about string
		want  string
	}{
		"median within":       {moves(big, ours, 100, 120, 300), headline + ": median", "reached: 120 ms"},
		"median above":        {moves(big, ours, 100, 121, 130), headline + ": median", "missed: 121 ms"},
		"worst above":         {moves(big, ours, 100, 110, 251), headline + ": worst", "missed: 251 ms of 3"},
		"thirty times":        {append(moves(big, ours, 100), moves(big, Baseline, 3000)...), headline + ": times shorter than the baseline's", "reached: 30"},
		"not thirty times":    {append(moves(big, ours, 100), moves(big, Baseline, 2900)...), headline + ": times shorter than the baseline's", "missed: 29"},
		"flat":                {append(moves(redis(64<<20, 0, TenGigabit), ours, 50), moves(redis(64<<20+gib, 0, TenGigabit), ours, 110)...), "growth of the blackout with memory (clean pages, freeze, stream and restore together)", "reached: 60 ms a GiB, from 64 MiB to 1.06 GiB"},
		"prediction":          {[]Run{{Case: big, Method: ours, Blackout: 150, Predicted: 100}}, "predicted against measured blackout", "missed: off by 50 %"},
		"first round dearer":  {append([]Run{withRounds(redis(gib, 0, TenGigabit), Round{Pages: 10, Wire: 300})}, Run{Case: redis(gib, 0, TenGigabit), Method: Baseline, Wire: 200}), "bytes on the wire, first round of a redis or a Python heap at rest", "missed: 150 % of them"},
		"later rounds":        {[]Run{withRounds(big, Round{Pages: 100, Wire: 1000}, Round{Pages: 10, Wire: 40}, Round{Final: true, Pages: 10, Wire: 60})}, "bytes of a page in later rounds, redis that is written to", "reached: 50 %"},
		"no later pages":      {[]Run{withRounds(big, Round{Pages: 100, Wire: 1000}, Round{Final: true})}, "bytes of a page in later rounds, redis that is written to", ""},
		"only the final pass": {[]Run{withRounds(big, Round{Final: true, Pages: 100, Wire: 1000})}, "bytes of a page in later rounds, redis that is written to", ""},
		"link half used":      {[]Run{withRounds(gigabit, Round{Pages: 100, Wire: 62_500_000, Took: 1000})}, "first round of a redis over 1 Gbit/s, in compressed bytes", "missed: 50 %"},
		"repeated pages":      {[]Run{withRounds(Case{Program: Repeated, Size: gib, Link: TenGigabit}, Round{Pages: 1 << 18, Wire: gib / 128})}, "bytes on the wire of zero and repeated pages", "reached: 0.78 %, the interpreter that holds them included"},
		"first round's rate":  {[]Run{withRounds(redis(gib, 5_000, Unlimited), Round{Pages: 1 << 18, Took: 2000})}, "rate of the first round of a redis, unlimited link", "missed: 50 % of 1 GiB/s"},
		"slow-down":           {[]Run{{Case: Case{Program: Busy, Size: gib, Link: TenGigabit}, Method: ours, OpsBefore: 100, OpsDuring: 75}}, "slow-down of the program while it is copied", "missed: 25 %"},
		"memory":              {[]Run{{Case: big, Method: ours, Memory: 200 << 20}}, "memory of the source's worker, above the tree's", "missed: 200 MiB, for a tree of 1 GiB"},
		"cut link": {
			append(moves(gigabit, ours, 100), Run{Case: redis(gib, 5_000, GigabitCut), Method: ours, Wire: 66 << 20}),
			"link cut for 5 s in the first round", "missed: finished, 65 MiB more than without",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := Data{Runs: c.runs, Loop: gib, Links: []Link{{Name: Gigabit, Rate: 1e9, Carried: 1e9}}}
			if got := verdicts(d)[c.about]; got != c.want {
				t.Errorf("%s: %q, want %q", c.about, got, c.want)
			}
		})
	}
}

func TestAFailedMoveIsToldAndCountsForNothing(t *testing.T) {
	c := redis(1<<30, 10_000, TenGigabit)
	runs := append(moves(c, ours, 100), Run{Case: c, Method: ours, Failed: "the link broke\nlogs follow"})
	all := grouped(runs)
	if len(all) != 1 || all[0].of(blackout) != (spread{1, 100, 100, 100}) {
		t.Errorf("grouped: %+v", all)
	}
	text := page(Report{Data: Data{Runs: runs, Best: ours}})
	for _, want := range []string{"- redis, 1 GiB, 10000 writes/s, 10 Gbit/s, drover wp: the link broke\n", "| 1, 1 failed |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
}

func TestThePageTellsOfTheMachinesOwnKernelAndOfTheEmulatedOne(t *testing.T) {
	c := Case{Program: "dirtier", Size: 64 << 20, Load: 10, Link: Unlimited}
	here := Data{Command: "make bench-report", Best: ours, Runs: append(moves(c, ours, 100), moves(c, Baseline, 500)...)}
	there := Data{Command: "make bench-report-vm", Best: ours, Runs: append(append(moves(c, ours, 1000), moves(c, Phaul, 3000, 5000)...), moves(c, PreDumps, 500)...)}
	there.Runs[3].Rounds = []Round{{Pages: 100}, {Pages: 10}}
	text := page(Report{Data: here, Emulated: &there})
	for _, want := range []string{
		"    make bench-report\n", `| 64 MiB | 10 % of it a second | criu \| tar \| zstd -1 \| ssh \| criu | 1 | 500 ms | 510 ms |`,
		"    make bench-report-vm\n", "| drover wp | 1 | **1**: 1000 ms | **1**: 1010 ms |",
		"| go-criu's phaul over ssh | 2 | **4**: 4000 ms (3000 ms–5000 ms) |", `| criu pre-dump \| tar \| zstd -1 \| ssh \| criu | 1 | **0.50**: 500 ms |`,
		"| 2 | – |\n", "In bold: how many times drover wp's",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
	if alone := page(Report{Data: here}); strings.Contains(alone, "emulated") {
		t.Errorf("without a virtual machine's data the page tells of one:\n%s", alone)
	}
}

func TestAnEmulatedComparisonAloneHasItsPicture(t *testing.T) {
	var runs []Run
	for i, ms := range []Millis{400, 900} {
		runs = append(runs, moves(Case{Program: "dirtier", Size: 32 << 20 << i, Load: 10, Link: Unlimited}, PreDumps, ms)...)
	}
	if files := Render(Report{Emulated: &Data{Runs: runs}}); !strings.Contains(files["blackout-memory-vm.svg"], "<circle") {
		t.Errorf("made %v", files)
	}
}

func TestAComparisonMadeInPartsHasTheRunsOfAll(t *testing.T) {
	c := Case{Program: "dirtier", Size: 32 << 20, Load: 10, Link: Unlimited}
	part := func(command string, blackout Millis) Data {
		return Data{Command: command, Took: 1000, Machine: Machine{Load: float64(blackout)}, Runs: moves(c, ours, blackout)}
	}
	got := part("a", 100).And(part("b", 200)).And(part("a", 300))
	want := Data{Command: "a\nb", Took: 3000, Machine: Machine{Load: 300}, Runs: moves(c, ours, 100, 200, 300)}
	if !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
	if text := page(Report{Data: got}); !strings.Contains(text, "\n    a\n    b\n") {
		t.Errorf("the page does not have both commands:\n%s", text)
	}
}

func TestSpreads(t *testing.T) {
	for _, c := range []struct {
		figures []float64
		want    spread
		text    string
	}{
		{nil, spread{}, "–"},
		{[]float64{7}, spread{1, 7, 7, 7}, "7"},
		{[]float64{9, 1, 5}, spread{3, 5, 1, 9}, "5 (1–9)"},
		{[]float64{4, 1, 2, 100}, spread{4, 3, 1, 100}, "3 (1–100)"},
	} {
		got := spreadOf(c.figures)
		if got != c.want || got.text(figure) != c.text {
			t.Errorf("%v: %+v, %q", c.figures, got, got.text(figure))
		}
	}
}

func TestFiguresHaveThreeDigits(t *testing.T) {
	for want, got := range map[string]string{
		"0.12": figure(0.1234), "1.23": figure(1.234), "12.3": figure(12.34), "123": figure(123.4), "12345": figure(12345), "10.0": figure(9.999),
		"-5.50": figure(-5.5), "3": figure(3), "1.50 GiB": bytesText(1.5 * (1 << 30)), "512 B": bytesText(512), "12 s": millisText(12_000),
		"250 ms": millisText(250), "940 Mbit/s": bitsText(940e6), "4.20 Gbit/s": bitsText(4.2e9),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAPictureShowsEveryPointInsideItsFrame(t *testing.T) {
	var runs []Run
	for i, ms := range []Millis{40, 55, 4000} {
		runs = append(runs, moves(redis(64<<20<<(2*i), 10_000, TenGigabit), ours, ms, ms*2)...)
	}
	pictures := pictures(Data{Runs: runs})
	if len(pictures) != 2 { // blackout and bytes; there is no dirtier
		t.Fatalf("%d pictures", len(pictures))
	}
	for _, p := range pictures {
		circles := 0
		for d := xml.NewDecoder(strings.NewReader(p.svg())); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", p.file, err)
			}
			e, ok := token.(xml.StartElement)
			if !ok || e.Name.Local != "circle" {
				continue
			}
			circles++
			for _, a := range e.Attr {
				at, err := strconv.ParseFloat(a.Value, 64)
				outside := a.Name.Local == "cx" && (at < left || at > width-right) || a.Name.Local == "cy" && (at < top || at > height-below)
				if err == nil && outside {
					t.Errorf("%s: a point at %s=%s is outside", p.file, a.Name.Local, a.Value)
				}
			}
		}
		if circles != 3 {
			t.Errorf("%s has %d points, want 3", p.file, circles)
		}
	}
}

func TestAPictureWithOnePointIsNotMade(t *testing.T) {
	if p := pictures(Data{Runs: moves(redis(64<<20, 0, TenGigabit), ours, 40)}); len(p) > 0 {
		t.Errorf("made %d", len(p))
	}
}

func TestWhatIsWrittenIsReadAgainAndOldPicturesGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "benchmarks")
	d := Report{Data: Data{Best: ours, Date: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC), Runs: append(moves(redis(1<<26, 0, TenGigabit), ours, 40), moves(redis(1<<30, 0, TenGigabit), ours, 60)...)}}
	d.Emulated = &Data{Best: ours, Runs: moves(Case{Program: "dirtier", Size: 1 << 25, Load: 1, Link: Unlimited}, Phaul, 900)}
	if err := Write(dir, d); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if err != nil || !cmp.Equal(got, d) {
		t.Errorf("read %s, %v", cmp.Diff(d, got), err)
	}
	d.Runs = nil
	if err := Write(dir, d); err != nil {
		t.Fatal(err)
	}
	if old, _ := filepath.Glob(filepath.Join(dir, "*.svg")); len(old) > 0 {
		t.Errorf("still there: %v", old)
	}
}

// The committed report is what its data says: whoever changes the words or the pictures writes it again.
func TestTheCommittedReportIsMadeOfItsData(t *testing.T) {
	const dir = "../../../docs/benchmarks"
	d, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := Write(dir, d); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range Render(d) {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s is not made of results.json (%v): `go generate ./testenv/bench/report` makes it anew", name, err)
		}
	}
}

func TestEveryMoveIsTold(t *testing.T) {
	c := redis(1<<30, 10_000, TenGigabit)
	runs := []Run{
		{Case: c, Method: ours, Blackout: 110, Gap: 130, Predicted: 100, OpsBefore: 100, OpsFilling: 80},
		{Case: c, Method: ours, Blackout: 150, Gap: 250, Predicted: 200},
		{Case: c, Method: ours, Failed: "the link broke"},
		{Case: c, Method: ours, Blackout: 120, Gap: 140, Predicted: 120},
	}
	want := `redis, 1 GiB, 10000 writes/s, 10 Gbit/s, drover wp: 3, 1 failed moves
  blackout: median 120 ms, worst 150 ms of 3: 110 ms, 150 ms, 120 ms
  client gap: median 140 ms, worst 250 ms of 3: 130 ms, 250 ms, 140 ms
  prediction off by: median 10.0 %, worst 25 % of 3: 10.0 %, 25 %, 0 %
  slow-down while filled in: median 20.0 %, worst 20.0 % of 1: 20.0 %
`
	if diff := cmp.Diff(want, Moves(runs)); diff != "" {
		t.Error(diff)
	}
}

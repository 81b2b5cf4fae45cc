package vm_test

import (
	"context"
	"encoding/json"
	"flag"
	"testing"
	"time"

	"drover/testenv/bench/report"
	"drover/testenv/host/hosttest"
)

var (
	reportTo  = flag.String("report", "", "compare: folder of the report to write into")
	keep      = flag.Bool("keep", false, "compare: add to what the report has of a machine, instead of replacing it")
	selection = flag.String("bench", "-programs dirtier -sizes 32M,64M,128M -loads 1,10 -links unlimited -repeat 3", "compare: flags for the comparison of package bench")
)

// BenchmarkCompareEmulated runs BenchmarkCompare of package bench in a machine: CRIU's own rounds and go-criu's phaul need
// its kernel. The hosts, the coordinators and the link are in that one machine.
func BenchmarkCompareEmulated(b *testing.B) {
	for b.Loop() {
		d := compare(b)
		b.ReportMetric(float64(len(d.Runs)), "moves")
		b.ReportMetric(0, "ns/op")
		if *reportTo == "" {
			continue
		}
		whole, err := report.Read(*reportTo)
		if err != nil {
			b.Fatal(err)
		}
		if *keep && whole.Emulated != nil {
			d = whole.Emulated.And(d)
		}
		whole.Emulated = &d
		if err := report.Write(*reportTo, whole); err != nil {
			b.Fatal(err)
		}
	}
}

// compare is what the comparison finds in a machine of its own. How it goes comes on the machine's console.
func compare(b *testing.B) report.Data {
	b.Helper()
	m := boot(b, 4096)
	installPrograms(b, m, []string{"./cmd/drover", "./testenv/victims/dirtier", "./testenv/bench/phaul"})
	at := installTests(b, m, "drover/testenv/bench")
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Hour)
	defer cancel()
	out, err := m.Run(ctx, "sh", "-c", "cd / && "+hosttest.ProgramsEnv+"="+programs+" exec "+at+
		" -test.run '^$' -test.bench '^BenchmarkCompare$' -test.benchtime 1x -test.timeout 2h -report /report "+*selection+" 2>/dev/console")
	if err != nil {
		b.Errorf("in the machine: %v\n%s", err, out)
	}
	raw, err := m.Run(ctx, "cat", "/report/results.json")
	if err != nil {
		b.Fatalf("it has no results: %v", err)
	}
	var d report.Data
	if err := json.Unmarshal([]byte(raw), &d); err != nil {
		b.Fatal(err)
	}
	d.Machine.Drover, d.Command = hosttest.Commit(b), "make bench-report-vm BENCH='"+*selection+"'"
	if *keep {
		d.Command += " KEEP=1"
	}
	return d
}

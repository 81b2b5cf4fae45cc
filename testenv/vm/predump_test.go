package vm_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"drover/testenv/host/hosttest"
	"drover/testenv/vm"
)

// shell is a machine's shell, for commands that must succeed.
func shell(t *testing.T, m *vm.Machine) func(format string, args ...any) string {
	return func(format string, args ...any) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		out, err := m.Run(ctx, "sh", "-ec", fmt.Sprintf(format, args...))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
}

var pagesWritten = regexp.MustCompile(`Memory pages written: (\d+)`)

func TestPreDumpRoundsShrinkAndTheirTreeGoesOn(t *testing.T) {
	m := boot(t, 1024)
	sh := shell(t, m)
	sh("criu check --feature mem_dirty_track")
	install(t, m, hosttest.Build(t, "./testenv/victims/dirtier"), "/usr/local/bin/dirtier")
	sh("setsid dirtier -memory 64M -working-set 2M -rate 500 -say 100ms </dev/null >/var/log/dirtier 2>&1 &")
	hosttest.Eventually(t, "the dirtier writes", func() bool {
		return strings.Contains(sh("tail -n1 /var/log/dirtier"), `"written":`) && !strings.Contains(sh("tail -n1 /var/log/dirtier"), `"written":0,`)
	})
	pid := sh("pgrep -x dirtier")

	round := func(verb string, n int) int {
		t.Helper()
		parent := ""
		if n > 1 {
			parent = fmt.Sprintf("--prev-images-dir ../%d", n-1)
		}
		said := sh("mkdir -p /images/%d; criu %s -t %s -D /images/%d --track-mem %s --display-stats -o log -v4 2>&1 || { grep -a Error /images/%d/log >&2; exit 1; }",
			n, verb, pid, n, parent, n)
		found := pagesWritten.FindStringSubmatch(said)
		if found == nil {
			t.Fatalf("%s %d names no pages: %s", verb, n, said)
		}
		pages, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		return pages
	}
	first, second, final := round("pre-dump", 1), round("pre-dump", 2), round("dump", 3)
	t.Logf("pages written: %d, %d, final dump %d", first, second, final)
	if first < 64<<20/4096 {
		t.Errorf("the first round wrote %d pages, less than the memory", first)
	}
	if second > first/4 || final > first/4 {
		t.Errorf("rounds do not shrink: %d, %d, %d pages", first, second, final)
	}
	if left := sh("pgrep -x dirtier || true"); left != "" {
		t.Errorf("the dump left process %s", left)
	}
	atDump := sh("wc -l </var/log/dirtier")
	sh("criu restore -D /images/3 -d -o log -v4 || { grep -a Error /images/3/log >&2; exit 1; }")
	hosttest.Eventually(t, "the dirtier goes on", func() bool { return sh("wc -l </var/log/dirtier") != atDump })
	sh("kill -TERM %s; while kill -0 %s 2>/dev/null; do sleep 0.1; done", pid, pid) // it checks all its memory at the end
	if last := sh("tail -n1 /var/log/dirtier"); !strings.Contains(last, `"faults":0,`) {
		t.Errorf("it says %s", last)
	}
}

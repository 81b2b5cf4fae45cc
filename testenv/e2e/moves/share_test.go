package moves

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/testenv/cluster"
)

// TestCopyingLeavesTheProcessorsToOthers moves a tree whose copying may use a tenth of the processors, with a low priority, and looks at what the
// kernel says that the source's worker has used: processor time, whatever the machine does beside it.
func TestCopyingLeavesTheProcessorsToOthers(t *testing.T) {
	const percent, nice = 10, 7
	g := newGroundWith(t, []string{"--copy-cpu", strconv.Itoa(percent), "--copy-nice", strconv.Itoa(nice)}, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "heavy", "alpha", 0, heavy)
	source := g.worker(t, "alpha")
	var first, last spent
	low := false
	m, err := g.Migrate(t.Context(), func(m api.Migration) {
		if m.Phase != migration.Copying || m.Progress.PagesSent == 0 {
			return
		}
		if last = used(t, source); first.at.IsZero() {
			first, low = last, niceOf(t, source) == nice
		}
	}, s.name, "beta", "--downtime", "5s", "--compression", "zstd")
	if err != nil {
		t.Fatal(err)
	}
	took := last.at.Sub(first.at)
	share := float64(last.cpu-first.cpu) / float64(took) / float64(runtime.NumCPU()) * 100
	t.Logf("copied for %s with %.1f %% of the processors; blackout %s, predicted %s", took, share, m.Downtime.Measured, m.Downtime.Predicted)
	if took < time.Second {
		t.Errorf("it was copied in %s, which says nothing", took)
	}
	if share > 1.4*percent { // clock ticks are 10 ms
		t.Errorf("%.1f %% of the processors were used, %d %% were allowed", share, percent)
	}
	if now := niceOf(t, source); !low || now != 0 {
		t.Errorf("the priority was low while it was copied: %v; the nice value is %d when all is over", low, now)
	}
	s.lives(t, "beta")
	s.end(t)
	g.nothingLeft(t, 0)
}

// spent is the processor time that a daemon has used until then.
type spent struct {
	at  time.Time
	cpu time.Duration
}

func used(t *testing.T, m *cluster.Member) spent {
	t.Helper()
	f := stat(t, m, "")
	const tick = 10 * time.Millisecond // sysconf(_SC_CLK_TCK)
	user, err1 := strconv.Atoi(f[11])  // proc_pid_stat(5), from the third field on
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return spent{time.Now(), time.Duration(user+system) * tick}
}

// niceOf is the nice value of all threads of a daemon; they must not differ.
func niceOf(t *testing.T, m *cluster.Member) int {
	t.Helper()
	all, err := filepath.Glob(m.Path(fmt.Sprintf("/proc/%d/task/*", m.Daemon.Pid)))
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	found := map[string]int{}
	for _, thread := range all {
		found[stat(t, m, "/task/"+filepath.Base(thread))[16]]++
	}
	for value := range found {
		n, err := strconv.Atoi(value)
		if err != nil || len(found) > 1 {
			t.Fatalf("the threads have the nice values %v: %v", found, err)
		}
		return n
	}
	return 0
}

// stat are the fields of a daemon's stat, or a thread's of it, from the third on.
func stat(t *testing.T, m *cluster.Member, of string) []string {
	t.Helper()
	text, err := os.ReadFile(m.Path(fmt.Sprintf("/proc/%d%s/stat", m.Daemon.Pid, of)))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}

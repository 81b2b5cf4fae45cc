package engine_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/criu"
)

// kills is how often TestADumpIsKilledAtAnyInstant kills each of those it can; killsEnv carries it to the host.
var kills = flag.Int("kills", 12, "how many dumps to kill, for each who may be killed and each kind of dump")

const killsEnv = "DROVER_ENGINETEST_KILLS"

// TestADumpIsKilledAtAnyInstant kills, at instants that are drawn, who drives CRIU, of which the tree must never notice anything; and
// CRIU itself. The latter may cost the tree its life: CRIU has threads of the tree run code of its own, several times in a dump, and if it is
// killed just then, nobody is left who knows what their registers were. What this holds is that a tree that lives is whole, that
// nothing is left of the dump, and that it dies of a signal at once, where it is seen, and does not go on with something wrong.
func TestADumpIsKilledAtAnyInstant(t *testing.T) {
	onHost(t, func() {
		n, err := strconv.Atoi(os.Getenv(killsEnv))
		must(t, err)
		for _, c := range []struct {
			who, what string
			harmless  bool
		}{
			{"its driver", "dump", true},
			{"its driver", "dump-whole", true},
			{"CRIU", "dump", false},
			{"CRIU", "dump-whole", false},
		} {
			t.Run(c.who+"/"+c.what, func(t *testing.T) {
				lasts := killOne(t, c.who, c.what, -1).took
				t.Logf("a dump takes %s", lasts)
				seen := map[string]int{}
				for range n {
					k := killOne(t, c.who, c.what, time.Duration(rand.Int64N(int64(lasts))))
					seen[k.outcome]++
					if k.outcome == treeDied {
						t.Logf("the tree died (%s) with CRIU at %q", k.how, k.at)
					}
					if c.harmless && k.outcome == treeDied {
						t.Errorf("the tree died when %s was killed", c.who)
					}
				}
				t.Log(seen)
			})
		}
	}, "./testenv/victims/churn")
}

// What may become of a dump.
const (
	treeDied = "the tree died"
	ranOn    = "the tree ran on"
	wasHeld  = "the dump had come to its hold"
)

// killing is one of them.
type killing struct {
	took    time.Duration // until it was held or failed
	outcome string
	at, how string // CRIU's last word, and what the tree died of
}

// killOne dumps a tree of its own and kills who is said after some time, negative for never.
func killOne(t *testing.T, who, what string, after time.Duration) (k killing) {
	v := startOutside(t, "churn", "-processes", "2", "-threads", "3", "-memory", "4M", "-rate", "2000", "-changes", "100", "-say", "10ms")
	v.works(t)
	members := v.pids()
	dir := t.TempDir()
	begin := time.Now()
	if who == "CRIU" {
		k.outcome = v.dumpAndKillCRIU(t, dir, what == "dump", after)
	} else {
		k.outcome = v.dumpAndKillDriver(t, dir, what, after)
	}
	k.took = time.Since(begin)
	log, _ := os.ReadFile(filepath.Join(dir, "dump.log"))
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	k.at = lines[len(lines)-1]
	if b, err := os.ReadFile(filepath.Join(v.tree.Cgroup, "cgroup.freeze")); err != nil || strings.TrimSpace(string(b)) != "0" {
		t.Errorf("its cgroup is left frozen: %q, %v", b, err)
	}
	if k.how = v.lives(t, members); k.how != "" {
		k.outcome = treeDied
	}
	return k
}

// dumpAndKillCRIU makes a dump as the engine's user and undoes it if it came to its hold.
func (v *outside) dumpAndKillCRIU(t *testing.T, dir string, lazy bool, after time.Duration) string {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	images, err := os.Open(dir)
	must(t, err)
	defer images.Close()
	if after >= 0 {
		time.AfterFunc(after, func() {
			for _, pid := range running("criu") {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		})
	}
	h, err := criu.New(criu.Config{}).Dump(ctx, engine.DumpRequest{Tree: v.tree, Images: images, Lazy: lazy})
	if err == nil {
		must(t, h.Abort(ctx))
		return wasHeld
	}
	if !errors.Is(err, engine.ErrLost) {
		t.Errorf("CRIU was killed, and the dump says: %v", err)
	}
	return ranOn
}

// dumpAndKillDriver has another process make the dump, kills it, and lets the tree go on if it was held.
func (v *outside) dumpAndKillDriver(t *testing.T, dir, what string, after time.Duration) string {
	cmd := driver(what, v.tree, dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	said := make(chan struct{})
	go func() {
		defer close(said)
		_, _ = fmt.Fscanln(out, new(string)) // it says that it holds the tree, or ends
	}()
	var end <-chan time.Time
	if after >= 0 {
		end = time.After(after)
	}
	select {
	case <-said:
	case <-end:
	}
	must(t, cmd.Process.Kill())
	<-said
	_ = cmd.Wait() // it was killed
	eventually(t, "CRIU ends", func() bool { return len(running("criu")) == 0 })
	b, err := os.ReadFile(filepath.Join(v.tree.Cgroup, "cgroup.freeze"))
	must(t, err)
	if strings.TrimSpace(string(b)) == "1" {
		v.freeze(t, false)
		return wasHeld
	}
	return ranOn
}

// lives returns when every process that there was has been seen to work and the program has ended as it was asked to, or says what the
// tree died of. With anything wrong in its memory the program fails the test.
func (v *outside) lives(t *testing.T, members []int) (how string) {
	n := len(v.reports(t))
	whole := true
	eventually(t, "the tree works or dies", func() bool {
		there := v.pids()
		for _, pid := range members {
			whole = whole && slices.Contains(there, pid)
		}
		return !whole || len(v.reports(t)) > n+5
	})
	if whole {
		v.untouched(t)
	}
	_ = unix.Kill(v.tree.Pid, unix.SIGTERM) // it may have ended
	select {
	case <-v.done:
	case <-time.After(time.Minute):
		t.Fatal("the program does not end")
	}
	said, err := os.ReadFile(v.said)
	must(t, err)
	for line := range strings.Lines(string(said)) { // as Go's runtime says it, or as its parent does
		if _, signal, ok := strings.Cut(line, "SIG"); ok {
			return "SIG" + strings.TrimSpace(signal)
		}
		if _, signal, ok := strings.Cut(line, "a child: signal: "); ok {
			return strings.TrimSpace(signal)
		}
	}
	v.lastWords(t)
	return ""
}

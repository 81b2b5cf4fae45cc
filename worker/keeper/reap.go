package keeper

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reapOrphans takes the zombies that come to the keeper as a subreaper: orphans of a restored tree that shares its host's pid
// namespace, helpers that CRIU left behind. Children that somebody in this process waits for are not touched: the tree's
// root is the watcher's, and what os/exec started is collected by it long before a zombie is old. CRIU's own process lives in
// the tree's cgroup during a restore, so that the age is all there is to tell them by.
func reapOrphans(ctx context.Context, root func() int) {
	sigchld := make(chan os.Signal, 1)
	signal.Notify(sigchld, unix.SIGCHLD)
	defer signal.Stop(sigchld)
	const old = 2 * time.Second
	seen := map[int]time.Time{}
	tick := time.NewTicker(old)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sigchld:
		case <-tick.C:
		}
		zombies := map[int]time.Time{}
		for _, pid := range zombieChildren() {
			first, known := seen[pid]
			if !known {
				first = time.Now()
			}
			if known && time.Since(first) >= old && pid != root() {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
				continue
			}
			zombies[pid] = first
		}
		seen = zombies
	}
}

// zombieChildren lists the keeper's dead children.
func zombieChildren() []int {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	var dead []int
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		for f := range strings.FieldsSeq(string(b)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				continue
			}
			if _, zombie, err := Birth(pid); err == nil && zombie {
				dead = append(dead, pid)
			}
		}
	}
	return dead
}

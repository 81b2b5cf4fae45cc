package engine_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/track"
	"drover/engine/track/inject"
)

// injectsEnv makes this binary the process that injects ("serves"), or one that asks for injections into the processes that it names.
const injectsEnv = "DROVER_ENGINETEST_INJECTS"

// killedFor is how long TestWhoAsksForInjectionsIsKilled kills; killedForEnv carries it to the host.
var killedFor = flag.Duration("killed-for", 5*time.Second, "how long to kill those who have system calls injected, each kind; 10m and the like need a -timeout of more than twice that")

const killedForEnv = "DROVER_ENGINETEST_KILLED_FOR"

func newWP(t engine.Tree) track.Exact { return track.NewWP(t, startInjector, nil) }

func startInjector() (*inject.Injector, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{injectsEnv + "=serves"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return inject.Start(cmd)
}

// injects is the life of such a process.
func injects(what string) {
	if what == "serves" {
		if err := inject.Serve(os.NewFile(inject.SocketFD, "asker")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	failed := make(chan error)
	for pid := range strings.SplitSeq(what, ",") {
		go func() { failed <- injectOn(pid) }()
	}
	fmt.Println("failed", <-failed)
	os.Exit(1)
}

// injectOn has a userfaultfd made in a process, again and again, and says who makes it when that has done so once.
func injectOn(pid string) error {
	of, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(of, 0)
	if err != nil {
		return err
	}
	i, err := startInjector()
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		u, err := i.Userfaultfd(context.Background(), of, pidfd)
		if err != nil {
			return err
		}
		unix.Close(u.FD)
		if n == 0 {
			fmt.Println(i.Pid())
		}
	}
}

// asker is a process that has system calls injected, as a worker does.
type asker struct {
	cmd       *exec.Cmd
	injectors []int
}

func startAsker(t *testing.T, pids []int) *asker {
	t.Helper()
	list := strings.Trim(strings.ReplaceAll(fmt.Sprint(pids), " ", ","), "[]")
	a := &asker{cmd: exec.Command("/proc/self/exe")}
	a.cmd.Env = []string{injectsEnv + "=" + list}
	out, err := a.cmd.StdoutPipe()
	must(t, err)
	must(t, a.cmd.Start())
	said := bufio.NewScanner(out)
	for range pids {
		if !said.Scan() {
			t.Fatal("who asks for injections has ended")
		}
		pid, err := strconv.Atoi(said.Text())
		must(t, err)
		a.injectors = append(a.injectors, pid)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return a
}

// killed kills it, or one of those that inject for it, and returns when there is nobody left.
func (a *asker) killed(t *testing.T, who string) {
	t.Helper()
	victim := a.cmd.Process.Pid
	if who == injector {
		victim = a.injectors[rand.IntN(len(a.injectors))]
	}
	must(t, unix.Kill(victim, unix.SIGKILL))
	_ = a.cmd.Wait() // it was killed, or says that who injected for it was
	eventually(t, "who injects ends", func() bool { return !anyOf(a.injectors) })
}

func anyOf(pids []int) bool {
	for _, pid := range pids {
		if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); len(comm) > 0 {
			return true
		}
	}
	return false
}

const injector = "who injects"

// TestWhoAsksForInjectionsIsKilled kills, at instants that are drawn, who has system calls made in a tree, of which the tree must never notice
// anything. When it made them itself, 59 of 141 such kills did harm. To kill the process that makes them still does.
func TestWhoAsksForInjectionsIsKilled(t *testing.T) {
	onHost(t, func() {
		lasts, err := time.ParseDuration(os.Getenv(killedForEnv))
		must(t, err)
		for _, who := range []string{"who asks", injector} {
			t.Run(who, func(t *testing.T) {
				n, harmed := 0, 0
				for end := time.Now().Add(lasts); time.Now().Before(end); {
					v := startOutside(t, "churn", "-processes", "2", "-threads", "3", "-memory", "4M", "-rate", "2000", "-changes", "100", "-say", "10ms")
					v.works(t)
					members, harm := v.pids(), ""
					for ; harm == "" && time.Now().Before(end); n++ {
						a := startAsker(t, members)
						<-time.After(time.Duration(rand.Int64N(int64(2 * time.Millisecond))))
						a.killed(t, who)
						harm = harmOf(members)
					}
					if harm == "" {
						harm = v.lives(t, members)
					}
					if harm != "" {
						harmed++
						t.Logf("the tree was harmed when %s was killed for the %d. time: %s", who, n, harm)
						must(t, os.WriteFile(filepath.Join(v.tree.Cgroup, "cgroup.kill"), []byte("1"), 0))
					}
				}
				t.Logf("%s was killed %d times: %d trees harmed", who, n, harmed)
				if who != injector && harmed > 0 {
					t.Error("a tree was harmed with who had system calls made in it")
				}
			})
		}
	}, "./testenv/victims/churn")
}

// harmOf says what is wrong with processes of a tree in which nobody injects any more, "" if nothing is.
func harmOf(pids []int) string {
	for _, pid := range pids {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if _, state, _ := strings.Cut(string(stat), ") "); state == "" || strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X") {
			return "a process has ended"
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.Contains(to, "userfaultfd") {
				return fd + " is " + to
			}
		}
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		for _, task := range tasks {
			for deadline := time.Now().Add(time.Second); blockedBy(task) == injectedMask; { // a thread that starts another blocks all for a moment
				if time.Now().After(deadline) {
					return task + " blocks all signals"
				}
			}
		}
	}
	return ""
}

// injectedMask are the signals that a thread blocks while it has what is injected: all but SIGKILL and SIGSTOP.
const injectedMask = ^uint64(1<<(unix.SIGKILL-1) | 1<<(unix.SIGSTOP-1))

// Whoever asked dies while a thread has been stopped and cannot make the call yet, because its cgroup is frozen: what injects is moved
// neither by that nor by signals that end programs, sees it through and ends.
func TestAnInjectionIsSeenThroughWhenNobodyWaitsForIt(t *testing.T) {
	onHost(t, func() {
		v := startPatient(t, "sleeps")
		for _, signal := range []unix.Signal{0, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT} {
			a := startAsker(t, []int{v.tree.Pid})
			v.freeze(t, true)
			eventually(t, "a thread is about to make the call", func() bool { return v.blocked(t) == injectedMask })
			if signal != 0 {
				must(t, unix.Kill(a.injectors[0], signal))
			}
			must(t, a.cmd.Process.Kill())
			_ = a.cmd.Wait() // it was killed
			if mask := v.blocked(t); mask != injectedMask {
				t.Errorf("signal %d: it did not come in the middle: the mask is %x", signal, mask)
			}
			v.freeze(t, false)
			eventually(t, "who injects ends", func() bool { return !anyOf(a.injectors) })
			v.untouched(t)
			eventually(t, "its mask is its own", func() bool { return v.blocked(t) == patientMask })
			v.works(t)
		}
		v.ends(t)
	})
}

// BenchmarkInjection measures what a process costs that injects, and what each injection does.
func BenchmarkInjection(b *testing.B) {
	onHost(b, func() {
		v := startPatient(b, "sleeps")
		pidfd, err := unix.PidfdOpen(v.tree.Pid, 0)
		must(b, err)
		defer unix.Close(pidfd)
		var first, others []time.Duration
		for range 50 {
			begin := time.Now()
			i, err := startInjector()
			must(b, err)
			for n := range 21 {
				u, err := i.Userfaultfd(b.Context(), v.tree.Pid, pidfd)
				must(b, err)
				unix.Close(u.FD)
				if n == 0 {
					first = append(first, time.Since(begin))
				} else {
					others = append(others, time.Since(begin))
				}
				begin = time.Now()
			}
			i.Close()
		}
		slices.Sort(first)
		slices.Sort(others)
		b.ReportMetric(float64(first[len(first)/2].Microseconds()), "µs/start+first")
		b.ReportMetric(float64(others[len(others)/2].Microseconds()), "µs/other")
	})
}

package doctor

import (
	"debug/elf"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// find is the first finding of that check and verdict.
func find(list []workerapi.Finding, check, verdict string) (workerapi.Finding, bool) {
	i := slices.IndexFunc(list, func(f workerapi.Finding) bool { return f.Check == check && f.Verdict == verdict })
	if i < 0 {
		return workerapi.Finding{}, false
	}
	return list[i], true
}

func TestAPlainTreeIsGo(t *testing.T) {
	for _, what := range []string{"nothing", "eventfd", "null", "pty pair", "memfd", "pipe", "listener", "udp", "log", "child", "odd name", "unix listener"} {
		tree, _ := victim(t, what)
		inv := inspect(t, tree, adopted())
		for _, f := range inv.Findings {
			if f.Verdict != workerapi.Go {
				t.Errorf("%s: %+v", what, f)
			}
		}
		if inv.Options.TCPEstablished || inv.Options.FileLocks || inv.Options.LinkRemap || inv.Options.ShellJob || inv.Options.GhostLimit != 0 {
			t.Errorf("%s: options %+v, want none", what, inv.Options)
		}
	}
}

func TestWhatCannotBeDumpedIsNamedWithAWayOut(t *testing.T) {
	for _, c := range []struct{ what, check, detail, mend string }{
		{"io_uring", "descriptors", "io_uring cannot be dumped: process %d", "kernel.io_uring_disabled"},
		{"userfaultfd", "descriptors", "userfaultfd cannot be dumped: process %d", "userfaultfd"},
		{"mptcp", "sockets", "MPTCP cannot be dumped: process %d", "GODEBUG=multipathtcp=0"},
		{"vsock", "sockets", "AF_VSOCK cannot be dumped: process %d", "close such sockets"},
		{"device", "devices", "device /dev/fuse cannot be dumped: process %d", "close the device"},
		{"shm", "shm", "process %d", "unshare --ipc"},
	} {
		tree, _ := victim(t, c.what)
		f, ok := find(inspect(t, tree, adopted()).Findings, c.check, workerapi.NoGo)
		if want := fmt.Sprintf(strings.ReplaceAll(c.detail, "%d", "%[1]d"), tree.Pid); !ok || !strings.Contains(f.Detail, want) || !strings.Contains(f.Mend, c.mend) {
			t.Errorf("%s: got %+v, want NO-GO on %s with %q, mended by %q", c.what, f, c.check, want, c.mend)
		}
	}
}

func TestSharedMemoryInAnIPCNamespaceOfItsOwnIsGo(t *testing.T) {
	tree, _ := victim(t, "shm", func(c *exec.Cmd) { c.SysProcAttr.Cloneflags = unix.CLONE_NEWIPC })
	inv := inspect(t, tree, adopted())
	if f, no := find(inv.Findings, "shm", workerapi.NoGo); no || !inv.OwnIPCNS {
		t.Errorf("own IPC namespace %v, %+v", inv.OwnIPCNS, f)
	}
}

func TestWhatNeedsAnOptionGetsIt(t *testing.T) {
	for _, c := range []struct {
		what, flag string
		set        func(engine.Options) bool
	}{
		{"lock", "--file-locks", func(o engine.Options) bool { return o.FileLocks }},
		{"deleted", "--ghost-limit 4M", func(o engine.Options) bool { return o.GhostLimit == 4<<20 }},
		{"unlinked", "--link-remap", func(o engine.Options) bool { return o.LinkRemap }},
		{"loopback", "--tcp-established", func(o engine.Options) bool { return o.TCPEstablished }},
	} {
		tree, _ := victim(t, c.what)
		inv := inspect(t, tree, adopted())
		flagged := slices.ContainsFunc(inv.Findings, func(f workerapi.Finding) bool { return f.Verdict == workerapi.GoWithFlag && f.Flag == c.flag })
		if !flagged || !c.set(inv.Options) {
			t.Errorf("%s: options %+v, findings %+v; want flag %s", c.what, inv.Options, inv.Findings, c.flag)
		}
	}
}

func TestATreeInAnothersSessionNeedsShellJob(t *testing.T) {
	shell, _ := victim(t, "child") // leads a session, and its child is in it
	all, err := treeOf(shell.Pid)
	if err != nil || len(all) != 2 {
		t.Fatalf("the shell and its job: %+v, %v", all, err)
	}
	job := engine.Tree{Pid: all[1].pid}
	inv := inspect(t, job, adopted())
	if f, ok := find(inv.Findings, "terminal", workerapi.GoWithFlag); !ok || f.Flag != "--shell-job" || !inv.Options.ShellJob {
		t.Errorf("options %+v, %+v", inv.Options, f)
	}
}

// CRIU cannot dump such a session, whatever it is told.
func TestASessionFromOutsideThePidNamespaceIsNoGo(t *testing.T) {
	tree, _ := victim(t, "nothing", func(c *exec.Cmd) {
		c.SysProcAttr.Setsid, c.SysProcAttr.Cloneflags = false, unix.CLONE_NEWPID
	})
	inv := inspect(t, tree, adopted())
	if f, no := find(inv.Findings, "session", workerapi.NoGo); !no || !strings.Contains(f.Detail, "process 1 ") || !strings.Contains(f.Mend, "setsid") {
		t.Errorf("got %+v", f)
	}
	if inv.Options.ShellJob {
		t.Error("it is taken for a shell's job")
	}
}

func TestATerminalWhoseOtherSideStaysIsNoGo(t *testing.T) {
	master, slave, err := openPTY()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	tree, _ := victim(t, "terminal", func(c *exec.Cmd) { c.Env = append(c.Env, "TERMINAL="+slave.Name()) })
	f, ok := find(inspect(t, tree, adopted()).Findings, "terminal", workerapi.NoGo)
	if !ok || !strings.Contains(f.Detail, slave.Name()) || !strings.Contains(f.Mend, "setsid") {
		t.Errorf("got %+v", f)
	}
}

func TestOtherEndsThatStayBehindAreNoGo(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	tree, _ := victim(t, "nothing", func(c *exec.Cmd) { c.Stdout = w })
	if f, ok := find(inspect(t, tree, adopted()).Findings, "pipes", workerapi.NoGo); !ok || !strings.Contains(f.Detail, fmt.Sprint(os.Getpid())) {
		t.Errorf("a pipe to this process: %+v", f)
	}

	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() { c, _ := ln.Accept(); accepted <- c }()
	tree, _ = victim(t, "unix", func(c *exec.Cmd) { c.Env = append(c.Env, "PEER="+socket) })
	defer (<-accepted).Close()
	if f, ok := find(inspect(t, tree, adopted()).Findings, "sockets", workerapi.NoGo); !ok || !strings.Contains(f.Detail, fmt.Sprint(os.Getpid())) {
		t.Errorf("a unix socket to this process: %+v", f)
	}
}

func TestAConnectionMovesOnlyWithAnAddressThatMoves(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	tree, _ := victim(t, "caller", func(c *exec.Cmd) { c.Env = append(c.Env, "PEER="+ln.Addr().String()) })
	inv := inspect(t, tree, adopted())
	if f, ok := find(inv.Findings, "tcp", workerapi.NoGo); !ok || !strings.Contains(f.Detail, ln.Addr().String()) || !strings.Contains(f.Mend, "--address") {
		t.Errorf("to a process that stays behind: %+v", inv.Findings)
	}
	own := adopted(func(s *workload.Spec) { s.Address = "127.0.0.1/8" })
	if f, no := find(inspect(t, tree, own).Findings, "tcp", workerapi.NoGo); no {
		t.Errorf("from an address that moves with it: %+v", f)
	}
}

func TestFilesAreListedAsTheTreeSeesThem(t *testing.T) {
	tree, dir := victim(t, "log")
	inv := inspect(t, tree, adopted())
	file := func(path string) workerapi.File {
		i := slices.IndexFunc(inv.Files, func(f workerapi.File) bool { return f.Path == path })
		if i < 0 {
			t.Fatalf("%s is not among %+v", path, inv.Files)
		}
		return inv.Files[i]
	}
	if f := file(filepath.Join(dir, "log")); f.Size != 5 || f.Mode != unix.S_IFREG|0o640 || !f.Append || f.Mapped {
		t.Errorf("the log: %+v", f)
	}
	if f := file(dir); f.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Errorf("the working directory: %+v", f)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if f := file(exe); !f.Mapped || f.Size == 0 || f.Append {
		t.Errorf("the program: %+v", f)
	}
}

func TestWhatMovesWithAVolumeIsNotAskedOfTheTarget(t *testing.T) {
	tree, dir := victim(t, "log,unlinked")
	on := func(shared bool) workload.Spec {
		return adopted(func(s *workload.Spec) { s.Volumes = []workload.Volume{{Host: dir, Inside: dir, Shared: shared}} })
	}
	has := func(inv workerapi.Inventory) bool {
		return slices.ContainsFunc(inv.Files, func(f workerapi.File) bool { return f.Path == filepath.Join(dir, "log") })
	}
	carried := inspect(t, tree, on(false))
	if has(carried) || carried.Dirty != 5 {
		t.Errorf("a carried volume: listed %v, %d bytes to carry, want 5", has(carried), carried.Dirty)
	}
	if f, no := find(carried.Findings, "files", workerapi.NoGo); no {
		t.Errorf("an unlinked file on a volume: %+v", f)
	}
	if shared := inspect(t, tree, on(true)); !has(shared) || shared.Dirty != 0 {
		t.Errorf("a shared volume: listed %v, %d bytes to carry", has(shared), shared.Dirty)
	}
	if _, no := find(inspect(t, tree, adopted()).Findings, "files", workerapi.NoGo); !no {
		t.Error("an unlinked file on no volume is let pass")
	}
}

func TestProcessesThreadsAndStoppedOnesAreListed(t *testing.T) {
	tree, _ := victim(t, "stopped child")
	inv := inspect(t, tree, adopted())
	if len(inv.Processes) != 2 || inv.Processes[0].Host != tree.Pid || len(inv.StoppedPids) != 1 || inv.StoppedPids[0] != inv.Processes[1].Pid {
		t.Fatalf("processes %+v, stopped %v", inv.Processes, inv.StoppedPids)
	}
	for _, p := range inv.Processes {
		if p.Pid == 0 || !slices.Contains(p.TIDs, p.Pid) || len(p.TIDs) < 2 || p.UID != 0 || p.Comm == "" {
			t.Errorf("process %+v", p)
		}
	}
	if inv.RSS < 1<<20 || inv.Epoch != 3 || inv.Host != "alpha" || len(inv.CPU.Features) == 0 {
		t.Errorf("RSS %d, epoch %s, host %s, %d CPU features", inv.RSS, inv.Epoch, inv.Host, len(inv.CPU.Features))
	}
}

func TestATreeInItsOwnPidNamespaceIsNumberedInIt(t *testing.T) {
	tree, _ := victim(t, "child", func(c *exec.Cmd) { c.SysProcAttr.Cloneflags = unix.CLONE_NEWPID })
	inv := inspect(t, tree, adopted())
	if !inv.OwnPidNS || inv.OwnNetNS || inv.OwnMountNS || inv.Processes[0].Pid != 1 || inv.Processes[0].Host != tree.Pid {
		t.Errorf("own pid namespace %v, net %v, mount %v, root %+v", inv.OwnPidNS, inv.OwnNetNS, inv.OwnMountNS, inv.Processes[0])
	}
	if inv.Options.ShellJob {
		t.Error("its session's leader is in it, all the same it is to be a shell's job")
	}
}

func TestAPidNamespaceBelowTheTreesOwnIsNoGo(t *testing.T) {
	tree, _ := victim(t, "nested")
	if f, ok := find(inspect(t, tree, adopted()).Findings, "namespaces", workerapi.NoGo); !ok || !strings.Contains(f.Detail, "pid namespace") {
		t.Errorf("got %+v", f)
	}
}

func TestListenersOfTheHostsNetworkAreListed(t *testing.T) {
	tree, _ := victim(t, "listener,udp")
	inv := inspect(t, tree, adopted())
	var protos []string
	for _, l := range inv.Listeners {
		protos = append(protos, l.Proto)
		if l.Address != "127.0.0.1" || l.Port == 0 {
			t.Errorf("listener %+v", l)
		}
	}
	slices.Sort(protos)
	if !slices.Equal(protos, []string{"tcp", "udp"}) {
		t.Errorf("listeners %+v", inv.Listeners)
	}
}

func TestATreeThatIsGoneSaysSo(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	_, err := Inspect(t.Context(), engine.Tree{Pid: cmd.Process.Pid}, adopted(), 1, here)
	if !errors.Is(err, engine.ErrGone) || errs.KindOf(err) != errs.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestTheBuildIDIsTheOneInTheFile(t *testing.T) {
	path, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	note, err := f.Section(".note.gnu.build-id").Data() // 16 bytes of header, then the id
	if err != nil {
		t.Fatal(err)
	}
	if got, want := readBuildID(path), fmt.Sprintf("%x", note[16:]); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := readBuildID("/etc/passwd"); got != "" {
		t.Errorf("a text file has build-id %q", got)
	}
}

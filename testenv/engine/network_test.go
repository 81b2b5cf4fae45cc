package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/criu"
	"drover/engine/lazy"
	"drover/internal/migration"
	"drover/worker/network"
)

// talker talks to itself over its own loopback: a child gives back all that it is sent, in order; and one connection is always half
// closed, with words in it that nobody has read. At SIGUSR1 these are read, with what comes behind them, and answered. With an
// argument it sends datagrams too, that nobody wants.
const talker = `
import os, signal, socket, sys
listener = socket.create_server(("127.0.0.1", 7000))
def pair():
    a = socket.create_connection(("127.0.0.1", 7000))
    return a, listener.accept()[0]
def half():
    a, b = pair()
    a.sendall(b"last words")
    a.shutdown(socket.SHUT_WR)
    return a, b
def wanted(what, got, want):
    if got != want:
        print("WRONG", what, got, want, flush=True)
        os._exit(1)
ours, theirs = pair()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if os.fork() == 0:
    while data := theirs.recv(65536):
        theirs.sendall(data)
    os._exit(0)
asked, halves, n = [0], 0, 0
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
a, b = half()
while True:
    n += 1
    try:
        if len(sys.argv) > 1:
            datagrams.sendto(b"said", ("127.0.0.1", 7001))
    except OSError as e:
        wanted("datagram", e, None)
    said = b"%20d" % n * 100
    ours.sendall(said)
    wanted("echo", ours.recv(len(said), socket.MSG_WAITALL), said)
    if len(asked) - 1 > halves:
        wanted("words", b.recv(100), b"last words")
        wanted("end", b.recv(100), b"")
        b.sendall(b"answer")
        b.close()
        wanted("answer", a.recv(100, socket.MSG_WAITALL), b"answer")
        a.close()
        halves += 1
        a, b = half()
        print("half", halves, flush=True)
    print(n, flush=True)
`

// netTree is a tree in a network namespace that outlives it.
type netTree struct {
	*outside
	network *os.File
	halves  int
}

func startTalker(t *testing.T, args ...string) *netTree {
	t.Helper()
	command := append([]string{"unshare", "--net", "sh", "-c", `ip link set lo up && exec "$@"`, "sh", "python3", "-c", talker}, args...)
	v := &netTree{outside: startOutside(t, command...)}
	v.works(t)
	var err error
	v.network, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", v.tree.Pid))
	must(t, err)
	t.Cleanup(func() { v.network.Close() })
	return v
}

func (v *netTree) options(t *testing.T) engine.Options {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(int(v.network.Fd()), &st))
	return engine.Options{TCPEstablished: true, External: []string{fmt.Sprintf("net[%d]:n", st.Ino)}}
}

// talks returns when the tree has said more to itself, and has read what nobody had.
func (v *netTree) talks(t *testing.T) {
	t.Helper()
	v.works(t)
	v.halves++
	must(t, unix.Kill(v.tree.Pid, unix.SIGUSR1))
	eventually(t, "the half-closed connection is read", func() bool {
		all := v.reports(t)
		if i := slices.IndexFunc(all, func(line string) bool { return strings.HasPrefix(line, "WRONG") }); i >= 0 {
			t.Fatal(all[i])
		}
		return slices.Contains(all, fmt.Sprint("half ", v.halves))
	})
	v.works(t)
}

// wantTables says what nftables has in the tree's network.
func (v *netTree) wantTables(t *testing.T, want string) {
	t.Helper()
	cmd := exec.Command("nsenter", "--net=/proc/self/fd/3", "nft", "list", "tables")
	cmd.ExtraFiles = []*os.File{v.network}
	out, err := cmd.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != want {
		t.Errorf("nft has %q, want %q; %v", got, want, err)
	}
}

// A tree whose network namespace is its caller's keeps its connections, those to itself and half-closed ones too, through dumps that are
// given up and through moves. The namespace is locked meanwhile and left as it was, and no image describes it.
func TestATreeInItsOwnNetworkKeepsItsConnections(t *testing.T) {
	onHost(t, func() {
		for _, beside := range []bool{true, false} {
			t.Run(fmt.Sprintf("memory beside the images %t", beside), func(t *testing.T) {
				v, e := startTalker(t), criu.New(criu.Config{})
				dir := t.TempDir()
				for range 3 {
					images, err := os.Open(dir)
					must(t, err)
					defer images.Close()
					req := engine.DumpRequest{Tree: v.tree, Options: v.options(t), Images: images, Lazy: beside}
					h, err := e.Dump(t.Context(), req)
					must(t, err)
					v.wantTables(t, "table inet CRIU-drover")
					must(t, h.Abort(t.Context()))
					v.wantTables(t, "")
					v.talks(t)

					dir = t.TempDir()
					req.Images, err = os.Open(dir)
					must(t, err)
					defer req.Images.Close()
					h, err = e.Dump(t.Context(), req)
					must(t, err)
					var memory copied
					if beside {
						memory = copyMemory(t, v.tree, dir)
					}
					_, err = h.Commit(t.Context())
					must(t, err)
					if described, _ := filepath.Glob(filepath.Join(dir, "netns-*")); len(described) > 0 {
						t.Errorf("there are %q", described)
					}
					v.restore(t, e, req, memory)
					v.wantTables(t, "")
					v.talks(t)
					dir = t.TempDir()
				}
			})
		}
	})
}

func (v *netTree) restore(t *testing.T, e *criu.Engine, dumped engine.DumpRequest, memory copied) {
	t.Helper()
	eventually(t, "the tree has ended", func() bool { return len(v.pids()) == 0 })
	var f *lazy.Filler
	if dumped.Lazy {
		f = startFiller(t, e, v.tree, dumped.Images.Name(), memory)
		defer f.Close()
	}
	ns, lo := fmt.Sprintf("/proc/self/fd/%d", v.network.Fd()), netip.MustParseAddr("127.0.0.1")
	must(t, network.Fence(t.Context(), ns, lo)) // as drover's hosts do
	h, err := e.Restore(t.Context(), engine.RestoreRequest{
		Images: dumped.Images, Options: dumped.Options, Cgroup: v.tree.Cgroup, Lazy: dumped.Lazy, Inherit: map[string]*os.File{"n": v.network},
	})
	must(t, err)
	v.tree.Pid = h.Pid()
	if f != nil {
		_, err = f.Fill(t.Context(), nil)
		must(t, err)
	}
	_, err = h.Commit(t.Context())
	must(t, err)
	must(t, network.Unfence(t.Context(), ns, lo))
}

// A dump that is refused in the freeze lets the tree go on before its network is unlocked: no call of it fails for that.
func TestARefusedDumpFailsNoCallOfTheTree(t *testing.T) {
	onHost(t, func() {
		v, e := startTalker(t, "datagrams"), criu.New(criu.Config{})
		refused := errors.New("refused")
		for range 8 {
			images, err := os.Open(t.TempDir())
			must(t, err)
			defer images.Close()
			req := engine.DumpRequest{Tree: v.tree, Options: v.options(t), Images: images, Lazy: true, AtFreeze: func(context.Context) error { return refused }}
			if _, err := e.Dump(t.Context(), req); !errors.Is(err, refused) {
				t.Fatal(err)
			}
			v.talks(t)
		}
		v.wantTables(t, "")
	})
}

// A tree that is left stopped stays locked until it goes on.
func TestAStoppedTreesNetworkIsUnlockedWhenItGoesOn(t *testing.T) {
	onHost(t, func() {
		v, e := startTalker(t), criu.New(criu.Config{})
		images, err := os.Open(t.TempDir())
		must(t, err)
		defer images.Close()
		h, err := e.Dump(t.Context(), engine.DumpRequest{Tree: v.tree, Options: v.options(t), Images: images, FinalState: migration.Stopped})
		must(t, err)
		_, err = h.Commit(t.Context())
		must(t, err)
		v.wantTables(t, "table inet CRIU-drover")
		must(t, e.Continue(t.Context(), v.tree, nil))
		v.wantTables(t, "")
		v.talks(t)
	})
}

// hostTables is what nftables has in the host's network.
func hostTables(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "tables").CombinedOutput()
	must(t, err)
	return strings.TrimSpace(string(out))
}

// Trees in the host's network are locked by tables that stand side by side. A dump takes down its own, and where it cannot know which that is, none.
func TestTheLocksOfOthersStay(t *testing.T) {
	onHost(t, func() {
		const others = "table inet CRIU-0a0a0a0a-e831-4cbc-8b"
		must(t, exec.Command("nft", strings.Fields("add "+others)...).Run())
		t.Cleanup(func() { must(t, exec.Command("nft", strings.Fields("delete "+others)...).Run()) })
		v, e, dir := startOutside(t, "python3", "-c", talker), criu.New(criu.Config{}), t.TempDir()
		v.works(t)
		images, err := os.Open(dir)
		must(t, err)
		defer images.Close()
		req := engine.DumpRequest{Tree: v.tree, Options: engine.Options{TCPEstablished: true}, Images: images, FinalState: migration.Stopped}

		h, err := e.Dump(t.Context(), req)
		must(t, err)
		_, err = h.Commit(t.Context())
		must(t, err)
		v.tree.Lock = criu.LockName(dir)
		if both := hostTables(t); !strings.Contains(both, v.tree.Lock) || !strings.Contains(both, others) {
			t.Fatalf("nft has %q, want the dump's %s and the other one", both, v.tree.Lock)
		}
		must(t, e.Continue(t.Context(), v.tree, nil))
		if got := hostTables(t); got != others {
			t.Errorf("continued, nft has %q, want %q", got, others)
		}
		v.works(t)

		req.AtFreeze = func(context.Context) error { return os.Truncate(filepath.Join(dir, "dump.log"), 0) }
		h, err = e.Dump(t.Context(), req)
		must(t, err)
		must(t, exec.Command("pkill", "-9", "-x", "criu").Run()) // who could still know it
		must(t, h.Abort(t.Context()))
		got := hostTables(t)
		if !strings.Contains(got, others) {
			t.Errorf("given up, nft has %q, want %q among it", got, others)
		}
		for own := range strings.Lines(strings.Replace(got, others, "", 1)) { // which drover could not know
			if own = strings.TrimSpace(own); own != "" {
				must(t, exec.Command("nft", append([]string{"delete"}, strings.Fields(own)...)...).Run())
			}
		}
		v.works(t)
	})
}

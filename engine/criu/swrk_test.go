package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"

	"drover/engine"
)

// impostor starts a shell script in CRIU's place. Its conversation socket is descriptor 3.
func impostor(t *testing.T, script string) *swrk {
	t.Helper()
	return impostorThat(t, forked{}, script)
}

func impostorThat(t *testing.T, rest forked, script string) *swrk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "criu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	images, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	s, err := startFrom(nil, rest, path, images)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return s
}

func TestAConversationSaysHowCRIUEnded(t *testing.T) {
	s := impostor(t, "echo library missing >&2; exit 127")
	_, err := s.receive(t.Context())
	if !errors.Is(err, engine.ErrLost) || !strings.Contains(err.Error(), "exit status 127") || !strings.Contains(err.Error(), "library missing") {
		t.Errorf("got %v", err)
	}
}

// forks says a word, starts a child that does not end and says its pid, and dies.
const forks = `printf '\010\006\020\001' >&3; (exec sleep 1000) & echo $! >&2; kill -9 $$`

// child is what an impostor that has died by forks has left.
func (s *swrk) child(t *testing.T) int {
	t.Helper()
	if resp, err := s.receive(t.Context()); err != nil || resp.GetType() != rpc.CriuReqType_NOTIFY {
		t.Fatalf("what it had said: %v, %v", resp, err)
	}
	_, err := s.receive(t.Context())
	if !errors.Is(err, engine.ErrLost) {
		t.Fatalf("got %v", err)
	}
	_, said, _ := strings.Cut(err.Error(), "killed: ")
	pid, err := strconv.Atoi(said)
	if err != nil {
		t.Fatalf("no child: %q", said)
	}
	return pid
}

// A restore's processes have CRIU's end of the socket, from when they are forked to when they are rebuilt.
func TestAConversationEndsWithCRIUThoughTheTreeLives(t *testing.T) {
	if err := unix.Kill(impostorThat(t, forked{lives: true}, forks).child(t), unix.SIGKILL); err != nil {
		t.Error(err)
	}
}

func TestWhatADumpsCRIUHasForkedEndsWithIt(t *testing.T) {
	pid := impostor(t, forks).child(t)
	for until := time.Now().Add(20 * time.Second); unix.Kill(pid, 0) == nil && !zombie(pid); <-time.After(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("its child lives")
		}
	}
}

// A pre-dump is made by a child, which has threads of the tree run its code: killed with CRIU, it would take a process along.
func TestWhatAPreDumpsCRIUHasForkedFinishesFirst(t *testing.T) {
	dir := t.TempDir()
	word, done := filepath.Join(dir, "word"), filepath.Join(dir, "done")
	if err := unix.Mkfifo(word, 0o600); err != nil {
		t.Fatal(err)
	}
	say, err := os.OpenFile(word, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer say.Close()
	s := impostorThat(t, forked{patience: time.Minute}, fmt.Sprintf("(read word <%s; echo >%s) & kill -9 $$", word, done))
	for !zombie(s.cmd.Process.Pid) {
		<-time.After(time.Millisecond)
	}
	if s.ended() {
		t.Error("CRIU has ended before its child")
	}
	if _, err := say.WriteString("go on\n"); err != nil {
		t.Fatal(err)
	}
	s.kill()
	if _, err := os.Stat(done); err != nil || s.cutShort {
		t.Errorf("its child has not finished: %v, cut short %t", err, s.cutShort)
	}
}

func TestWhatAPreDumpsCRIUHasForkedDoesNotStayForEver(t *testing.T) {
	s := impostorThat(t, forked{patience: time.Millisecond}, "(exec sleep 1000 2>&-) & kill -9 $$")
	if <-s.gone; !s.cutShort {
		t.Error("what did not end was not cut short")
	}
	s.workers.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := s.workers.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("its child lives: %v", err)
	}
}

// zombie says whether the process has ended and nobody has reaped it.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

func TestAConversationGoesOnAfterAContextHasEnded(t *testing.T) {
	// a message of type NOTIFY, success true, after the go-ahead on descriptor 4
	s := impostor(t, `head -c 1 <&3 >/dev/null; printf '\010\006\020\001' >&3; read never <&3`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if err := s.answer(true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	resp, err := s.receive(ctx)
	if err != nil || resp.GetType() != rpc.CriuReqType_NOTIFY || !resp.GetSuccess() {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestANonsenseAnswerIsAnError(t *testing.T) {
	s := impostor(t, `printf '\377\377\377' >&3; read never <&3`)
	if _, err := s.receive(t.Context()); err == nil || errors.Is(err, engine.ErrLost) {
		t.Errorf("got %v", err)
	}
}

func TestADescriptorLeftToThisProcessDoesNotReachCRIU(t *testing.T) {
	const left = 200
	if err := unix.Dup3(0, left, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(left)
	s := impostor(t, `ls /proc/self/fd >&2; exit 0`)
	_, err := s.receive(t.Context())
	_, list, _ := strings.Cut(err.Error(), "exit status 0: ")
	if got := strings.Fields(list); !slices.Contains(got, "3") || slices.Contains(got, "200") {
		t.Errorf("descriptors %v, want 3 among them and not 200", got)
	}
}

func TestAnEngineWithoutCRIUSaysWhatToInstall(t *testing.T) {
	_, err := New(Config{Path: "/nowhere/criu"}).Probe(t.Context())
	if err == nil || !strings.Contains(err.Error(), "/nowhere/criu") {
		t.Errorf("got %v", err)
	}
}

func TestAProgramThatIsNotCRIUCouldNotBeAskedForItsVersion(t *testing.T) {
	_, err := New(Config{Path: "/bin/true"}).Probe(t.Context())
	if err == nil || !strings.Contains(err.Error(), "CRIU at /bin/true could not be asked for its version") || errors.Is(err, engine.ErrLost) || strings.Contains(err.Error(), "held") {
		t.Errorf("got %v", err)
	}
}

func TestACRIUThatIsTooOldIsUnfitAndSaysItsVersion(t *testing.T) {
	for _, c := range []struct {
		major, minor, sublevel int32
		fit                    bool
	}{{3, 17, 1, false}, {4, 1, 1, false}, {4, 2, 0, true}, {5, 0, 0, true}} {
		resp := &rpc.CriuResp{Type: rpc.CriuReqType_VERSION.Enum(), Success: ptr(true), Version: &rpc.CriuVersion{
			MajorNumber: ptr(c.major), MinorNumber: ptr(c.minor), Sublevel: ptr(c.sublevel),
		}}
		b, err := resp.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "criu")
		script := "#!/bin/sh\ndd bs=64k count=1 <&3 >/dev/null\ndd bs=64k if=" + path + ".answer >&3\n" // a message is one read, one write
		if err := errors.Join(os.WriteFile(path+".answer", b, 0o600), os.WriteFile(path, []byte(script), 0o755)); err != nil {
			t.Fatal(err)
		}
		f, err := New(Config{Path: path}).Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("CRIU %d.%d.%d at %s is too old: drover needs 4.2 or later", c.major, c.minor, c.sublevel, path)
		if fit := f.Fit(); (fit == nil) != c.fit || !c.fit && fit.Error() != want {
			t.Errorf("%s: %v", f.Version, fit)
		}
		if missing := strings.Join(f.Missing, "; "); f.LazyPages || !strings.Contains(missing, "could not be asked whether it restores lazily: it ended") {
			t.Errorf("it has ended before it was asked for more: %s", missing)
		}
	}
}

func TestTheFirstThreadStaysAsItIs(t *testing.T) {
	for range 500 {
		err := onDoomedThread([]func() error{func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("a step ran on the first thread, which would never end")
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

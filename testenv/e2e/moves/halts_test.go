package moves

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/migration"
	"drover/testenv/cluster"
	"drover/testenv/host/hosttest"
	"drover/worker/session/rules"
)

// haltsDir is where a worker that is built with the tag halts looks for pipes; see worker/session/halt.go.
const haltsDir = "/run/drover-halts"

// halt is a step boundary at which a session stands still until the test lets it go.
type halt struct {
	t    *testing.T
	pipe *os.File
	path string // on this machine
	what string
}

// halt arms a boundary: the session that comes to the op on that host stands still before it.
func (g *ground) halt(t *testing.T, on *cluster.Member, role migration.Role, op rules.Op) *halt {
	t.Helper()
	h := &halt{t: t, path: filepath.Join(on.Path(haltsDir), string(role)+"."+op.String()), what: string(role) + " before: " + op.String()}
	if err := errors.Join(os.MkdirAll(filepath.Dir(h.path), 0o700), unix.Mkfifo(h.path, 0o600)); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.pipe, err = os.OpenFile(h.path, os.O_RDWR, 0); err != nil { // both ends: reading never meets an end of file
		t.Fatal(err)
	}
	t.Cleanup(h.letGo)
	return h
}

// reached says whether a session stands there now, or comes there until the channel is closed.
func (h *halt) reached(over <-chan struct{}) bool {
	h.t.Helper()
	if err := h.pipe.SetReadDeadline(time.Now().Add(hosttest.Patience)); err != nil {
		h.t.Fatal(err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-over:
			_ = h.pipe.SetReadDeadline(time.Now())
		case <-done:
		}
	}()
	_, err := h.pipe.Read(make([]byte, 1))
	return err == nil
}

// letGo lets the session go on, or disarms the boundary, and leaves nothing of it on the host. It may be called twice.
func (h *halt) letGo() {
	h.pipe.Close()
	_ = os.Remove(h.path)
	_ = os.Remove(filepath.Dir(h.path)) // unless there is another
}

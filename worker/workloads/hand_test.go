package workloads

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
	"drover/worker/tree"
)

// step is one thing a worker on a test host is told to do.
type step struct {
	Do        string               `json:"do"`
	Name      string               `json:"name,omitempty"`
	Spec      workload.Spec        `json:"spec,omitzero"`
	Epoch     migration.Epoch      `json:"epoch,omitempty"`
	Migration migration.ID         `json:"migration,omitempty"`
	Final     migration.FinalState `json:"final,omitempty"`
	Dir       string               `json:"dir,omitempty"`
	Signal    int                  `json:"signal,omitempty"`
	Grace     time.Duration        `json:"grace,omitempty"`
	Force     bool                 `json:"force,omitempty"`
	Pid       int                  `json:"pid,omitempty"`
}

// outcome is what it says of it.
type outcome struct {
	Status   workload.Status            `json:"status,omitzero"`
	List     []workload.Status          `json:"list,omitempty"`
	Report   workerapi.CheckpointReport `json:"report,omitzero"`
	Logs     string                     `json:"logs,omitempty"`
	Pid      int                        `json:"pid,omitempty"`
	Alive    bool                       `json:"alive,omitempty"`
	Error    string                     `json:"error,omitempty"`
	Kind     string                     `json:"kind,omitempty"`
	Next     string                     `json:"next,omitempty"`
	Took     time.Duration              `json:"took,omitempty"`
	Inherits bool                       `json:"inherits,omitempty"`
}

// Where steps leave what goes to the other host.
const (
	movedImages = "/var/tmp/moved/images"
	movedFiles  = "/var/tmp/moved/files"
)

type movedFile struct {
	File tree.CarriedFile
	Data []byte
}

// byHand is a worker that does one step and goes away, without a good-bye to its keepers.
func byHand(args []string) int {
	var s step
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	h, err := Open(ctx, Config{StateDir: "/var/lib/drover", RunDir: "/run/drover", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	o, err := h.do(ctx, s)
	if err != nil {
		o.Error, o.Kind, o.Next = err.Error(), errs.KindOf(err).String(), errs.NextOf(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		return 1
	}
	return 0
}

func (h *Host) do(ctx context.Context, s step) (o outcome, err error) {
	defer func(t time.Time) { o.Took = time.Since(t) }(time.Now())
	switch s.Do {
	case "start":
		o.Status, err = h.Start(ctx, s.Spec, s.Epoch)
	case "list":
		o.List, err = h.Workloads(ctx)
	case "get":
		o.Status, err = h.Get(ctx, s.Name)
	case "await-exit":
		var e *entry
		if e, err = h.known(s.Name); err == nil && e.exit != nil {
			<-e.exit
		}
		o.Status = h.status(e)
	case "stop":
		o.Status, err = h.Stop(ctx, s.Name, s.Signal, s.Grace)
	case "rm":
		err = h.Remove(ctx, s.Name, s.Force)
	case "continue":
		o.Status, err = h.Continue(ctx, s.Name, s.Epoch)
	case "rm-copy":
		err = h.RemoveCopy(ctx, s.Name, s.Epoch)
	case "logs":
		var b bytes.Buffer
		err = h.Logs(ctx, s.Name, workerapi.LogOptions{Stream: "stdout"}, &b)
		o.Logs = b.String()
	case "checkpoint":
		o.Report, err = h.Checkpoint(ctx, s.Name, s.Dir, s.Final)
	case "leave-checkpoint":
		err = h.leaveCheckpoint(ctx, s)
	case "commit-checkpoint":
		err = h.commitCheckpoint(ctx, s)
	case "mend":
		o.Status, err = h.mend(ctx, s)
	case "restore":
		o.Status, err = h.Restore(ctx, s.Name, s.Dir, s.Final, s.Epoch)
	case "hold":
		err = h.holdSource(ctx, s)
	case "commit", "abort":
		err = h.decideSource(ctx, s)
	case "recover":
		var l tree.Lent
		if l, _, err = h.Find(ctx, s.Migration); err == nil && l.Hold() != nil {
			err = errors.New("a keeper that never held has a hold")
		}
		if err == nil {
			err = errors.Join(l.Thaw(ctx), l.Unfence(ctx), l.Return(ctx, s.Epoch))
		}
	case "receive":
		o.Pid, err = h.holdTarget(ctx, s)
	case "accept":
		o.Pid, err = h.acceptTarget(ctx, s)
	case "discard", "alive":
		var shell tree.Shell
		if _, shell, err = h.Find(ctx, s.Migration); err != nil {
			break
		}
		if s.Do == "discard" {
			err = shell.Discard(ctx)
		} else {
			o.Alive, _, _ = shell.Alive()
		}
	default:
		err = errors.New("no such step: " + s.Do)
	}
	return o, err
}

// leaveCheckpoint takes a checkpoint as far as its hold.
func (h *Host) leaveCheckpoint(ctx context.Context, s step) error {
	e, err := h.known(s.Name)
	if err != nil {
		return err
	}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		return err
	}
	dir, err := os.Open(s.Dir)
	if err != nil {
		return err
	}
	opts, err := h.dumpOptions(ctx, e.rec)
	if err != nil {
		return err
	}
	k, err := h.spawn(ctx, e.rec.Spec, e.rec.Place) // the last one may have died just now
	if err != nil {
		return err
	}
	_, err = k.Dump(ctx, engine.DumpRequest{Tree: e.rec.tree(), Options: opts, FinalState: migration.Dead, Images: dir})
	return err
}

// commitCheckpoint takes a checkpoint as far as its final state, which nobody notes.
func (h *Host) commitCheckpoint(ctx context.Context, s step) error {
	e, err := h.known(s.Name)
	if err != nil {
		return err
	}
	if _, err := e.take(ctx); err != nil { // and keeps it to its end
		return err
	}
	dir, err := takeCheckpointDir(s.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	hold, m, err := h.beginCheckpoint(ctx, e.rec, dir, s.Final)
	if err != nil {
		return err
	}
	if _, _, err := seal(dir, m); err != nil {
		return err
	}
	_, err = commit(ctx, hold)
	return err
}

// mend takes away what is mounted at s.Dir, which is in the way of letting a tree go on, and waits until it does. The status is that of before.
func (h *Host) mend(ctx context.Context, s step) (workload.Status, error) {
	before, err := h.Get(ctx, s.Name)
	if err != nil {
		return before, err
	}
	if err := unix.Unmount(s.Dir, 0); err != nil {
		return before, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if now, err := h.Get(ctx, s.Name); err != nil || now.Trouble == "" {
			return before, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return before, ctx.Err()
		}
	}
}

// holdSource takes a source as far as its hold: files carried twice, as a round and the freeze do.
func (h *Host) holdSource(ctx context.Context, s step) error {
	l, err := h.Lend(ctx, s.Name, s.Epoch, s.Migration)
	if err != nil {
		return err
	}
	var moved []movedFile
	carry := func() error {
		return l.Carry(ctx, func(f tree.CarriedFile, r io.Reader) error {
			b, err := io.ReadAll(r)
			moved = append(moved, movedFile{f, b})
			return err
		})
	}
	if err := carry(); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(movedImages), os.MkdirAll(movedImages, 0o700)); err != nil {
		return err
	}
	dir, err := os.Open(movedImages)
	if err != nil {
		return err
	}
	asked := false
	_, err = l.Engine().Dump(ctx, engine.DumpRequest{
		Tree: l.Tree(), Options: l.Options(), Images: dir, FinalState: s.Final,
		AtFreeze: func(context.Context) error { asked = true; return nil },
	})
	if err == nil && !asked {
		err = errors.New("the dump did not ask at its freeze")
	}
	if err != nil {
		return err
	}
	if err := errors.Join(l.Freeze(ctx), l.Fence(ctx), carry()); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(moved); err != nil {
		return err
	}
	return os.WriteFile(movedFiles, b.Bytes(), 0o600)
}

func (h *Host) decideSource(ctx context.Context, s step) error {
	l, _, err := h.Find(ctx, s.Migration)
	if err != nil {
		return err
	}
	if l.Hold() == nil {
		return errors.New("the keeper has no hold")
	}
	if s.Do == "abort" {
		if err := errors.Join(l.Hold().Abort(ctx), l.Thaw(ctx), l.Unfence(ctx)); err != nil {
			return err
		}
		return l.Return(ctx, s.Epoch)
	}
	if _, err := l.Hold().Commit(ctx); err != nil {
		return err
	}
	return l.Leave(ctx, s.Final)
}

func (h *Host) holdTarget(ctx context.Context, s step) (int, error) {
	shell, err := h.Reserve(ctx, workerapi.Inventory{Spec: s.Spec}, s.Epoch, s.Migration)
	if err != nil {
		return 0, err
	}
	var moved []movedFile
	b, err := os.ReadFile(movedFiles)
	if err == nil {
		err = gob.NewDecoder(bytes.NewReader(b)).Decode(&moved)
	}
	if err != nil {
		return 0, err
	}
	for _, m := range moved {
		if err := shell.Receive(ctx, m.File, bytes.NewReader(m.Data)); err != nil {
			return 0, err
		}
	}
	if err := os.CopyFS(shell.Images(), os.DirFS(movedImages)); err != nil {
		return 0, err
	}
	req := engine.RestoreRequest{Options: shell.Options(), Cgroup: shell.Cgroup(), FinalState: s.Final, Inherit: map[string]*os.File{}}
	if req.Images, err = os.Open(shell.Images()); err != nil {
		return 0, err
	}
	for key, path := range shell.Inherit() {
		if req.Inherit[key], err = os.Open(path); err != nil {
			return 0, err
		}
	}
	hold, err := shell.Engine().Restore(ctx, req)
	if err != nil {
		return 0, err
	}
	return hold.Pid(), nil
}

func (h *Host) acceptTarget(ctx context.Context, s step) (int, error) {
	_, shell, err := h.Find(ctx, s.Migration)
	if err != nil {
		return 0, err
	}
	hold := shell.Hold()
	if hold == nil {
		return 0, errors.New("the keeper has no hold")
	}
	if _, err := hold.Commit(ctx); err != nil {
		return 0, err
	}
	return hold.Pid(), shell.Accept(ctx, hold.Pid(), s.Epoch, s.Final == migration.Stopped)
}

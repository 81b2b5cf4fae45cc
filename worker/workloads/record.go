package workloads

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
)

// States of a record that no status shows.
const (
	gone     workload.State = "gone"     // only the epoch is remembered
	reserved workload.State = "reserved" // a place for a tree that comes
)

// record is what is remembered of a workload over the worker's restarts and the host's.
type record struct {
	Spec  workload.Spec   `json:"spec"`
	Epoch migration.Epoch `json:"epoch"` // the newest seen for this name
	State workload.State  `json:"state"`
	Boot  string          `json:"boot"` // the kernel's boot id when the tree lived

	Pid   int    `json:"pid,omitempty"`
	Birth uint64 `json:"birth,omitempty"` // as keeper.Birth: tells the root from a later process of its pid
	Place place  `json:"place"`

	Migration migration.ID   `json:"migration,omitempty"`
	Role      migration.Role `json:"role,omitempty"`
	// Options are what the tree was dumped with, where it comes from: its restore wants the same.
	Options engine.Options `json:"options,omitzero"`
	// Before is the state that a lent tree returns to.
	Before workload.State `json:"before,omitempty"`
	// KeepStopped are those that were stopped before the tree was, in its own pid namespace: continuing it leaves them so.
	KeepStopped []int `json:"keep_stopped,omitempty"`

	ExitKnown bool      `json:"exit_known,omitempty"`
	ExitCode  int       `json:"exit_code,omitempty"`
	Signal    int       `json:"signal,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Exited    time.Time `json:"exited,omitzero"`
	// Uncleared: what stood for a tree that ended by itself may be there yet. Once it is not, the tree's address may be somebody else's.
	Uncleared bool `json:"uncleared,omitempty"`
}

// alive says whether there is a tree, running or not.
func (r record) alive() bool {
	switch r.State {
	case workload.Starting, workload.Running, workload.Stopped, workload.Migrating, workload.HeldState, workload.Fenced:
		return true
	}
	return false
}

// store keeps records as one file a workload.
type store struct{ dir string }

// home is a workload's directory: its record, its output.
func (s store) home(name string) string { return filepath.Join(s.dir, "workloads", name) }
func (s store) output(name string) string {
	return filepath.Join(s.home(name), "output")
}
func (s store) file(name string) string { return filepath.Join(s.home(name), "record.json") }

// save returns when the record is on the disk. A reader sees the old one or the new one, also after a power cut.
func (s store) save(r record) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.home(r.Spec.Name), 0o700); err != nil {
		return errs.New(errs.Failed, "make the directory of workload %s: %w", r.Spec.Name, err)
	}
	if err := replace(s.file(r.Spec.Name), b); err != nil {
		return errs.New(errs.Failed, "write the record of workload %s: %w", r.Spec.Name, err)
	}
	return nil
}

// replace writes a file under another name, and renames it when it is on the disk.
func replace(path string, content []byte) error {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return replaceIn(dir, filepath.Base(path), content)
}

// replaceIn is replace of a file in dir.
func replaceIn(dir *os.Root, name string, content []byte) error {
	tmp := name + ".new"
	f, err := dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := dir.Rename(tmp, name); err != nil {
		return err
	}
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// load reads all records. One that cannot be read is an error: a worker that forgot a tree could start a second one.
func (s store) load() ([]record, error) {
	if err := os.MkdirAll(filepath.Join(s.dir, "workloads"), 0o700); err != nil {
		return nil, errs.New(errs.Failed, "make the state directory: %w", err)
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "workloads"))
	if err != nil {
		return nil, err
	}
	var all []record
	for _, e := range entries {
		b, err := os.ReadFile(s.file(e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // made, and not yet written when the host went down: nothing was started
		}
		var r record
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err == nil && r.Spec.Name != e.Name() {
			err = errs.New(errs.Failed, "it is of workload %q", r.Spec.Name)
		}
		if err != nil {
			return nil, errs.New(errs.Failed, "read the record %s: %w", s.file(e.Name()), err).
				WithNext("see whether its tree runs, end it, and move the file away")
		}
		all = append(all, r)
	}
	return all, nil
}

// bootID is the kernel's boot id.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if len(b) < 36 {
		return ""
	}
	return string(b[:36])
}

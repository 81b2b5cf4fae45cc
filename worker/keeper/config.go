package keeper

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"drover/internal/errs"
)

// Config is what a keeper is told about its tree when it is spawned. It stands in the keeper's directory, so that another
// keeper can take over after a crash.
type Config struct {
	Workload string `json:"workload"`
	Cgroup   string `json:"cgroup"` // absolute; the tree and nothing else is in it
	// Rootfs is the directory that becomes the tree's "/", "" for a tree in its host's own mount namespace. With it the keeper
	// has a mount namespace of its own, in which Rootfs is mounted at Root().
	Rootfs string `json:"rootfs,omitempty"`
	CRIU   string `json:"criu,omitempty"` // path of criu, "" looks in PATH
	Debug  bool   `json:"debug,omitempty"`
}

// Dir is a keeper's run directory, 0700.
type Dir string

// Root is where the tree's root is mounted in the keeper's mount namespace.
func (d Dir) Root() string { return filepath.Join(string(d), "root") }

// Log is the keeper's log.
func (d Dir) Log() string { return filepath.Join(string(d), "log") }

func (d Dir) config() string { return filepath.Join(string(d), "config.json") }
func (d Dir) socket() string { return filepath.Join(string(d), "socket") }
func (d Dir) state() string  { return filepath.Join(string(d), "state.json") }

// dump leads to the images of the tree's last dump as long as there may be something of it to undo: see Client.Undo.
func (d Dir) dump() string { return filepath.Join(string(d), "dump") }

// lock is held by the living keeper: there is at most one in a directory.
func (d Dir) lock() string { return filepath.Join(string(d), "lock") }

// filling is how far the filler of the directory is. fillLock is held by it as long as it lives, and has its pulse.
func (d Dir) filling() string  { return filepath.Join(string(d), "filling.json") }
func (d Dir) fillLock() string { return filepath.Join(string(d), "filling.lock") }

// writeJSON replaces a file at once: a reader sees the old content or the new.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return errs.New(errs.Failed, "write %s: %w", path, err)
	}
	return os.Rename(tmp, path)
}

// readJSON reads a file of at most 1 MiB.
func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(b) > 1<<20 {
		return errors.New(path + " is larger than 1 MiB")
	}
	if err := json.Unmarshal(b, v); err != nil {
		return errs.New(errs.Failed, "read %s: %w", path, err)
	}
	return nil
}

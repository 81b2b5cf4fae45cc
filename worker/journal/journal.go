package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/migration"
)

// Record says that a session was about to do a step (Done false) or had done it (Done true).
type Record struct {
	Seq       uint64          `json:"seq"` // from 1, without gaps
	Time      time.Time       `json:"time"`
	Migration migration.ID    `json:"migration"`
	Step      string          `json:"step"`
	Done      bool            `json:"done,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"` // what doing or undoing the step again needs
}

// Journal is an open journal. Its methods may be called from several goroutines at once.
type Journal struct {
	path string

	mu     sync.Mutex
	file   *os.File
	next   uint64
	broken error // set by the first write that failed; nothing is written after it
}

// Open opens the journal at path, making it if there is none, and returns what it holds. Only one process may have it open
// (errs.Conflict). A torn last record is cut off; Contents.Torn says so.
func Open(path string) (*Journal, Contents, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, Contents{}, errs.New(errs.Failed, "open journal: %w", err)
	}
	j := &Journal{path: path, file: f}
	got, err := j.load()
	if err != nil {
		f.Close()
		return nil, Contents{}, err
	}
	return j, got, nil
}

func (j *Journal) load() (Contents, error) {
	if err := unix.Flock(int(j.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return Contents{}, errs.New(errs.Conflict, "journal %s is in use: %w", j.path, err).WithNext("stop the other worker that uses this state directory")
	}
	raw, err := os.ReadFile(j.path)
	if err != nil {
		return Contents{}, errs.New(errs.Failed, "read journal: %w", err)
	}
	got, err := Parse(raw)
	if err != nil {
		return Contents{}, errs.New(errs.Failed, "journal %s: %w", j.path, err).
			WithNext("what this host held is no longer known: look with `drover show` at what each workload's record says, move the file away, start the worker again")
	}
	if got.Torn > 0 {
		if err := j.file.Truncate(int64(len(raw) - got.Torn)); err != nil {
			return Contents{}, errs.New(errs.Failed, "cut the torn end off journal %s: %w", j.path, err)
		}
	}
	j.next = uint64(len(got.Records)) + 1
	if err := errors.Join(j.file.Sync(), syncDir(j.path)); err != nil {
		return Contents{}, errs.New(errs.Failed, "sync journal %s: %w", j.path, err)
	}
	return got, nil
}

// Append writes a record and returns when it is on the disk; its Seq and Time are set here. After an error nothing may be
// acted on. What a full disk did not take is cut off again, and may be written once there is space; after any other error every later
// call fails: what a disk holds after a failed sync cannot be known without reading it again.
func (j *Journal) Append(r Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		return errs.New(errs.Failed, "journal %s has failed before: %w", j.path, j.broken).WithNext("mend the disk and restart the worker")
	}
	r.Seq, r.Time = j.next, time.Now()
	line, err := Encode(r)
	if err != nil {
		return errs.New(errs.Failed, "journal step %s of migration %s: %w", r.Step, r.Migration, err)
	}
	end, err := j.file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = j.file.Write(line)
	}
	if isFull(err) && j.file.Truncate(end) == nil {
		return errs.New(errs.Failed, "journal step %s of migration %s in %s: %w", r.Step, r.Migration, j.path, err).
			WithNext("free space: nothing was done, and it is tried again")
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.broken = err
		return errs.New(errs.Failed, "journal step %s of migration %s in %s: %w", r.Step, r.Migration, j.path, err).
			WithNext("mend the disk, then restart the worker")
	}
	j.next++
	return nil
}

// isFull says whether a write failed because there was no room for it.
func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// Compact rewrites the journal so that it holds only the records that keep returns true for, renumbered. The old file stays
// whole until the new one is on the disk, and is written on if there is no room for that. keep must not call the journal.
func (j *Journal) Compact(keep func(Record) bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		return errs.New(errs.Failed, "journal %s has failed before: %w", j.path, j.broken)
	}
	content, kept, err := j.choose(keep)
	if err != nil {
		return errs.New(errs.Failed, "rewrite journal %s: %w", j.path, err)
	}
	f, err := replace(j.path, content)
	if err != nil {
		return errs.New(errs.Failed, "rewrite journal %s: %w", j.path, err)
	}
	j.file.Close()
	j.file, j.next = f, kept+1
	if err := syncDir(j.path); err != nil { // which of the two a crash leaves under that name cannot be known
		j.broken = err
		return errs.New(errs.Failed, "rewrite journal %s: %w", j.path, err).WithNext("mend the disk, then restart the worker")
	}
	return nil
}

func (j *Journal) choose(keep func(Record) bool) (content []byte, kept uint64, err error) {
	raw, err := os.ReadFile(j.path)
	if err != nil {
		return nil, 0, err
	}
	got, err := Parse(raw)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range got.Records {
		if !keep(r) {
			continue
		}
		kept++
		r.Seq = kept
		line, err := Encode(r)
		if err != nil {
			return nil, 0, err
		}
		content = append(content, line...)
	}
	return content, kept, nil
}

// Close gives the journal free for another process.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.broken = os.ErrClosed
	return j.file.Close()
}

// replace puts a file with that content in path's place, locked from before it has the name. The caller syncs the directory.
func replace(path string, content []byte) (*os.File, error) {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	err = func() error {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return fmt.Errorf("lock %s: %w", tmp, err)
		}
		if _, err := f.Write(content); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		return os.Rename(tmp, path)
	}()
	if err != nil {
		f.Close()
		os.Remove(tmp)
		return nil, err
	}
	return f, nil
}

func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

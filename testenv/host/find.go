package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// Listed is a bed as another process sees it.
type Listed struct {
	ID    string
	Hosts []string // those that are up, or were when their owner died
	Alive bool     // its owner lives
}

// List is every bed of this test bed folder.
func List() ([]Listed, error) {
	beds, err := bedsDir()
	if err != nil {
		return nil, err
	}
	pidFiles, err := filepath.Glob(filepath.Join(beds, "*", "*", "pid"))
	if err != nil {
		return nil, err
	}
	folders, err := filepath.Glob(filepath.Join(beds, "*", "lock"))
	if err != nil {
		return nil, err
	}
	var all []Listed
	for _, lock := range folders {
		dir := filepath.Dir(lock)
		l := Listed{ID: filepath.Base(dir), Alive: held(lock)}
		for _, f := range pidFiles {
			if filepath.Dir(filepath.Dir(f)) == dir {
				l.Hosts = append(l.Hosts, filepath.Base(filepath.Dir(f)))
			}
		}
		all = append(all, l)
	}
	return all, nil
}

func held(lock string) bool {
	f, err := lockFile(lock, unix.LOCK_SH|unix.LOCK_NB)
	if err != nil {
		return errors.Is(err, unix.EWOULDBLOCK)
	}
	f.Close()
	return false
}

// Find is a host of a bed that another process owns; the bed's name may be given without its owner's pid. Such a host can be
// entered, paused and resumed; it has no cable to change and only its owner can end it.
func Find(bed, name string) (*Host, error) {
	l, err := find(bed)
	if err != nil {
		return nil, err
	}
	groups, err := bedsGroup()
	if err != nil {
		return nil, err
	}
	dir, err := bedsDir()
	if err != nil {
		return nil, err
	}
	h := &Host{Name: name, dir: filepath.Join(dir, l.ID, name), cgroup: groups.child(l.ID).child(name)}
	text, err := os.ReadFile(h.pidFile())
	if err != nil {
		return nil, errs.New(errs.NotFound, "bed %s has no host %q that is up; it has %s", l.ID, name, strings.Join(l.Hosts, ", "))
	}
	h.pid, err = strconv.Atoi(string(text))
	return h, err
}

// Down asks the process that owns a bed to close it, and returns when it has.
func Down(ctx context.Context, bed string) error {
	l, err := find(bed)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(l.ID[strings.LastIndexByte(l.ID, '-'):], "-")
	number, _, _ := strings.Cut(rest, ".")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return errs.New(errs.Failed, "bed %s names no owner: %w", l.ID, err)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return errs.New(errs.Failed, "end the owner of bed %s, process %d: %w", l.ID, pid, err)
	}
	for {
		open, err := List()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(open, func(now Listed) bool { return now.ID == l.ID && now.Alive }) {
			return nil
		}
		if err := pause(ctx); err != nil {
			return errs.New(errs.Timeout, "wait for bed %s to close: %w", l.ID, err)
		}
	}
}

// find is an open bed, by its ID or by its name.
func find(bed string) (Listed, error) {
	all, err := List()
	if err != nil {
		return Listed{}, err
	}
	for _, l := range all {
		name := l.ID[:max(0, strings.LastIndexByte(l.ID, '-'))]
		if l.Alive && (l.ID == bed || name == bed) {
			return l, nil
		}
	}
	return Listed{}, errs.New(errs.NotFound, "no bed %q is open", bed).WithNext("open one: `go run ./testenv/testbed up NAME HOST…`")
}

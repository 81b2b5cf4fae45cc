package criu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// setFrozen writes cgroup.freeze. The kernel lets no task of the group run user code from the write on, whether or not all
// have come to rest (Documentation/admin-guide/cgroup-v2.rst).
func setFrozen(cgroup string, on bool) error {
	v := "0"
	if on {
		v = "1"
	}
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.freeze"), []byte(v), 0); err != nil {
		return fmt.Errorf("freeze cgroup: %w", err)
	}
	return nil
}

// kill ends every process of a cgroup and its descendants and waits until none is left.
func kill(ctx context.Context, cgroup string) error {
	err := os.WriteFile(filepath.Join(cgroup, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(filepath.Join(cgroup, "cgroup.events"))
		if errors.Is(err, fs.ErrNotExist) || bytes.Contains(b, []byte("populated 0")) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for cgroup %s to empty: %w", cgroup, ctx.Err())
		}
	}
}

// isFrozen says whether somebody has asked for a cgroup to be frozen.
func isFrozen(cgroup string) bool {
	f, err := os.Open(filepath.Join(cgroup, "cgroup.freeze"))
	if err != nil {
		return false
	}
	defer f.Close()
	var b [1]byte // the file is "0\n" or "1\n"
	n, _ := f.Read(b[:])
	return n == 1 && b[0] == '1'
}

// moveHere moves a process out of a cgroup into this process's own.
func moveHere(pid int, from string) error {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	var path string
	for line := range strings.Lines(string(own)) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			path = strings.TrimSpace(p)
		}
	}
	root := from // the mount that from lies in begins at the topmost directory that is a cgroup
	for isCgroup(filepath.Dir(root)) {
		root = filepath.Dir(root)
	}
	return moveInto(filepath.Join(root, path), pid)
}

func moveInto(cgroup string, pid int) error {
	return os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

func isCgroup(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.procs"))
	return err == nil
}

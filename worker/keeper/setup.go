package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// Descriptors of the setup stage.
const (
	statusFD = 3 // a pipe to the keeper: what went wrong as JSON, or nothing when the command was executed
	planFD   = 4
	netFD    = 5 // the tree's network namespace, if it has one of its own
)

// failure is what the setup stage writes to its status pipe.
type failure struct {
	Kind string `json:"kind"`
	Msg  string `json:"msg"`
	Next string `json:"next,omitempty"`
}

// setup runs as pid 1 of the tree's new pid namespace and becomes the command: it never returns. It is called on the main
// thread, locked: namespaces and credentials are properties of threads.
func setup() {
	err := becomeCommand()
	f := failure{Kind: errs.KindOf(err).String(), Msg: err.Error(), Next: errs.NextOf(err)}
	_ = json.NewEncoder(os.NewFile(statusFD, "status")).Encode(f)
	os.Exit(1) //nolint:forbidigo // this process has no main to return to
}

func becomeCommand() error {
	var p plan
	file := os.NewFile(planFD, "plan")
	if err := json.NewDecoder(io.LimitReader(file, maxPacket)).Decode(&p); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	file.Close()
	unix.CloseOnExec(statusFD)
	uid, gid, err := IDs(p.Spec.User)
	if err != nil {
		return err
	}
	if p.NetNS {
		if err := unix.Setns(netFD, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the workload's network namespace: %w", err)
		}
		unix.Close(netFD)
	}
	if err := unix.Sethostname([]byte(p.Spec.Name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := ownOOMScore("/proc/self/oom_score_adj"); err != nil {
		return err
	}
	unix.Umask(0)
	if err := makeWorld(p); err != nil {
		return err
	}
	if err := openStreams(); err != nil {
		return err
	}
	unix.Umask(0o022)
	if err := enterDir(p.Spec.Dir); err != nil {
		return err
	}
	env := environ(p.Spec.Env)
	// The look-up is done with the command's own rights: a file it may not execute is not found, as in a shell.
	if err := dropTo(uid, gid); err != nil {
		return err
	}
	path, err := lookUp(p.Spec.Command[0], valueOf(env, "PATH"))
	if err != nil {
		return err
	}
	if err := defaultSignals(); err != nil {
		return err
	}
	if err := unix.CloseRange(statusFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close what the command does not inherit: %w", err)
	}
	err = syscall.Exec(path, p.Spec.Command, env)
	return errs.New(errs.Refused, "cannot execute %s: %w", path, err).WithNext("see that it is an executable for this machine and that its interpreter is in the root")
}

func enterDir(dir string) error {
	if dir == "" {
		dir = "/"
	}
	if err := os.Chdir(dir); err != nil {
		return errs.New(errs.NotFound, "working directory %s cannot be entered: %w", dir, errors.Unwrap(err)).WithNext("the directory must exist inside the root")
	}
	return nil
}

// dropTo gives up root for the ids asked for, in the order in which that is possible.
func dropTo(uid, gid int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("drop supplementary groups: %w", err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("become group %d: %w", gid, err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
	}
	return nil
}

// lookUp finds a command as execvp does, inside the root.
func lookUp(name, path string) (string, error) {
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, dir := range filepath.SplitList(path) {
			candidates = append(candidates, filepath.Join("/", dir, name))
		}
	}
	why := fs.ErrNotExist
	for _, c := range candidates {
		info, err := os.Stat(c)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
			continue
		case err != nil:
			why = errors.Unwrap(err)
		case info.IsDir():
			why = unix.EISDIR
		case unix.Access(c, unix.X_OK) != nil:
			why = unix.EACCES
		default:
			return c, nil
		}
	}
	if errors.Is(why, fs.ErrNotExist) {
		return "", errs.New(errs.NotFound, "command %s is not there", name).WithNext("it is looked up inside the root, in PATH=%s", path)
	}
	return "", errs.New(errs.Refused, "command %s cannot be executed: %w", name, why)
}

// ownOOMScore takes from a process what spares its worker from the OOM killer (OOMScoreAdjust= in the worker's unit): a tree that has grown too
// large would be spared too, and others killed in its place, here and wherever it moves. A score above 0 is somebody's choice.
func ownOOMScore(file string) error {
	b, err := os.ReadFile(file)
	if err == nil && strings.HasPrefix(string(b), "-") {
		err = os.WriteFile(file, []byte("0"), 0) // it is there: proc(5)
	}
	if err != nil {
		return fmt.Errorf("have the OOM killer treat the tree like any other: %w", err)
	}
	return nil
}

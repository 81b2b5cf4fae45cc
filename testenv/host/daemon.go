package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// Daemon is a program that a host was told to run until it is stopped. It has a session of its own, /dev/null as standard
// input, and its output in a file of the host, so that it can be dumped.
type Daemon struct {
	Name string
	Pid  int // as the host sees it

	host    *Host
	process *os.Process // the program
	standIn *exec.Cmd   // its parent, outside
	ended   chan struct{}
	how     error
}

// Start runs a program in the host until it ends, is stopped or the host goes down; env is added to the host's environment. Its
// output is appended to /var/log/NAME.log in the host. ctx bounds only the start.
func (h *Host) Start(ctx context.Context, name string, argv []string, env ...string) (*Daemon, error) {
	d := &Daemon{Name: name, host: h, ended: make(chan struct{})}
	failed := func(err error) (*Daemon, error) {
		return nil, errs.New(errs.Failed, "start %s on host %s: %w", name, h.Name, err)
	}
	pidOut, pidIn, err := os.Pipe()
	if err != nil {
		return failed(err)
	}
	defer pidOut.Close()
	d.standIn = h.doorway(context.Background(), errand{Argv: argv, Log: d.logFile()})
	d.standIn.Env = append(d.standIn.Env, env...)
	d.standIn.ExtraFiles = []*os.File{pidIn} // reportFd
	var complaint strings.Builder
	d.standIn.Stderr = &complaint
	err = d.standIn.Start()
	pidIn.Close()
	if err != nil {
		return failed(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = d.standIn.Process.Kill() })
	defer stop()
	line, _ := bufio.NewReader(pidOut).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil { // it said nothing: it did not start
		err := d.standIn.Wait()
		return failed(fmt.Errorf("%w: %s", err, strings.TrimSpace(complaint.String())))
	}
	d.Pid = pidInside(pid)
	if d.process, err = os.FindProcess(pid); err != nil {
		return failed(err)
	}
	go func() {
		d.how = d.standIn.Wait()
		close(d.ended)
	}()
	return d, nil
}

// Ended is closed when the program has ended.
func (d *Daemon) Ended() <-chan struct{} { return d.ended }

// Wait returns when the program has ended, with how: nil for exit code 0, an *exec.ExitError otherwise.
func (d *Daemon) Wait(ctx context.Context) error {
	select {
	case <-d.ended:
		return d.how
	case <-ctx.Done():
		return errs.New(errs.Timeout, "wait for %s on host %s: %w", d.Name, d.host.Name, ctx.Err())
	}
}

// Signal sends the program a signal. One that has ended is no error.
func (d *Daemon) Signal(s unix.Signal) error {
	if err := d.process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errs.New(errs.Failed, "signal %s on host %s: %w", d.Name, d.host.Name, err)
	}
	return nil
}

// Kill ends the program as kill -9 does and returns when it is gone.
func (d *Daemon) Kill(ctx context.Context) error {
	if err := d.Signal(unix.SIGKILL); err != nil {
		return err
	}
	select {
	case <-d.ended:
		return nil
	case <-ctx.Done():
		return errs.New(errs.Timeout, "kill %s on host %s: %w", d.Name, d.host.Name, ctx.Err())
	}
}

// Stop asks the program to end (SIGTERM) and returns how it did, as Wait does.
func (d *Daemon) Stop(ctx context.Context) error {
	if err := d.Signal(unix.SIGTERM); err != nil {
		return err
	}
	return d.Wait(ctx)
}

// Log is what the program has written.
func (d *Daemon) Log() string {
	text, err := os.ReadFile(d.host.Path(d.logFile()))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (d *Daemon) logFile() string { return filepath.Join("/var/log", d.Name+".log") }

// pidInside is the pid in the innermost namespace of a process, 0 if it has ended.
func pidInside(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if pids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			all := strings.Fields(pids)
			inside, _ := strconv.Atoi(all[len(all)-1])
			return inside
		}
	}
	return 0
}

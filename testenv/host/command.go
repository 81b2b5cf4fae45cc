package host

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"time"

	"drover/internal/errs"
)

// Command is a command that runs in the host when it is started, as root in /, with the caller's standard input, output and error
// as set on the Cmd and no other descriptor. It ends when ctx does. Its Env is the host's own; add to it, do not replace it.
// Cmd.Process is a stand-in outside the host that passes signals on and ends as the command ends; ExtraFiles and Dir have no
// effect inside. What the test will dump should be started with Start: a command's files may lie outside the host.
func (h *Host) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return h.doorway(ctx, errand{Argv: argv})
}

// Run runs a command in the host and returns its standard output; the error carries what it wrote to standard error.
func (h *Host) Run(ctx context.Context, argv ...string) (string, error) {
	cmd := h.Command(ctx, argv...)
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), errs.New(errs.Failed, "%s on host %s: %w: %s", argv[0], h.Name, err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

func (h *Host) doorway(ctx context.Context, e errand) *exec.Cmd {
	e.Pid, e.Cgroup = h.Pid(), string(h.cgroup.child("system"))
	say, err := json.Marshal(e)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", string(say))
	cmd.Err = err
	if err == nil && !h.Up() {
		cmd.Err = errs.New(errs.Unavailable, "host %s is down", h.Name).WithNext("boot it")
	}
	cmd.Args[0] = enterName
	cmd.WaitDelay = 5 * time.Second // for what a killed command's children still hold open
	cmd.Env = []string{"PATH=" + Path, "HOME=/root", "USER=root", "LANG=C.UTF-8"}
	if term := os.Getenv("TERM"); term != "" {
		cmd.Env = append(cmd.Env, "TERM="+term)
	}
	return cmd
}

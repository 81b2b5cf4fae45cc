package host

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"drover/internal/errs"
)

// Path is where the machine finds a file of a host that is up, its /run and /tmp included. An absolute symbolic link on the way
// would lead out of the host: give paths without (/run, not /var/run).
func (h *Host) Path(p string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", h.Pid()), p)
}

// Install copies a program of the machine into the host, executable, with the folders above it.
func (h *Host) Install(program, at string) error {
	from, err := os.Open(program)
	if err != nil {
		return errs.New(errs.NotFound, "install on host %s: %w", h.Name, err).WithNext("build it: `make build`")
	}
	defer from.Close()
	target := h.Path(at)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return errs.New(errs.Failed, "install %s on host %s: %w", at, h.Name, err)
	}
	fresh := target + ".new" // a running program's file cannot be written to, but it can be replaced
	to, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return errs.New(errs.Failed, "install %s on host %s: %w", at, h.Name, err)
	}
	_, err = io.Copy(to, from)
	if closed := to.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(fresh, target)
	}
	if err != nil {
		return errs.New(errs.Failed, "install %s on host %s: %w", at, h.Name, err)
	}
	return nil
}

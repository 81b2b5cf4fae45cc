// Package workload holds what drover knows of a workload: how to find or start its tree, its address, its files, its state.
// The types go over the wire and into the record as JSON; a field's name there never changes. The package does no I/O.
package workload

import (
	"net/netip"
	"path"
	"regexp"
	"strings"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
)

// Kind says how a workload's tree came to be.
type Kind string

const (
	Run   Kind = "run"   // drover started it, in namespaces and a cgroup of its own, under a keeper
	Adopt Kind = "adopt" // it was there already, in its host's namespaces
)

// Spec is what the user asked for. It moves with the workload and does not change when it moves.
type Spec struct {
	Name    string   `json:"name"`
	Kind    Kind     `json:"kind"`
	Command []string `json:"command,omitempty"` // kind run: argv, looked up in PATH inside the root
	Env     []string `json:"env,omitempty"`     // kind run: KEY=value; PATH and HOME are set if absent, nothing else is inherited
	Dir     string   `json:"dir,omitempty"`     // kind run: working directory inside the root, default "/"
	User    string   `json:"user,omitempty"`    // kind run: uid[:gid], numeric, default 0:0
	Rootfs  string   `json:"rootfs,omitempty"`  // kind run: directory on every host that becomes "/"; default the host's own "/"

	// Address moves with the tree: "10.0.0.50/24" or an IPv6 prefix. Kind run: the tree has a network namespace of its own,
	// with this address on eth0. Kind adopt: an address that the host holds for the tree. "" means the host's network as it is.
	Address string `json:"address,omitempty"`
	Gateway string `json:"gateway,omitempty"` // kind run with an address: default route, may be ""
	Link    string `json:"link,omitempty"`    // the host's interface the address lives on; default: the one with an address in the same subnet

	Volumes []Volume `json:"volumes,omitempty"` // kind run

	// Find names an adopted tree: exactly one of its fields is set.
	Find Find `json:"find,omitzero"`
}

// Volume is a host directory that the tree sees at Inside.
type Volume struct {
	Host   string `json:"host"`             // absolute, the same on every host
	Inside string `json:"inside"`           // absolute, below the root
	Shared bool   `json:"shared,omitempty"` // true: every host sees the same files (NFS, …), nothing is carried; false: carried with the tree
}

// Find says which running tree to adopt.
type Find struct {
	Pid    int    `json:"pid,omitempty"`    // the root's pid on the host
	Cgroup string `json:"cgroup,omitempty"` // cgroup v2 path below the mount point; its topmost process is the root
	Unit   string `json:"unit,omitempty"`   // systemd unit
}

// State is a workload's state on its host.
type State string

const (
	Starting  State = "starting"
	Running   State = "running"
	Stopped   State = "stopped"   // every process stopped as by SIGSTOP, can be continued
	Migrating State = "migrating" // running, and being copied
	HeldState State = "held"      // frozen by a migration or by probation
	Fenced    State = "fenced"    // a source left stopped after COMMIT: the tree lives elsewhere, continuing it needs --force
	Exited    State = "exited"
	Lost      State = "lost" // its host does not answer, or was rebooted
)

// Status is what a host says of one workload.
type Status struct {
	Name      string          `json:"name"`
	Spec      Spec            `json:"spec"`
	Epoch     migration.Epoch `json:"epoch"`
	State     State           `json:"state"`
	Pid       int             `json:"pid,omitempty"`       // the root's pid as the host sees it
	Processes int             `json:"processes,omitempty"` // of the tree, zombies included
	Threads   int             `json:"threads,omitempty"`
	RSS       int64           `json:"rss,omitempty"` // bytes, summed over the tree's processes (shared pages counted once each)
	Cgroup    string          `json:"cgroup,omitempty"`
	Migration migration.ID    `json:"migration,omitempty"` // the migration it is part of
	ExitCode  *int            `json:"exit_code,omitempty"` // state exited: 0..255
	Signal    int             `json:"signal,omitempty"`    // state exited: the signal that ended it, 0 if none
	Started   time.Time       `json:"started,omitzero"`
	Exited    time.Time       `json:"exited,omitzero"`
	// Trouble is what is wrong with the tree and is tried again by its host, for people; "" if nothing is.
	Trouble string `json:"trouble,omitempty"`
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ValidName says whether s can name a workload or a host: a DNS label, so that it can stand in paths, cgroups and principals.
func ValidName(what, s string) error {
	if !nameForm.MatchString(s) {
		return errs.New(errs.Invalid, "%q cannot name a %s: use 1 to 63 of a-z, 0-9 and -, not beginning or ending with -", s, what)
	}
	return nil
}

// Validate says what is wrong with a spec, one problem at a time; it looks at no file and no process.
func (s Spec) Validate() error {
	if err := ValidName("workload", s.Name); err != nil {
		return err
	}
	switch s.Kind {
	case Run:
		if len(s.Command) == 0 || s.Command[0] == "" {
			return errs.New(errs.Invalid, "workload %s has no command", s.Name).WithNext("put it after --, as in `drover run %s -- redis-server`", s.Name)
		}
		if s.Find != (Find{}) {
			return errs.New(errs.Invalid, "workload %s is to be started: it cannot also be looked for", s.Name)
		}
	case Adopt:
		if err := s.Find.validate(s.Name); err != nil {
			return err
		}
		if len(s.Command) > 0 || s.Rootfs != "" || len(s.Volumes) > 0 {
			return errs.New(errs.Invalid, "workload %s is adopted: it has its command, root and volumes already", s.Name)
		}
	default:
		return errs.New(errs.Invalid, "workload %s has unknown kind %q", s.Name, s.Kind)
	}
	for what, p := range map[string]string{"--rootfs": s.Rootfs, "--dir": s.Dir} {
		if p != "" && (!path.IsAbs(p) || path.Clean(p) != p) {
			return errs.New(errs.Invalid, "workload %s: %s %q is not a clean absolute path", s.Name, what, p)
		}
	}
	if s.Address != "" {
		if _, err := netip.ParsePrefix(s.Address); err != nil {
			return errs.New(errs.Invalid, "workload %s: address %q is not of the form 10.0.0.50/24", s.Name, s.Address)
		}
	}
	if s.Gateway != "" {
		if _, err := netip.ParseAddr(s.Gateway); err != nil {
			return errs.New(errs.Invalid, "workload %s: gateway %q is not an IP address", s.Name, s.Gateway)
		}
	}
	for _, v := range s.Volumes {
		for _, p := range []string{v.Host, v.Inside} {
			if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
				return errs.New(errs.Invalid, "workload %s: volume path %q is not a clean absolute path below /", s.Name, p)
			}
		}
	}
	for _, e := range s.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			return errs.New(errs.Invalid, "workload %s: environment %q is not of the form KEY=value", s.Name, e)
		}
	}
	return nil
}

func (f Find) validate(name string) error {
	n := 0
	for _, set := range []bool{f.Pid != 0, f.Cgroup != "", f.Unit != ""} {
		if set {
			n++
		}
	}
	switch {
	case n != 1:
		return errs.New(errs.Invalid, "workload %s: say which tree to adopt by exactly one of --pid, --cgroup and --unit", name)
	case f.Pid < 0:
		return errs.New(errs.Invalid, "workload %s: pid %d is negative", name, f.Pid)
	}
	return nil
}

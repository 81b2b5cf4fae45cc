package keeper

import (
	"strconv"
	"strings"

	"drover/internal/errs"
	"drover/internal/workload"
)

// OutputInside is where a tree sees its output directory. Its standard streams are opened there, inside its own mount
// namespace: CRIU cannot dump a descriptor whose mount the tree does not have.
const OutputInside = "/dev/drover"

// Launch says how to start a tree.
type Launch struct {
	Spec    workload.Spec `json:"spec"`
	Output  string        `json:"output"` // host directory with the files stdout and stderr
	Volumes []Mount       `json:"volumes,omitempty"`
}

// Mount is a host directory and where the tree sees it.
type Mount struct {
	Host   string `json:"host"`
	Inside string `json:"inside"`
}

// plan is what the setup stage gets from the keeper: a Launch with everything resolved.
type plan struct {
	Launch
	Root  string `json:"root"` // mount point of the root in the keeper's mount namespace
	NetNS bool   `json:"net_ns"`
}

// IDs reads Spec.User, "uid[:gid]"; without a gid it is the uid's number.
func IDs(user string) (uid, gid int, err error) {
	if user == "" {
		return 0, 0, nil
	}
	u, g, both := strings.Cut(user, ":")
	if !both {
		g = u
	}
	uid, err1 := strconv.Atoi(u)
	gid, err2 := strconv.Atoi(g)
	if err1 != nil || err2 != nil || uid < 0 || gid < 0 {
		return 0, 0, errs.New(errs.Invalid, "user %q is not of the form uid[:gid]", user).WithNext("use numbers: names are looked up in no root file system")
	}
	return uid, gid, nil
}

// environ is the whole environment of the command: what was asked for, and PATH and HOME.
func environ(asked []string) []string {
	env := append([]string(nil), asked...)
	for _, d := range []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"} {
		if name, _, _ := strings.Cut(d, "="); valueOf(asked, name) == "" {
			env = append(env, d)
		}
	}
	return env
}

// valueOf is the last value of a variable, as the kernel's users take it.
func valueOf(env []string, key string) string {
	v := ""
	for _, e := range env {
		if k, val, ok := strings.Cut(e, "="); ok && k == key {
			v = val
		}
	}
	return v
}

package workload

import (
	"strings"
	"testing"

	"drover/internal/errs"
)

func TestValidateNamesTheProblem(t *testing.T) {
	run := Spec{Name: "redis-7", Kind: Run, Command: []string{"redis-server"}}
	with := func(f func(*Spec)) Spec { s := run; f(&s); return s }
	for _, c := range []struct {
		why  string
		spec Spec
		want string // "" is valid
	}{
		{"a plain run", run, ""},
		{"an adopted pid", Spec{Name: "db", Kind: Adopt, Find: Find{Pid: 42}}, ""},
		{"a name with a slash", with(func(s *Spec) { s.Name = "../x" }), "cannot name a workload"},
		{"a name with capitals", with(func(s *Spec) { s.Name = "Redis" }), "cannot name a workload"},
		{"no command", with(func(s *Spec) { s.Command = nil }), "no command"},
		{"no kind", with(func(s *Spec) { s.Kind = "" }), "unknown kind"},
		{"an address without a prefix", with(func(s *Spec) { s.Address = "10.0.0.5" }), "10.0.0.50/24"},
		{"a gateway that is no address", with(func(s *Spec) { s.Gateway = "router" }), "not an IP address"},
		{"a relative rootfs", with(func(s *Spec) { s.Rootfs = "srv/root" }), "clean absolute path"},
		{"a volume that climbs", with(func(s *Spec) { s.Volumes = []Volume{{Host: "/srv/../etc", Inside: "/d"}} }), "clean absolute path"},
		{"a volume over the root", with(func(s *Spec) { s.Volumes = []Volume{{Host: "/srv", Inside: "/"}} }), "clean absolute path"},
		{"an environment without =", with(func(s *Spec) { s.Env = []string{"A"} }), "KEY=value"},
		{"two ways to find a tree", Spec{Name: "db", Kind: Adopt, Find: Find{Pid: 1, Unit: "x"}}, "exactly one"},
		{"no way to find a tree", Spec{Name: "db", Kind: Adopt}, "exactly one"},
		{"an adopted tree with a command", Spec{Name: "db", Kind: Adopt, Find: Find{Pid: 9}, Command: []string{"x"}}, "already"},
	} {
		err := c.spec.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.why, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || errs.KindOf(err) != errs.Invalid):
			t.Errorf("%s: got %v, want it to say %q", c.why, err, c.want)
		}
	}
}

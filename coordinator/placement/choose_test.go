package placement

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"drover/coordinator/api"
	workerapi "drover/worker/api"
)

const gib = 1 << 30

// host is an up host with CRIU 4.2.1 and that much of 32 GiB free.
func host(name string, free int64, with ...func(*api.Host)) api.Host {
	h := api.Host{Name: name, State: "up"}
	h.Facts.MemoryFree, h.Facts.MemoryTotal, h.Facts.Engine.Version = free, 32*gib, "4.2.1"
	for _, f := range with {
		f(&h)
	}
	return h
}

func cordoned(h *api.Host) { h.Cordoned = true }
func silent(h *api.Host)   { h.State = "silent" }
func unheard(h *api.Host)  { h.Facts = workerapi.HostFacts{} }
func older(h *api.Host)    { h.Facts.Engine.Version = "4.1.1" }
func started(h *api.Host)  { h.Facts.Engine.Version = "" }
func without(h *api.Host)  { h.Facts.Engine.Version, h.Facts.Engine.Engine = "", "criu" }

func stores(memory, disk int64) func(*api.Host) {
	return func(h *api.Host) { h.Facts.Stores = &workerapi.Stores{Memory: memory, Spill: disk} }
}

func TestChoose(t *testing.T) {
	three := []api.Host{host("gamma", 20*gib), host("alpha", 10*gib), host("beta", 20*gib)}
	for _, c := range []struct {
		why   string
		hosts []api.Host
		q     Question
		want  string
		not   string // what the rejections say
	}{
		{"the most free memory wins", []api.Host{host("alpha", 4*gib), host("beta", 30*gib)}, Question{Memory: gib}, "beta", ""},
		{"a tie goes by name", three, Question{Memory: gib}, "beta", ""},
		{"among equals the one with fewer workloads", three, Question{Workloads: map[string]int{"beta": 2, "gamma": 1}}, "gamma", ""},
		{"moves under way count as workloads", three, Question{Incoming: map[string]int{"beta": 1}}, "gamma", ""},
		{"a little less memory but fewer workloads", []api.Host{host("alpha", 20*gib), host("beta", 18*gib)}, Question{Workloads: map[string]int{"alpha": 1}}, "beta", ""},
		{"much less memory is not made up for", three, Question{Workloads: map[string]int{"beta": 9, "gamma": 9}}, "beta", ""},
		{"not where it is", three, Question{Source: "beta"}, "gamma", "beta: it is there already"},
		{"not on a cordoned host", []api.Host{host("alpha", gib), host("beta", 9*gib, cordoned)}, Question{}, "alpha", "beta: it is cordoned"},
		{"not on a silent host", []api.Host{host("alpha", gib), host("beta", 9*gib, silent)}, Question{}, "alpha", "beta: it is silent"},
		{"not where the doctor said no", three, Question{Exclude: map[string]string{"beta": "libc differs", "gamma": "no avx2"}}, "alpha", "beta: libc differs; gamma: no avx2"},
		{"not with another CRIU", []api.Host{host("alpha", gib), host("beta", 9*gib, older)}, Question{Version: "4.2.1"}, "alpha", "beta: it has CRIU 4.1.1, the source has 4.2.1"},
		{"not without CRIU", []api.Host{host("alpha", gib), host("beta", 9*gib, without)}, Question{Version: "4.2.1"}, "alpha", "beta: it has CRIU none, the source has 4.2.1"},
		{"not before it has looked", []api.Host{host("alpha", gib), host("beta", 9*gib, started)}, Question{Version: "4.2.1"}, "alpha", "beta: it has not said yet which CRIU it has"},
		{"promised memory is not free", three, Question{Memory: 5 * gib, Reserved: map[string]int64{"beta": 16 * gib, "gamma": 14 * gib}}, "alpha", "beta: 20480 MiB free, but 16384 MiB of it is promised to moves under way; 5120 MiB needed"},
		{"nothing fits", three, Question{Memory: 30 * gib}, "", "alpha: 10240 MiB free, 30720 MiB needed; beta: 20480 MiB free, 30720 MiB needed; gamma: 20480 MiB free, 30720 MiB needed"},
		{"not with less than it needs for stores", []api.Host{host("alpha", 9*gib, stores(gib, 0)), host("beta", 9*gib, stores(2*gib, 0))}, Question{Memory: 4 * gib, Store: 2 * gib}, "beta", "alpha: 1024 MiB free for stores, 2048 MiB needed"},
		{"a disk makes up for memory", []api.Host{host("alpha", 3*gib, stores(gib, 4*gib)), host("beta", 3*gib)}, Question{Memory: 4 * gib, Store: 2 * gib}, "alpha", "beta: 3072 MiB free, 4096 MiB needed"},
		{"but not for the tree's own", []api.Host{host("alpha", gib, stores(gib, 9*gib))}, Question{Memory: 4 * gib, Store: 2 * gib}, "", "alpha: 1024 MiB free, 2048 MiB needed"},
		{"no hosts", nil, Question{}, "", "there are no hosts"},
	} {
		got, not := Choose(c.hosts, c.q)
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.why, got, c.want)
		}
		if c.not != "" && Explain(not) != c.not {
			t.Errorf("%s: rejections %q, want %q", c.why, Explain(not), c.not)
		}
	}
}

func TestAPersonMayNameACordonedHostButNoneThatCannotTakeIt(t *testing.T) {
	if r, ok := Fit(host("beta", gib, cordoned), Question{}); !ok {
		t.Errorf("refused: %v", r)
	}
	if r, ok := Fit(host("beta", gib, unheard), Question{}); ok || !r.Passing {
		t.Errorf("a host that a new leader has not heard of yet: ok %v, %+v", ok, r)
	}
	if r, ok := Fit(host("beta", gib, silent), Question{}); ok || !r.Passing {
		t.Errorf("a silent host: ok %v, %+v", ok, r)
	}
	if r, ok := Fit(host("beta", gib), Question{Memory: 2 * gib}); ok || r.Passing || !strings.Contains(r.Why, "2048 MiB needed") {
		t.Errorf("too little memory: ok %v, %+v", ok, r)
	}
}

func TestTheAnswerDoesNotDependOnTheOrderOfHostsAndAlwaysFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var hosts []api.Host
		q := Question{Memory: rapid.Int64Range(0, 4).Draw(t, "need") * gib, Workloads: map[string]int{}, Reserved: map[string]int64{}}
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			h := host(name, rapid.Int64Range(0, 8).Draw(t, "free")*gib)
			h.Cordoned = rapid.Bool().Draw(t, "cordoned")
			q.Workloads[name] = rapid.IntRange(0, 3).Draw(t, "workloads")
			q.Reserved[name] = rapid.Int64Range(0, 3).Draw(t, "reserved") * gib
			hosts = append(hosts, h)
		}
		got, not := Choose(hosts, q)
		shuffled := rapid.Permutation(hosts).Draw(t, "order")
		if again, _ := Choose(shuffled, q); again != got {
			t.Fatalf("%q in one order, %q in another", got, again)
		}
		i := slices.IndexFunc(hosts, func(h api.Host) bool { return h.Name == got })
		switch {
		case got == "" && len(not) != len(hosts):
			t.Fatalf("no host was chosen, but only %d of %d rejected", len(not), len(hosts))
		case got != "" && (hosts[i].Cordoned || hosts[i].Facts.MemoryFree-q.Reserved[got] < q.Memory):
			t.Fatalf("%s was chosen and cannot take it", got)
		}
	})
}

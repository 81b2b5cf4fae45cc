package api

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// echo is a Coordinator that answers every call with its arguments, as far as they fit the answer.
type echo struct{ Coordinator }

func (echo) Cluster(context.Context) (ClusterStatus, error)         { return ClusterStatus{Name: "test"}, nil }
func (echo) Hosts(context.Context) ([]Host, error)                  { return []Host{{Name: "alpha"}}, nil }
func (echo) Workloads(context.Context) ([]Workload, error)          { return []Workload{{Name: "redis"}}, nil }
func (echo) Plans(context.Context) ([]Plan, error)                  { return []Plan{{By: "ada"}}, nil }
func (echo) Operators(context.Context) ([]Operator, error)          { return []Operator{{Name: "ada"}}, nil }
func (echo) Workload(_ context.Context, n string) (Workload, error) { return Workload{Name: n}, nil }
func (echo) Migrations(_ context.Context, w string) ([]Migration, error) {
	return []Migration{{Workload: w}}, nil
}
func (echo) Migration(_ context.Context, id migration.ID) (Migration, error) {
	return Migration{ID: id}, nil
}
func (echo) Evidence(_ context.Context, id migration.ID) (Evidence, error) {
	return Evidence{Migration: id}, nil
}
func (echo) Situation(_ context.Context, id migration.ID) (Situation, error) {
	return Situation{Migration: id}, nil
}
func (echo) Resolve(_ context.Context, id migration.ID, r ResolveRequest) (Migration, error) {
	return Migration{ID: id, Target: r.Vouch, Reason: r.Reason, Next: string(r.Decision)}, nil
}
func (echo) WatchMigration(_ context.Context, id migration.ID, f func(Migration) error) error {
	return f(Migration{ID: id})
}
func (echo) Plan(_ context.Context, n string) (Plan, error)                  { return Plan{By: n}, nil }
func (echo) WatchPlan(_ context.Context, n string, f func(Plan) error) error { return f(Plan{By: n}) }
func (echo) Doctor(_ context.Context, w, to string) (DoctorReport, error) {
	return DoctorReport{Workload: w, Target: to}, nil
}
func (echo) Logs(_ context.Context, w string, o workerapi.LogOptions, out io.Writer) error {
	io.WriteString(out, w+" ")
	io.WriteString(out, o.Stream)
	return errs.New(errs.Failed, "the file is gone")
}
func (echo) Run(_ context.Context, r RunRequest) (Workload, error) {
	return Workload{Spec: r.Spec, Owner: r.Host}, nil
}
func (echo) Stop(_ context.Context, n string, sig int, grace time.Duration) (Workload, error) {
	return Workload{Name: n, Status: workload.Status{Signal: sig, Threads: int(grace)}}, nil
}
func (echo) Remove(_ context.Context, n string, o RemoveOptions) error {
	return errs.New(errs.Conflict, "remove %s %v", n, o).WithNext("stop it")
}
func (echo) Continue(_ context.Context, n string, o ContinueOptions) (Workload, error) {
	return Workload{Name: n, Owner: o.Host, Spec: workload.Spec{Dir: o.Off}, Copies: []Copy{{Host: map[bool]string{true: "forced"}[o.Force]}}}, nil
}
func (echo) Checkpoint(_ context.Context, n, dir string, f migration.FinalState) (workerapi.CheckpointReport, error) {
	return workerapi.CheckpointReport{Dir: dir, Digest: n, Final: f}, nil
}
func (echo) Restore(_ context.Context, n, host, dir string, f migration.FinalState) (Workload, error) {
	return Workload{Name: n, Owner: host, Spec: workload.Spec{Dir: dir, User: string(f)}}, nil
}
func (echo) Migrate(_ context.Context, r MigrateRequest) (Migration, error) {
	return Migration{Workload: r.Workload, Target: r.To, Options: r.Options}, nil
}
func (echo) AbortMigration(_ context.Context, id migration.ID, why string) (Migration, error) {
	return Migration{ID: id, Reason: why}, nil
}
func (echo) LimitMigration(_ context.Context, id migration.ID, n int64) (Migration, error) {
	return Migration{ID: id, Options: workerapi.MoveOptions{Bandwidth: n}}, nil
}
func (echo) LimitHost(_ context.Context, h string, n int64) (Host, error) {
	return Host{Name: h, Bandwidth: n}, nil
}
func (echo) DryRun(_ context.Context, r MigrateRequest, f func(DryRun) error) error {
	return f(DryRun{Workload: r.Workload, Target: r.To, Options: r.Options})
}
func (echo) Apply(_ context.Context, p PlanSpec) (Plan, error) { return Plan{Spec: p}, nil }
func (echo) SteerPlan(_ context.Context, n string, to PlanState) (Plan, error) {
	return Plan{By: n, State: to}, nil
}
func (echo) Cordon(_ context.Context, h string, on bool) (Host, error) {
	return Host{Name: h, Cordoned: on}, nil
}
func (echo) Drain(_ context.Context, r DrainRequest) (DrainReport, error) {
	return DrainReport{Host: r.Host}, nil
}
func (echo) NewToken(_ context.Context, role string, ttl time.Duration) (Token, error) {
	return Token{Role: role, Token: ttl.String()}, nil
}
func (echo) SetOperator(_ context.Context, op Operator) error {
	return errs.New(errs.Invalid, "operator %s", op.Name)
}
func (echo) RemoveHost(_ context.Context, n string) error {
	return errs.New(errs.Invalid, "host %s", n)
}
func (echo) RotateKeys(_ context.Context, step string, force bool) (ClusterStatus, error) {
	return ClusterStatus{Leader: step, Name: map[bool]string{true: "forced"}[force]}, nil
}
func (echo) RemoveCoordinator(_ context.Context, n string) (ClusterStatus, error) {
	return ClusterStatus{Leader: n}, nil
}
func (echo) Heartbeat(_ context.Context, hb Heartbeat) (HeartbeatReply, error) {
	return HeartbeatReply{Epochs: map[string]migration.Epoch{hb.Facts.Name: 3}}, nil
}
func (echo) Verdict(_ context.Context, id migration.ID) (VerdictReply, error) {
	return VerdictReply{Owner: string(id), Verdict: migration.Commit}, nil
}
func (echo) Renew(_ context.Context, key string) (RenewReply, error) {
	return RenewReply{UserCert: key}, nil
}
func (echo) Join(_ context.Context, r JoinRequest) (JoinReply, error) {
	return JoinReply{Cluster: r.Name}, nil
}

// overHTTP is a client of c through the handler.
func overHTTP(t *testing.T, c Coordinator, authorize func(context.Context, Need) error) Coordinator {
	t.Helper()
	s := httptest.NewServer(NewHandler(c, authorize))
	t.Cleanup(s.Close)
	return NewClient(&http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}}})
}

// calls is every method of the API with arguments that can be told apart.
func calls(c Coordinator, ctx context.Context) map[string]func() (any, error) {
	opts := workerapi.MoveOptions{MaxRounds: 3, Downtime: time.Second}
	one := func(v any, err error) (any, error) { return v, err }
	watched := func(f func(func(any)) error) (any, error) {
		var got any
		err := f(func(v any) { got = v })
		return got, err
	}
	return map[string]func() (any, error){
		"Cluster":    func() (any, error) { return one(c.Cluster(ctx)) },
		"Hosts":      func() (any, error) { return one(c.Hosts(ctx)) },
		"Workloads":  func() (any, error) { return one(c.Workloads(ctx)) },
		"Workload":   func() (any, error) { return one(c.Workload(ctx, "redis")) },
		"Migrations": func() (any, error) { return one(c.Migrations(ctx, "a&b")) },
		"Migration":  func() (any, error) { return one(c.Migration(ctx, "m-1")) },
		"WatchMigration": func() (any, error) {
			return watched(func(f func(any)) error {
				return c.WatchMigration(ctx, "m-1", func(m Migration) error { f(m); return nil })
			})
		},
		"Plans":     func() (any, error) { return one(c.Plans(ctx)) },
		"Plan":      func() (any, error) { return one(c.Plan(ctx, "p")) },
		"Situation": func() (any, error) { return one(c.Situation(ctx, "m-1")) },
		"Resolve": func() (any, error) {
			return one(c.Resolve(ctx, "m-1", ResolveRequest{Decision: TargetIsDead, Vouch: "beta", Reason: "burnt"}))
		},
		"Evidence": func() (any, error) { return one(c.Evidence(ctx, "m-1")) },
		"WatchPlan": func() (any, error) {
			return watched(func(f func(any)) error { return c.WatchPlan(ctx, "p", func(p Plan) error { f(p); return nil }) })
		},
		"Doctor": func() (any, error) { return one(c.Doctor(ctx, "redis", "beta")) },
		"Logs": func() (any, error) {
			var b bytes.Buffer
			err := c.Logs(ctx, "redis", workerapi.LogOptions{Stream: "stderr"}, &b)
			return b.String(), err
		},
		"Run": func() (any, error) {
			return one(c.Run(ctx, RunRequest{Spec: workload.Spec{Name: "redis"}, Host: "alpha"}))
		},
		"Stop":   func() (any, error) { return one(c.Stop(ctx, "redis", 9, 5)) },
		"Remove": func() (any, error) { return nil, c.Remove(ctx, "redis", RemoveOptions{Host: "beta", Force: true}) },
		"Continue": func() (any, error) {
			return one(c.Continue(ctx, "redis", ContinueOptions{Host: "beta", Force: true, Off: "alpha"}))
		},
		"Checkpoint": func() (any, error) { return one(c.Checkpoint(ctx, "redis", "/d", migration.Stopped)) },
		"Restore":    func() (any, error) { return one(c.Restore(ctx, "redis", "beta", "/d", migration.Stopped)) },
		"Migrate": func() (any, error) {
			return one(c.Migrate(ctx, MigrateRequest{Workload: "redis", To: "beta", Options: opts}))
		},
		"AbortMigration": func() (any, error) { return one(c.AbortMigration(ctx, "m-1", "why")) },
		"LimitMigration": func() (any, error) { return one(c.LimitMigration(ctx, "m-1", 7)) },
		"LimitHost":      func() (any, error) { return one(c.LimitHost(ctx, "beta", 7)) },
		"DryRun": func() (any, error) {
			return watched(func(f func(any)) error {
				return c.DryRun(ctx, MigrateRequest{Workload: "redis", To: "beta", Options: opts}, func(d DryRun) error { f(d); return nil })
			})
		},
		"Apply":             func() (any, error) { return one(c.Apply(ctx, PlanSpec{Name: "p", Parallel: 2})) },
		"SteerPlan":         func() (any, error) { return one(c.SteerPlan(ctx, "p", PlanPaused)) },
		"Cordon":            func() (any, error) { return one(c.Cordon(ctx, "beta", true)) },
		"Drain":             func() (any, error) { return one(c.Drain(ctx, DrainRequest{Host: "beta", Options: opts})) },
		"NewToken":          func() (any, error) { return one(c.NewToken(ctx, "worker", time.Hour)) },
		"Operators":         func() (any, error) { return one(c.Operators(ctx)) },
		"SetOperator":       func() (any, error) { return nil, c.SetOperator(ctx, Operator{Name: "eve"}) },
		"RemoveHost":        func() (any, error) { return nil, c.RemoveHost(ctx, "beta") },
		"RotateKeys":        func() (any, error) { return one(c.RotateKeys(ctx, KeySwitch, true)) },
		"RemoveCoordinator": func() (any, error) { return one(c.RemoveCoordinator(ctx, "c2")) },
		"Heartbeat":         func() (any, error) { return one(c.Heartbeat(ctx, Heartbeat{Facts: workerapi.HostFacts{Name: "beta"}})) },
		"Verdict":           func() (any, error) { return one(c.Verdict(ctx, "m-1")) },
		"Renew":             func() (any, error) { return one(c.Renew(ctx, "ssh-ed25519 AAAA")) },
		"Join":              func() (any, error) { return one(c.Join(ctx, JoinRequest{Name: "beta"})) },
	}
}

func TestEveryCallMeansTheSameOverTheWire(t *testing.T) {
	everyone := func(context.Context, Need) error { return nil }
	far := calls(overHTTP(t, echo{}, everyone), t.Context())
	near := calls(echo{}, t.Context())
	for i := range reflect.TypeFor[Coordinator]().NumMethod() {
		name := reflect.TypeFor[Coordinator]().Method(i).Name
		if near[name] == nil {
			t.Errorf("%s is not tried", name)
			continue
		}
		want, wantErr := near[name]()
		got, err := far[name]()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
		if (err == nil) != (wantErr == nil) || err != nil && (err.Error() != wantErr.Error() || errs.KindOf(err) != errs.KindOf(wantErr) || errs.NextOf(err) != errs.NextOf(wantErr)) {
			t.Errorf("%s: got the error %v, want %v", name, err, wantErr)
		}
	}
}

func TestNoCallGoesPastAuthorization(t *testing.T) {
	nobody := func(_ context.Context, need Need) error { return errs.New(errs.Forbidden, "%s only", need) }
	for name, call := range calls(overHTTP(t, echo{}, nobody), t.Context()) {
		if _, err := call(); errs.KindOf(err) != errs.Forbidden || err == nil {
			t.Errorf("%s went through: %v", name, err)
		}
	}
}

func TestOnlyReadingIsForEveryMember(t *testing.T) {
	reads := "Cluster Hosts Workloads Workload Migrations Migration Evidence Situation WatchMigration Plans Plan WatchPlan Doctor Logs"
	members := func(_ context.Context, need Need) error {
		if need != NeedMember {
			return errs.New(errs.Forbidden, "no")
		}
		return nil
	}
	for name, call := range calls(overHTTP(t, echo{}, members), t.Context()) {
		_, err := call()
		if allowed := errs.KindOf(err) != errs.Forbidden || err == nil; allowed != (strings.Contains(" "+reads+" ", " "+name+" ")) {
			t.Errorf("a member may call %s: %v", name, allowed)
		}
	}
}

func TestNamesThatClimbAndUnknownPathsAreRefused(t *testing.T) {
	c := overHTTP(t, echo{}, func(context.Context, Need) error { return nil })
	for _, name := range []string{"..", "../x", "A", "a/b", "a b"} {
		if _, err := c.Workload(t.Context(), name); err == nil {
			t.Errorf("the workload %q was looked for", name)
		}
		if _, err := c.Migration(t.Context(), migration.ID(name)); err == nil {
			t.Errorf("the migration %q was looked for", name)
		}
	}
}

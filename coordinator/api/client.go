package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

	"drover/internal/migration"
	"drover/internal/rpc"
	workerapi "drover/worker/api"
)

// NewClient is a Coordinator reached through c, whose transport knows where it is (link.Pool.HTTP). Errors are those the
// coordinator answered with; one that cannot be reached, or is lost in mid-call, is errs.Unavailable: the call may have had
// its effect.
func NewClient(c *http.Client) Coordinator {
	straight := *c
	straight.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client{&straight}
}

type client struct{ http *http.Client }

func get[Out any](ctx context.Context, c client, path string) (Out, error) {
	return send[Out](ctx, c, "GET", path, nil)
}

func post[Out any](ctx context.Context, c client, path string, in any) (Out, error) {
	return send[Out](ctx, c, "POST", path, in)
}

func send[Out any](ctx context.Context, c client, method, path string, in any) (Out, error) {
	var out Out
	err := rpc.Call(ctx, c.http, method, path, in, &out)
	return out, err
}

func at(kind, name, verb string) string {
	path := "/v1/" + kind + "/" + url.PathEscape(name)
	if verb != "" {
		path += "/" + verb
	}
	return path
}

func (c client) Cluster(ctx context.Context) (ClusterStatus, error) {
	return get[ClusterStatus](ctx, c, "/v1/cluster")
}

func (c client) Hosts(ctx context.Context) ([]Host, error) { return get[[]Host](ctx, c, "/v1/hosts") }

func (c client) Workloads(ctx context.Context) ([]Workload, error) {
	return get[[]Workload](ctx, c, "/v1/workloads")
}

func (c client) Workload(ctx context.Context, name string) (Workload, error) {
	return get[Workload](ctx, c, at("workloads", name, ""))
}

func (c client) Migrations(ctx context.Context, workload string) ([]Migration, error) {
	return get[[]Migration](ctx, c, "/v1/migrations?workload="+url.QueryEscape(workload))
}

func (c client) Migration(ctx context.Context, id migration.ID) (Migration, error) {
	return get[Migration](ctx, c, at("migrations", string(id), ""))
}

func (c client) Evidence(ctx context.Context, id migration.ID) (Evidence, error) {
	return get[Evidence](ctx, c, at("migrations", string(id), "evidence"))
}

func (c client) Situation(ctx context.Context, id migration.ID) (Situation, error) {
	return get[Situation](ctx, c, at("migrations", string(id), "situation"))
}

func (c client) Resolve(ctx context.Context, id migration.ID, req ResolveRequest) (Migration, error) {
	return post[Migration](ctx, c, at("migrations", string(id), "resolve"), req)
}

func (c client) WatchMigration(ctx context.Context, id migration.ID, f func(Migration) error) error {
	return rpc.Stream(ctx, c.http, "GET", at("migrations", string(id), "events"), nil, f)
}

func (c client) Plans(ctx context.Context) ([]Plan, error) { return get[[]Plan](ctx, c, "/v1/plans") }

func (c client) Plan(ctx context.Context, name string) (Plan, error) {
	return get[Plan](ctx, c, at("plans", name, ""))
}

func (c client) WatchPlan(ctx context.Context, name string, f func(Plan) error) error {
	return rpc.Stream(ctx, c.http, "GET", at("plans", name, "events"), nil, f)
}

func (c client) Doctor(ctx context.Context, workload, target string) (DoctorReport, error) {
	return post[DoctorReport](ctx, c, at("workloads", workload, "doctor"), targetCall{target})
}

func (c client) Logs(ctx context.Context, workload string, opts workerapi.LogOptions, w io.Writer) error {
	return rpc.Stream(ctx, c.http, "POST", at("workloads", workload, "logs"), opts, func(piece []byte) error {
		_, err := w.Write(piece)
		return err
	})
}

func (c client) Run(ctx context.Context, req RunRequest) (Workload, error) {
	return post[Workload](ctx, c, "/v1/workloads", req)
}

func (c client) Stop(ctx context.Context, name string, signal int, grace time.Duration) (Workload, error) {
	return post[Workload](ctx, c, at("workloads", name, "stop"), stopCall{signal, grace})
}

func (c client) Remove(ctx context.Context, name string, o RemoveOptions) error {
	_, err := post[rpc.None](ctx, c, at("workloads", name, "remove"), o)
	return err
}

func (c client) Continue(ctx context.Context, name string, o ContinueOptions) (Workload, error) {
	return post[Workload](ctx, c, at("workloads", name, "continue"), o)
}

func (c client) Checkpoint(ctx context.Context, name, dir string, final migration.FinalState) (workerapi.CheckpointReport, error) {
	return post[workerapi.CheckpointReport](ctx, c, at("workloads", name, "checkpoint"), imageCall{Dir: dir, Final: final})
}

func (c client) Restore(ctx context.Context, name, host, dir string, final migration.FinalState) (Workload, error) {
	return post[Workload](ctx, c, at("workloads", name, "restore"), imageCall{Host: host, Dir: dir, Final: final})
}

func (c client) Migrate(ctx context.Context, req MigrateRequest) (Migration, error) {
	return post[Migration](ctx, c, "/v1/migrations", req)
}

func (c client) AbortMigration(ctx context.Context, id migration.ID, reason string) (Migration, error) {
	return post[Migration](ctx, c, at("migrations", string(id), "abort"), reasonCall{reason})
}

func (c client) LimitMigration(ctx context.Context, id migration.ID, bytesPerSecond int64) (Migration, error) {
	return post[Migration](ctx, c, at("migrations", string(id), "limit"), limitCall{bytesPerSecond})
}

func (c client) LimitHost(ctx context.Context, host string, bytesPerSecond int64) (Host, error) {
	return post[Host](ctx, c, at("hosts", host, "limit"), limitCall{bytesPerSecond})
}

func (c client) DryRun(ctx context.Context, req MigrateRequest, f func(DryRun) error) error {
	return rpc.Stream(ctx, c.http, "POST", "/v1/dry-runs", req, f)
}

func (c client) Apply(ctx context.Context, p PlanSpec) (Plan, error) {
	return post[Plan](ctx, c, "/v1/plans", p)
}

func (c client) SteerPlan(ctx context.Context, name string, to PlanState) (Plan, error) {
	return post[Plan](ctx, c, at("plans", name, "steer"), steerCall{to})
}

func (c client) Cordon(ctx context.Context, host string, on bool) (Host, error) {
	return post[Host](ctx, c, at("hosts", host, "cordon"), cordonCall{on})
}

func (c client) Drain(ctx context.Context, req DrainRequest) (DrainReport, error) {
	return post[DrainReport](ctx, c, "/v1/drains", req)
}

func (c client) NewToken(ctx context.Context, role string, ttl time.Duration) (Token, error) {
	return post[Token](ctx, c, "/v1/tokens", tokenCall{role, ttl})
}

func (c client) Operators(ctx context.Context) ([]Operator, error) {
	return get[[]Operator](ctx, c, "/v1/operators")
}

func (c client) SetOperator(ctx context.Context, op Operator) error {
	_, err := post[rpc.None](ctx, c, "/v1/operators", op)
	return err
}

func (c client) RemoveHost(ctx context.Context, name string) error {
	_, err := send[rpc.None](ctx, c, "DELETE", at("hosts", name, ""), nil)
	return err
}

func (c client) RotateKeys(ctx context.Context, step string, force bool) (ClusterStatus, error) {
	return post[ClusterStatus](ctx, c, "/v1/cluster/keys", stepCall{step, force})
}

func (c client) RemoveCoordinator(ctx context.Context, name string) (ClusterStatus, error) {
	return send[ClusterStatus](ctx, c, "DELETE", at("coordinators", name, ""), nil)
}

func (c client) Heartbeat(ctx context.Context, hb Heartbeat) (HeartbeatReply, error) {
	return post[HeartbeatReply](ctx, c, "/v1/heartbeat", hb)
}

func (c client) Verdict(ctx context.Context, id migration.ID) (VerdictReply, error) {
	return get[VerdictReply](ctx, c, at("migrations", string(id), "verdict"))
}

func (c client) Renew(ctx context.Context, key string) (RenewReply, error) {
	return post[RenewReply](ctx, c, "/v1/renew", keyCall{key})
}

func (c client) Join(ctx context.Context, req JoinRequest) (JoinReply, error) {
	return post[JoinReply](ctx, c, "/v1/join", req)
}

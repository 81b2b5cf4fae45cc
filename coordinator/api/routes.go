package api

import (
	"context"
	"net/http"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	"drover/internal/rpc"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// Need is what a caller must be to use a route.
type Need string

const (
	NeedMember   Need = "member"   // anyone with a certificate or a listed key, but holders of a token
	NeedOperator Need = "operator" // an operator of that level, or an admin
	NeedAdmin    Need = "admin"
	NeedWorker   Need = "worker"
	NeedRenew    Need = "renew" // a worker, or one whose certificates have expired
	NeedJoin     Need = "join"  // the holder of a token
)

// Admits says whether p may use routes with that need.
func (n Need) Admits(p pki.Principal) bool {
	switch n {
	case NeedMember:
		return p.Role == pki.RoleWorker || p.Role == pki.RoleCoordinator || p.AtLeast(pki.LevelViewer)
	case NeedOperator:
		return p.AtLeast(pki.LevelOperator)
	case NeedAdmin:
		return p.AtLeast(pki.LevelAdmin)
	case NeedWorker:
		return p.Role == pki.RoleWorker
	case NeedRenew:
		return p.Role == pki.RoleWorker || p.Role == pki.RoleLapsed
	case NeedJoin:
		return p.Role == pki.RoleJoin
	}
	return false
}

// Route is one call of the API.
type Route struct {
	Pattern string // as for http.ServeMux
	Need    Need
	serve   func(mux *http.ServeMux, pattern string, c Coordinator)
}

// Bodies of the calls whose arguments are more than a path.
type (
	stopCall struct {
		Signal int           `json:"signal"`
		Grace  time.Duration `json:"grace_ns"`
	}
	imageCall struct {
		Host  string               `json:"host,omitempty"`
		Dir   string               `json:"dir"`
		Final migration.FinalState `json:"final_state"`
	}
	targetCall struct {
		Target string `json:"target"`
	}
	reasonCall struct {
		Reason string `json:"reason"`
	}
	steerCall struct {
		To PlanState `json:"to"`
	}
	cordonCall struct {
		On bool `json:"on"`
	}
	limitCall struct {
		BytesPerSecond int64 `json:"bytes_per_second"`
	}
	keyCall struct {
		Key string `json:"key"`
	}
	stepCall struct {
		Step  string `json:"step"`
		Force bool   `json:"force,omitempty"`
	}
	tokenCall struct {
		Role string        `json:"role"`
		TTL  time.Duration `json:"ttl_ns"`
	}
)

// Routes is the whole API: every call, and who may make it. A path that is not here does not exist.
var Routes = []Route{
	plain("GET /v1/cluster", NeedMember, func(ctx context.Context, c Coordinator) (ClusterStatus, error) { return c.Cluster(ctx) }),
	plain("GET /v1/hosts", NeedMember, func(ctx context.Context, c Coordinator) ([]Host, error) { return c.Hosts(ctx) }),
	plain("GET /v1/workloads", NeedMember, func(ctx context.Context, c Coordinator) ([]Workload, error) { return c.Workloads(ctx) }),
	named("GET /v1/workloads/{name}", NeedMember, func(ctx context.Context, c Coordinator, name string, _ rpc.None) (Workload, error) {
		return c.Workload(ctx, name)
	}),
	route("GET /v1/migrations", NeedMember, func(r *http.Request, c Coordinator, _ rpc.None) ([]Migration, error) {
		return c.Migrations(r.Context(), r.URL.Query().Get("workload"))
	}),
	moved("GET /v1/migrations/{id}", NeedMember, func(ctx context.Context, c Coordinator, id migration.ID, _ rpc.None) (Migration, error) {
		return c.Migration(ctx, id)
	}),
	moved("GET /v1/migrations/{id}/evidence", NeedMember, func(ctx context.Context, c Coordinator, id migration.ID, _ rpc.None) (Evidence, error) {
		return c.Evidence(ctx, id)
	}),
	moved("GET /v1/migrations/{id}/situation", NeedMember, func(ctx context.Context, c Coordinator, id migration.ID, _ rpc.None) (Situation, error) {
		return c.Situation(ctx, id)
	}),
	stream("GET /v1/migrations/{id}/events", NeedMember, func(r *http.Request, c Coordinator, _ rpc.None, send func(Migration) error) error {
		id := migration.ID(r.PathValue("id"))
		if err := id.Valid(); err != nil {
			return err
		}
		return c.WatchMigration(r.Context(), id, send)
	}),
	plain("GET /v1/plans", NeedMember, func(ctx context.Context, c Coordinator) ([]Plan, error) { return c.Plans(ctx) }),
	named("GET /v1/plans/{name}", NeedMember, func(ctx context.Context, c Coordinator, name string, _ rpc.None) (Plan, error) {
		return c.Plan(ctx, name)
	}),
	stream("GET /v1/plans/{name}/events", NeedMember, func(r *http.Request, c Coordinator, _ rpc.None, send func(Plan) error) error {
		return c.WatchPlan(r.Context(), r.PathValue("name"), send)
	}),
	named("POST /v1/workloads/{name}/doctor", NeedMember, func(ctx context.Context, c Coordinator, name string, in targetCall) (DoctorReport, error) {
		return c.Doctor(ctx, name, in.Target)
	}),
	{"POST /v1/workloads/{name}/logs", NeedMember, serveLogs},

	route("POST /v1/workloads", NeedOperator, func(r *http.Request, c Coordinator, in RunRequest) (Workload, error) { return c.Run(r.Context(), in) }),
	named("POST /v1/workloads/{name}/stop", NeedOperator, func(ctx context.Context, c Coordinator, name string, in stopCall) (Workload, error) {
		return c.Stop(ctx, name, in.Signal, in.Grace)
	}),
	named("POST /v1/workloads/{name}/remove", NeedOperator, func(ctx context.Context, c Coordinator, name string, in RemoveOptions) (rpc.None, error) {
		return rpc.None{}, c.Remove(ctx, name, in)
	}),
	named("POST /v1/workloads/{name}/continue", NeedOperator, func(ctx context.Context, c Coordinator, name string, in ContinueOptions) (Workload, error) {
		return c.Continue(ctx, name, in)
	}),
	named("POST /v1/workloads/{name}/checkpoint", NeedOperator, func(ctx context.Context, c Coordinator, name string, in imageCall) (workerapi.CheckpointReport, error) {
		return c.Checkpoint(ctx, name, in.Dir, in.Final)
	}),
	named("POST /v1/workloads/{name}/restore", NeedOperator, func(ctx context.Context, c Coordinator, name string, in imageCall) (Workload, error) {
		return c.Restore(ctx, name, in.Host, in.Dir, in.Final)
	}),
	route("POST /v1/migrations", NeedOperator, func(r *http.Request, c Coordinator, in MigrateRequest) (Migration, error) {
		return c.Migrate(r.Context(), in)
	}),
	moved("POST /v1/migrations/{id}/abort", NeedOperator, func(ctx context.Context, c Coordinator, id migration.ID, in reasonCall) (Migration, error) {
		return c.AbortMigration(ctx, id, in.Reason)
	}),
	moved("POST /v1/migrations/{id}/limit", NeedOperator, func(ctx context.Context, c Coordinator, id migration.ID, in limitCall) (Migration, error) {
		return c.LimitMigration(ctx, id, in.BytesPerSecond)
	}),
	named("POST /v1/hosts/{name}/limit", NeedOperator, func(ctx context.Context, c Coordinator, name string, in limitCall) (Host, error) {
		return c.LimitHost(ctx, name, in.BytesPerSecond)
	}),
	stream("POST /v1/dry-runs", NeedOperator, func(r *http.Request, c Coordinator, in MigrateRequest, send func(DryRun) error) error {
		return c.DryRun(r.Context(), in, send)
	}),
	route("POST /v1/plans", NeedOperator, func(r *http.Request, c Coordinator, in PlanSpec) (Plan, error) { return c.Apply(r.Context(), in) }),
	named("POST /v1/plans/{name}/steer", NeedOperator, func(ctx context.Context, c Coordinator, name string, in steerCall) (Plan, error) {
		return c.SteerPlan(ctx, name, in.To)
	}),
	named("POST /v1/hosts/{name}/cordon", NeedOperator, func(ctx context.Context, c Coordinator, name string, in cordonCall) (Host, error) {
		return c.Cordon(ctx, name, in.On)
	}),
	route("POST /v1/drains", NeedOperator, func(r *http.Request, c Coordinator, in DrainRequest) (DrainReport, error) {
		return c.Drain(r.Context(), in)
	}),

	route("POST /v1/tokens", NeedAdmin, func(r *http.Request, c Coordinator, in tokenCall) (Token, error) {
		return c.NewToken(r.Context(), in.Role, in.TTL)
	}),
	plain("GET /v1/operators", NeedAdmin, func(ctx context.Context, c Coordinator) ([]Operator, error) { return c.Operators(ctx) }),
	route("POST /v1/operators", NeedAdmin, func(r *http.Request, c Coordinator, in Operator) (rpc.None, error) {
		return rpc.None{}, c.SetOperator(r.Context(), in)
	}),
	named("DELETE /v1/hosts/{name}", NeedAdmin, func(ctx context.Context, c Coordinator, name string, _ rpc.None) (rpc.None, error) {
		return rpc.None{}, c.RemoveHost(ctx, name)
	}),
	moved("POST /v1/migrations/{id}/resolve", NeedAdmin, func(ctx context.Context, c Coordinator, id migration.ID, in ResolveRequest) (Migration, error) {
		return c.Resolve(ctx, id, in)
	}),
	route("POST /v1/cluster/keys", NeedAdmin, func(r *http.Request, c Coordinator, in stepCall) (ClusterStatus, error) {
		return c.RotateKeys(r.Context(), in.Step, in.Force)
	}),
	named("DELETE /v1/coordinators/{name}", NeedAdmin, func(ctx context.Context, c Coordinator, name string, _ rpc.None) (ClusterStatus, error) {
		return c.RemoveCoordinator(ctx, name)
	}),

	route("POST /v1/heartbeat", NeedWorker, func(r *http.Request, c Coordinator, in Heartbeat) (HeartbeatReply, error) {
		return c.Heartbeat(r.Context(), in)
	}),
	moved("GET /v1/migrations/{id}/verdict", NeedWorker, func(ctx context.Context, c Coordinator, id migration.ID, _ rpc.None) (VerdictReply, error) {
		return c.Verdict(ctx, id)
	}),
	route("POST /v1/renew", NeedRenew, func(r *http.Request, c Coordinator, in keyCall) (RenewReply, error) {
		return c.Renew(r.Context(), in.Key)
	}),

	route("POST /v1/join", NeedJoin, func(r *http.Request, c Coordinator, in JoinRequest) (JoinReply, error) {
		return c.Join(r.Context(), in)
	}),
}

func route[In, Out any](pattern string, need Need, f func(r *http.Request, c Coordinator, in In) (Out, error)) Route {
	return Route{pattern, need, func(mux *http.ServeMux, pattern string, c Coordinator) {
		rpc.Handle(mux, pattern, func(r *http.Request, in In) (Out, error) { return f(r, c, in) })
	}}
}

func plain[Out any](pattern string, need Need, f func(ctx context.Context, c Coordinator) (Out, error)) Route {
	return route(pattern, need, func(r *http.Request, c Coordinator, _ rpc.None) (Out, error) { return f(r.Context(), c) })
}

// named is a route about something that has a name; the name is checked before it is used.
func named[In, Out any](pattern string, need Need, f func(ctx context.Context, c Coordinator, name string, in In) (Out, error)) Route {
	return route(pattern, need, func(r *http.Request, c Coordinator, in In) (Out, error) {
		name := r.PathValue("name")
		if err := workload.ValidName("workload, host or plan", name); err != nil {
			return *new(Out), err
		}
		return f(r.Context(), c, name, in)
	})
}

// moved is a route about a migration.
func moved[In, Out any](pattern string, need Need, f func(ctx context.Context, c Coordinator, id migration.ID, in In) (Out, error)) Route {
	return route(pattern, need, func(r *http.Request, c Coordinator, in In) (Out, error) {
		id := migration.ID(r.PathValue("id"))
		if err := id.Valid(); err != nil {
			return *new(Out), err
		}
		return f(r.Context(), c, id, in)
	})
}

func stream[In, T any](pattern string, need Need, f func(r *http.Request, c Coordinator, in In, send func(T) error) error) Route {
	return Route{pattern, need, func(mux *http.ServeMux, pattern string, c Coordinator) {
		rpc.HandleStream(mux, pattern, func(r *http.Request, in In, send func(T) error) error { return f(r, c, in, send) })
	}}
}

// serveLogs sends the output in pieces, each a value of a stream: a copy that breaks off does so with its error.
func serveLogs(mux *http.ServeMux, pattern string, c Coordinator) {
	rpc.HandleStream(mux, pattern, func(r *http.Request, opts workerapi.LogOptions, send func([]byte) error) error {
		name := r.PathValue("name")
		if err := workload.ValidName("workload", name); err != nil {
			return err
		}
		return c.Logs(r.Context(), name, opts, pieces(send))
	})
}

// pieces is an io.Writer whose writes go out as values of a stream.
type pieces func([]byte) error

func (p pieces) Write(b []byte) (int, error) {
	if err := p(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// NewHandler answers what NewClient asks, by c. authorize says whether the caller that ctx carries may use a route, before
// anything of the request is read.
func NewHandler(c Coordinator, authorize func(ctx context.Context, need Need) error) http.Handler {
	mux := http.NewServeMux()
	for _, r := range Routes {
		inner := http.NewServeMux()
		r.serve(inner, r.Pattern, c)
		mux.HandleFunc(r.Pattern, func(w http.ResponseWriter, req *http.Request) {
			if err := authorize(req.Context(), r.Need); err != nil {
				rpc.WriteError(w, err)
				return
			}
			inner.ServeHTTP(w, req)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		rpc.WriteError(w, errs.New(errs.NotFound, "this coordinator has no %s %s", r.Method, r.URL.Path).WithNext("use the same version of drover on both sides"))
	})
	return mux
}

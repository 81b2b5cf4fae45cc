package api

import (
	"net/http"
	"strconv"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/rpc"
	"drover/internal/workload"
)

// NewHandler answers what NewClient asks, by w. It asks nobody who the caller is: the listener it is served on admits
// coordinators and no one else. Names and ids are checked before w sees them, so that they can stand in paths.
func NewHandler(w Worker) http.Handler {
	mux := http.NewServeMux()
	hostCalls(mux, w)
	workloadCalls(mux, w)
	sessionCalls(mux, w)
	return mux
}

func hostCalls(mux *http.ServeMux, w Worker) {
	rpc.Handle(mux, "GET /v1/host", func(r *http.Request, _ rpc.None) (HostFacts, error) {
		return w.Host(r.Context())
	})
	rpc.Handle(mux, "POST /v1/judge", func(r *http.Request, inv Inventory) ([]Finding, error) {
		return w.Judge(r.Context(), inv)
	})
	rpc.Handle(mux, "GET /v1/workloads", func(r *http.Request, _ rpc.None) ([]workload.Status, error) {
		return w.Workloads(r.Context())
	})
	rpc.Handle(mux, "POST /v1/workloads", func(r *http.Request, in startCall) (workload.Status, error) {
		if err := in.Spec.Validate(); err != nil {
			return workload.Status{}, err
		}
		return w.Start(r.Context(), in.Spec, in.Epoch)
	})
}

func workloadCalls(mux *http.ServeMux, w Worker) {
	named(mux, "POST /v1/workloads/{name}/stop", func(r *http.Request, name string, in stopCall) (workload.Status, error) {
		return w.Stop(r.Context(), name, in.Signal, in.Grace)
	})
	named(mux, "POST /v1/workloads/{name}/remove", func(r *http.Request, name string, in forceCall) (rpc.None, error) {
		return rpc.None{}, w.Remove(r.Context(), name, in.Force)
	})
	named(mux, "POST /v1/workloads/{name}/remove-copy", func(r *http.Request, name string, in epochCall) (rpc.None, error) {
		return rpc.None{}, w.RemoveCopy(r.Context(), name, in.Epoch)
	})
	named(mux, "POST /v1/workloads/{name}/continue", func(r *http.Request, name string, in epochCall) (workload.Status, error) {
		return w.Continue(r.Context(), name, in.Epoch)
	})
	named(mux, "POST /v1/workloads/{name}/checkpoint", func(r *http.Request, name string, in imageCall) (CheckpointReport, error) {
		return w.Checkpoint(r.Context(), name, in.Dir, in.Final)
	})
	named(mux, "POST /v1/workloads/{name}/restore", func(r *http.Request, name string, in imageCall) (workload.Status, error) {
		return w.Restore(r.Context(), name, in.Dir, in.Final, in.Epoch)
	})
	named(mux, "GET /v1/workloads/{name}/inventory", func(r *http.Request, name string, _ rpc.None) (Inventory, error) {
		return w.Inspect(r.Context(), name)
	})
	mux.HandleFunc("POST /v1/workloads/{name}/logs", func(rw http.ResponseWriter, r *http.Request) { serveLogs(rw, r, w) })
}

func sessionCalls(mux *http.ServeMux, w Worker) {
	rpc.Handle(mux, "POST /v1/sessions", func(r *http.Request, in OpenRequest) (SessionState, error) {
		if err := in.Migration.Valid(); err != nil {
			return SessionState{}, err
		}
		return w.Open(r.Context(), in)
	})
	session(mux, "GET /v1/sessions/{id}", func(r *http.Request, id migration.ID, _ rpc.None) (SessionState, error) {
		return w.Session(r.Context(), id)
	})
	session(mux, "POST /v1/sessions/{id}/cut-over", func(r *http.Request, id migration.ID, in verdictCall) (rpc.None, error) {
		return rpc.None{}, w.CutOver(r.Context(), id, in.Epoch)
	})
	session(mux, "POST /v1/sessions/{id}/verdict", func(r *http.Request, id migration.ID, in verdictCall) (SessionState, error) {
		return w.Decide(r.Context(), id, in.Verdict, in.Epoch)
	})
	session(mux, "POST /v1/sessions/{id}/confirm", func(r *http.Request, id migration.ID, in verdictCall) (SessionState, error) {
		return w.Confirm(r.Context(), id, in.Epoch)
	})
	session(mux, "POST /v1/sessions/{id}/bandwidth", func(r *http.Request, id migration.ID, in bandwidthCall) (rpc.None, error) {
		return rpc.None{}, w.SetBandwidth(r.Context(), id, in.BytesPerSecond)
	})
	rpc.HandleStream(mux, "GET /v1/sessions/{id}/events", func(r *http.Request, _ rpc.None, send func(Event) error) error {
		id := migration.ID(r.PathValue("id"))
		if err := id.Valid(); err != nil {
			return err
		}
		after, err := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
		if err != nil {
			return errs.New(errs.Invalid, "events of migration %s: after=%q is not a sequence number", id, r.URL.Query().Get("after"))
		}
		return w.Watch(r.Context(), id, after, send)
	})
}

func named[In, Out any](mux *http.ServeMux, pattern string, f func(r *http.Request, name string, in In) (Out, error)) {
	rpc.Handle(mux, pattern, func(r *http.Request, in In) (Out, error) {
		name := r.PathValue("name")
		if err := workload.ValidName("workload", name); err != nil {
			return *new(Out), err
		}
		return f(r, name, in)
	})
}

func session[In, Out any](mux *http.ServeMux, pattern string, f func(r *http.Request, id migration.ID, in In) (Out, error)) {
	rpc.Handle(mux, pattern, func(r *http.Request, in In) (Out, error) {
		id := migration.ID(r.PathValue("id"))
		if err := id.Valid(); err != nil {
			return *new(Out), err
		}
		return f(r, id, in)
	})
}

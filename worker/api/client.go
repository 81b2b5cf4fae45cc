package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"drover/internal/migration"
	"drover/internal/rpc"
	"drover/internal/workload"
)

// NewClient is a Worker reached through c, whose transport knows where it is (link.Pool.HTTP). Errors are those the worker
// answered with; one that cannot be reached, or is lost in mid-call, is errs.Unavailable: the call may have had its effect.
func NewClient(c *http.Client) Worker {
	straight := *c
	// A path that the server would rather have otherwise (an empty name) is the caller's mistake, not a place to go on to.
	straight.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client{&straight}
}

type client struct{ http *http.Client }

func (c client) Host(ctx context.Context) (out HostFacts, err error) {
	return out, c.call(ctx, "GET", "/v1/host", nil, &out)
}

func (c client) Workloads(ctx context.Context) (out []workload.Status, err error) {
	return out, c.call(ctx, "GET", "/v1/workloads", nil, &out)
}

func (c client) Start(ctx context.Context, spec workload.Spec, epoch migration.Epoch) (out workload.Status, err error) {
	return out, c.call(ctx, "POST", "/v1/workloads", startCall{spec, epoch}, &out)
}

func (c client) Stop(ctx context.Context, name string, signal int, grace time.Duration) (out workload.Status, err error) {
	return out, c.call(ctx, "POST", ofWorkload(name, "stop"), stopCall{signal, grace}, &out)
}

func (c client) Remove(ctx context.Context, name string, force bool) error {
	return c.call(ctx, "POST", ofWorkload(name, "remove"), forceCall{force}, nil)
}

func (c client) RemoveCopy(ctx context.Context, name string, epoch migration.Epoch) error {
	return c.call(ctx, "POST", ofWorkload(name, "remove-copy"), epochCall{epoch}, nil)
}

func (c client) Continue(ctx context.Context, name string, epoch migration.Epoch) (out workload.Status, err error) {
	return out, c.call(ctx, "POST", ofWorkload(name, "continue"), epochCall{epoch}, &out)
}

func (c client) Logs(ctx context.Context, name string, opts LogOptions, w io.Writer) error {
	return rpc.Copy(ctx, c.http, "POST", ofWorkload(name, "logs"), opts, w)
}

func (c client) Checkpoint(ctx context.Context, name, dir string, final migration.FinalState) (out CheckpointReport, err error) {
	return out, c.call(ctx, "POST", ofWorkload(name, "checkpoint"), imageCall{Dir: dir, Final: final}, &out)
}

func (c client) Restore(ctx context.Context, name, dir string, final migration.FinalState, epoch migration.Epoch) (out workload.Status, err error) {
	return out, c.call(ctx, "POST", ofWorkload(name, "restore"), imageCall{dir, final, epoch}, &out)
}

func (c client) Inspect(ctx context.Context, name string) (out Inventory, err error) {
	return out, c.call(ctx, "GET", ofWorkload(name, "inventory"), nil, &out)
}

func (c client) Judge(ctx context.Context, inv Inventory) (out []Finding, err error) {
	return out, c.call(ctx, "POST", "/v1/judge", inv, &out)
}

func (c client) Open(ctx context.Context, req OpenRequest) (out SessionState, err error) {
	return out, c.call(ctx, "POST", "/v1/sessions", req, &out)
}

func (c client) Session(ctx context.Context, id migration.ID) (out SessionState, err error) {
	return out, c.call(ctx, "GET", ofSession(id, ""), nil, &out)
}

func (c client) Watch(ctx context.Context, id migration.ID, after uint64, f func(Event) error) error {
	return rpc.Stream(ctx, c.http, "GET", fmt.Sprintf("%s?after=%d", ofSession(id, "/events"), after), nil, f)
}

func (c client) CutOver(ctx context.Context, id migration.ID, epoch migration.Epoch) error {
	return c.call(ctx, "POST", ofSession(id, "/cut-over"), verdictCall{Epoch: epoch}, nil)
}

func (c client) Decide(ctx context.Context, id migration.ID, v migration.Verdict, epoch migration.Epoch) (out SessionState, err error) {
	return out, c.call(ctx, "POST", ofSession(id, "/verdict"), verdictCall{v, epoch}, &out)
}

func (c client) Confirm(ctx context.Context, id migration.ID, epoch migration.Epoch) (out SessionState, err error) {
	return out, c.call(ctx, "POST", ofSession(id, "/confirm"), verdictCall{Epoch: epoch}, &out)
}

func (c client) SetBandwidth(ctx context.Context, id migration.ID, bytesPerSecond int64) error {
	return c.call(ctx, "POST", ofSession(id, "/bandwidth"), bandwidthCall{bytesPerSecond}, nil)
}

func (c client) call(ctx context.Context, method, path string, in, out any) error {
	return rpc.Call(ctx, c.http, method, path, in, out)
}

func ofWorkload(name, verb string) string {
	return "/v1/workloads/" + url.PathEscape(name) + "/" + verb
}
func ofSession(id migration.ID, rest string) string {
	return "/v1/sessions/" + url.PathEscape(string(id)) + rest
}

// The bodies of calls whose parameters are not one of the package's own types.
type (
	startCall struct {
		Spec  workload.Spec   `json:"spec"`
		Epoch migration.Epoch `json:"epoch"`
	}
	stopCall struct {
		Signal int           `json:"signal"`
		Grace  time.Duration `json:"grace_ns"`
	}
	forceCall struct {
		Force bool `json:"force"`
	}
	epochCall struct {
		Epoch migration.Epoch `json:"epoch"`
	}
	imageCall struct {
		Dir   string               `json:"dir"`
		Final migration.FinalState `json:"final_state,omitempty"`
		Epoch migration.Epoch      `json:"epoch,omitempty"`
	}
	verdictCall struct {
		Verdict migration.Verdict `json:"verdict,omitempty"`
		Epoch   migration.Epoch   `json:"epoch"`
	}
	bandwidthCall struct {
		BytesPerSecond int64 `json:"bytes_per_second"`
	}
)

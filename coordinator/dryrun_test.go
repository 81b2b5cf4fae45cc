package coordinator

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// over is whether both hosts have undone their part of whatever dry run there was, and runs on alpha.
func (c *cluster) leftNothing() bool {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	for _, h := range c.world.hosts {
		for _, s := range h.sessions {
			if s.state.Step != workerapi.StepUndone {
				return false
			}
		}
	}
	return c.world.running["redis"] == "alpha"
}

func TestADryRunEndsWithAForecastAndIsNowhere(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta")
		c.run("redis", "alpha")
		var last api.DryRun
		req := api.MigrateRequest{Workload: "redis", To: anywhere, Options: workerapi.MoveOptions{Policy: migration.Gentle}}
		if err := c.any().DryRun(t.Context(), req, func(d api.DryRun) error { last = d; return nil }); err != nil {
			t.Fatal(err)
		}
		if last.Forecast == nil || last.Source != "alpha" || last.Target != "beta" || !*last.Options.DowntimeStrict {
			t.Errorf("it said last: %+v", last)
		}
		if all := must(c.any().Migrations(t.Context(), ""))(t); len(all) > 0 {
			t.Errorf("the record has %+v", all)
		}
		if !c.leftNothing() {
			t.Error("something is left")
		}
		if m := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{}).ID); m.Phase != migration.Done {
			t.Errorf("the real one ended %s: %s", m.Phase, m.Reason)
		}
	})
}

func TestADryRunThatFailsOrIsInterruptedIsUndone(t *testing.T) {
	for what, spoil := range map[string]func(c *cluster, cancel context.CancelFunc) (want string){
		"the target has no room": func(c *cluster, _ context.CancelFunc) string {
			c.world.fail(fault{host: "beta", call: "Open target", err: errs.New(errs.Refused, "no room")})
			return "no room"
		},
		"the source cannot": func(c *cluster, _ context.CancelFunc) string {
			c.world.fail(fault{host: "alpha", call: "Open source", after: true, err: errs.New(errs.Failed, "no tracker")})
			return "no tracker"
		},
		"ctrl-C": func(c *cluster, cancel context.CancelFunc) string {
			time.AfterFunc(50*time.Millisecond, cancel)
			return "canceled"
		},
		"its deadline": func(c *cluster, _ context.CancelFunc) string {
			c.world.hosts["alpha"].copyFor = time.Hour
			return "not over in 10s"
		},
	} {
		inBubble(t, 1, func(t *testing.T, c *cluster) {
			c.addHost("alpha")
			c.addHost("beta")
			c.run("redis", "alpha")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			want := spoil(c, cancel)
			req := api.MigrateRequest{Workload: "redis", To: "beta", Options: workerapi.MoveOptions{Deadline: 10 * time.Second}}
			err := c.any().DryRun(ctx, req, func(api.DryRun) error { return nil })
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", what, err)
			}
			c.waitFor("nothing is left after "+what, c.leftNothing)
		})
	}
}

func TestNothingElseMovesAWorkloadDuringItsDryRun(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta")
		c.run("redis", "alpha")
		req := api.MigrateRequest{Workload: "redis", To: "beta"}
		tried := false
		err := c.any().DryRun(t.Context(), req, func(api.DryRun) error {
			if tried {
				return nil
			}
			tried = true
			_, moved := c.any().Migrate(t.Context(), req)
			wantKind(t, "a move meanwhile", moved, errs.Conflict)
			again := c.any().DryRun(t.Context(), req, func(api.DryRun) error { return errors.New("it began") })
			wantKind(t, "another dry run meanwhile", again, errs.Conflict)
			return nil
		})
		if err != nil || !tried {
			t.Errorf("tried %v, %v", tried, err)
		}
	})
}

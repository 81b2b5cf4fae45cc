package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
)

// answering is a coordinator that says what it was told to, after a while.
type answering struct {
	api.Coordinator
	name   string
	after  time.Duration
	leader string
	err    error
}

func (a answering) Cluster(ctx context.Context) (api.ClusterStatus, error) {
	select {
	case <-time.After(a.after):
		return api.ClusterStatus{Leader: a.leader}, a.err
	case <-ctx.Done():
		return api.ClusterStatus{}, ctx.Err()
	}
}

func TestTheFirstThatKnowsALeaderIsAsked(t *testing.T) {
	gone := errs.New(errs.Unavailable, "connection refused")
	stranger := errs.New(errs.Forbidden, "your key is not known").WithNext("ask an admin")
	for _, c := range []struct {
		why  string
		all  map[string]answering
		want string        // who is asked; "" is nobody
		says string        // what the error says then
		kind errs.Kind     // and its kind
		took time.Duration // at most
	}{
		{"the first is well", map[string]answering{"a": {leader: "x"}, "b": {leader: "x"}}, "a", "", 0, 0},
		{"the first is gone", map[string]answering{"a": {err: gone}, "b": {leader: "x"}}, "b", "", 0, 0},
		{"the first is silent", map[string]answering{"a": {after: time.Hour}, "b": {leader: "x"}}, "b", "", 0, headStart},
		{"two are silent", map[string]answering{"a": {after: time.Hour}, "b": {after: time.Hour}, "c": {leader: "x"}}, "c", "", 0, 2 * headStart},
		{"the first was cut off from the others", map[string]answering{"a": {}, "b": {leader: "x"}}, "b", "", 0, 0},
		{"the first is slow and the second slower", map[string]answering{"a": {after: time.Second, leader: "x"}, "b": {after: time.Hour}}, "a", "", 0, time.Second},
		{"nobody leads", map[string]answering{"a": {}, "b": {err: gone}}, "", "a knows no leader", errs.Unavailable, 0},
		{"all are silent", map[string]answering{"a": {after: time.Hour}, "b": {after: time.Hour}}, "", "does not answer", errs.Unavailable, answerWithin},
		{"the key is unknown where anybody answers", map[string]answering{"a": {err: gone}, "b": {err: stranger}}, "", "your key is not known", errs.Forbidden, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			var addresses []string
			for _, a := range []string{"a", "b", "c"} {
				if _, ok := c.all[a]; ok {
					addresses = append(addresses, a)
				}
			}
			began := time.Now()
			got, _, err := firstWithLeader(t.Context(), addresses, func(address string) api.Coordinator {
				one := c.all[address]
				one.name = address
				return one
			})
			if took := time.Since(began); took > c.took {
				t.Errorf("%s: it took %s", c.why, took)
			}
			switch {
			case c.want == "" && (err == nil || !strings.Contains(err.Error(), c.says) || errs.KindOf(err) != c.kind || errs.NextOf(err) == ""):
				t.Errorf("%s: got %v", c.why, err)
			case c.want != "" && (err != nil || got.(answering).name != c.want):
				t.Errorf("%s: got %v, %v", c.why, got, err)
			}
			synctest.Wait()
		})
	}
}

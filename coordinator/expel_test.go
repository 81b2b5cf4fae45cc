package coordinator

import (
	"slices"
	"testing"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// names are the coordinators that a status lists.
func names(st api.ClusterStatus) (out []string) {
	for _, m := range st.Coordinators {
		out = append(out, m.Name)
	}
	slices.Sort(out)
	return out
}

func TestADeadCoordinatorIsRemovedAndTheOthersTolerateAnother(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta")
		c.run("redis", "alpha")
		dead := c.leader()
		c.kill(dead)
		c.waitFor("another one leads", func() bool { return c.leader() != nil })
		st := must(c.any().RemoveCoordinator(t.Context(), dead.cfg.Name))(t)
		if slices.Contains(names(st), dead.cfg.Name) || len(st.Coordinators) != 2 {
			t.Errorf("the cluster is %v without %s", names(st), dead.cfg.Name)
		}
		_, err := c.any().RemoveCoordinator(t.Context(), dead.cfg.Name)
		wantKind(t, "a second time", err, errs.NotFound)
		c.join("c4")
		c.kill(c.leader()) // of three again: it would be one too many if the dead one counted
		if m := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{}).ID); m.Phase != migration.Done {
			t.Errorf("it ended %s: %s", m.Phase, m.Reason)
		}
	})
}

func TestTheLeaderHandsTheLeadOverBeforeItIsRemoved(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		old := c.leader()
		st := must(c.any().RemoveCoordinator(t.Context(), old.cfg.Name))(t)
		if slices.Contains(names(st), old.cfg.Name) || len(st.Coordinators) != 2 || st.Leader == old.cfg.Name || st.Leader == "" {
			t.Errorf("the cluster is %v, led by %q, without %s", names(st), st.Leader, old.cfg.Name)
		}
		var by string
		for _, e := range c.coordinators[st.Leader].node.View().Audit {
			if e.What == "member-remove" {
				by = e.By
			}
		}
		if by != "operator:ada:admin" {
			t.Errorf("the record has it done by %q", by)
		}
		c.kill(old)
		c.addHost("alpha")
		c.run("redis", "alpha")
	})
}

func TestAStoppedCoordinatorThatWasRemovedIsShutOutWhenItComesBack(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		var gone *member
		for _, m := range c.coordinators {
			if m.lead.Load() == nil {
				gone = m
			}
		}
		gone.stop()
		delete(c.coordinators, gone.cfg.Name)
		leads := c.leader().cfg.Name
		must(c.api(leads).RemoveCoordinator(t.Context(), gone.cfg.Name))(t)
		term := must(c.api(leads).Cluster(t.Context()))(t).Term
		back := c.start(gone.cfg)
		defer back.stop()
		delete(c.coordinators, gone.cfg.Name)
		c.join("c4") // the cluster works on meanwhile
		if st := must(c.api(leads).Cluster(t.Context()))(t); st.Leader != leads || st.Term != term || slices.Contains(names(st), gone.cfg.Name) {
			t.Errorf("the cluster is %+v; %s led it in term %d", st, leads, term)
		}
	})
}

func TestACoordinatorThatIsNeededIsNotRemoved(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		_, err := c.any().RemoveCoordinator(t.Context(), "c9")
		wantKind(t, "one that there is not", err, errs.NotFound)
		leads := c.leader().cfg.Name
		var others []string
		for name := range c.coordinators {
			if name != leads {
				others = append(others, name)
			}
		}
		c.kill(c.coordinators[others[0]])
		for _, name := range []string{others[1], leads} {
			_, err = c.api(leads).RemoveCoordinator(t.Context(), name)
			wantKind(t, name+", with "+others[0]+" dead", err, errs.Conflict)
		}
		if st := must(c.api(leads).Cluster(t.Context()))(t); len(st.Coordinators) != 3 || st.Leader != leads {
			t.Errorf("the cluster is %v, led by %q", names(st), st.Leader)
		}
		must(c.api(leads).RemoveCoordinator(t.Context(), others[0]))(t)
		must(c.api(leads).RemoveCoordinator(t.Context(), others[1]))(t)
		_, err = c.api(leads).RemoveCoordinator(t.Context(), leads)
		wantKind(t, "the last one", err, errs.Conflict)
	})
}

package coordinator

import (
	"context"

	"drover/coordinator/api"
	"drover/coordinator/evidence"
	"drover/internal/migration"
)

// Evidence is linearizable: this coordinator proves that it leads before it looks. Then it asks the others how far they are.
func (c *Coordinator) Evidence(ctx context.Context, id migration.ID) (api.Evidence, error) {
	if _, err := c.leading(); err != nil {
		return api.Evidence{}, err
	}
	if err := c.node.Fresh(ctx); err != nil {
		return api.Evidence{}, err
	}
	m, err := c.migrationRecord(id)
	if err != nil {
		return api.Evidence{}, err
	}
	out := evidence.Of(m)
	for _, s := range c.node.Servers() {
		r := api.Replica{Name: s.Name, Index: c.node.Applied()}
		if s.Name != c.cfg.Name {
			self, _ := c.askPeer(ctx, s.Peer) // one that does not answer has index 0
			r.Index = self.Index
		}
		out.Replicas = append(out.Replicas, r)
	}
	return out, nil
}

package coordinator

import (
	"context"
	"time"

	"drover/coordinator/drive"
	"drover/coordinator/record"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// strayLimit bounds the ending of one stray session.
const strayLimit = 90 * time.Second

// endStrays ends sessions that a host still has of migrations that are over. A migration that the record does not know is no verdict, and is left alone.
func (c *Coordinator) endStrays(l *lead, host record.Host, sessions []workerapi.SessionState) {
	for _, st := range sessions {
		if st.Step == workerapi.StepDone || st.Step == workerapi.StepUndone {
			continue
		}
		m, err := c.migrationRecord(st.Migration)
		if err != nil || !m.Phase.Final() || host.Name == m.Source && c.movedOn(m) || !l.presence.claim(host.Name, m.ID) {
			continue
		}
		go func() { // ends with the lead
			defer l.presence.release(host.Name, m.ID)
			ctx, cancel := context.WithTimeout(l.ctx, strayLimit)
			defer cancel()
			if err := endStray(ctx, c.worker(host), m); err != nil {
				c.log.Info("a stray session could not be ended yet", "migration", m.ID, "host", host.Name, "error", err)
				return
			}
			c.log.Info("a stray session was ended", "migration", m.ID, "host", host.Name, "verdict", m.Verdict())
		}()
	}
}

func endStray(ctx context.Context, w workerapi.Worker, m record.Migration) (err error) {
	for _, a := range drive.Stray(m) {
		if a.Do == drive.Confirm {
			_, err = w.Confirm(ctx, m.ID, a.Epoch)
		} else {
			_, err = w.Decide(ctx, m.ID, a.Verdict, a.Epoch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// claim takes the ending of a host's stray session; false if somebody is at it.
func (p *presence) claim(host string, id migration.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := stray{host, id}
	if p.strays[k] {
		return false
	}
	p.strays[k] = true
	return true
}

func (p *presence) release(host string, id migration.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.strays, stray{host, id})
}

type stray struct {
	host string
	id   migration.ID
}

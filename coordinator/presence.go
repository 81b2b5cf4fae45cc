package coordinator

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	"drover/internal/workload"
	"drover/transfer/link"
	workerapi "drover/worker/api"
)

// silence is how long a host may say nothing before it counts as silent.
const silence = 5 * time.Second

// presence is what hosts have said to this leader. It is not replicated: a new leader hears all of it again within a second.
type presence struct {
	since time.Time // the lead began then: nobody is silent for what came before
	mu    sync.Mutex
	said  map[string]word
	// strays are the sessions that are just being ended; see endStrays.
	strays map[stray]bool
}

// word is a host's last heartbeat.
type word struct {
	api.Heartbeat
	At time.Time
}

func newPresence(now time.Time) *presence {
	return &presence{since: now, said: map[string]word{}, strays: map[stray]bool{}}
}

func (p *presence) hear(hb api.Heartbeat, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said[hb.Facts.Name] = word{hb, at}
}

// note takes in what a host said of one workload in another answer, until its next heartbeat.
func (p *presence) note(host string, st workload.Status) {
	p.drop(host, st.Name)
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.said[host]
	w.Workloads = append(w.Workloads, st)
	p.said[host] = w
}

func (p *presence) of(host string) word {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said[host]
}

func (p *presence) forget(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.said, host)
}

// silent says whether the host should have been heard of and was not.
func (p *presence) silent(host string, now time.Time) bool {
	last := p.of(host).At
	if last.IsZero() {
		last = p.since
	}
	return now.Sub(last) > silence
}

// status is what the host last said of a workload.
func (p *presence) status(host, name string) (workload.Status, bool) {
	for _, st := range p.of(host).Workloads {
		if st.Name == name {
			return st, true
		}
	}
	return workload.Status{}, false
}

// copies are what hosts other than its owner have said that they have of a workload, by host.
func (p *presence) copies(name, owner string) (out []api.Copy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for host, said := range p.said {
		for _, st := range said.Workloads {
			if st.Name == name && host != owner {
				out = append(out, api.Copy{Host: host, State: st.State, Epoch: st.Epoch})
			}
		}
	}
	slices.SortFunc(out, func(a, b api.Copy) int { return strings.Compare(a.Host, b.Host) })
	return out
}

// drop forgets what a host has said of a workload, until its next heartbeat.
func (p *presence) drop(host, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.said[host]
	w.Workloads = slices.DeleteFunc(slices.Clone(w.Workloads), func(had workload.Status) bool { return had.Name == name })
	p.said[host] = w
}

// Heartbeat takes in what a worker says of itself, and tells it what the record expects of it.
func (c *Coordinator) Heartbeat(ctx context.Context, hb api.Heartbeat) (api.HeartbeatReply, error) {
	l, err := c.leading()
	if err != nil {
		return api.HeartbeatReply{}, err
	}
	name := hb.Facts.Name
	if p, _ := link.PeerFrom(ctx); p != pki.Worker(name) {
		return api.HeartbeatReply{}, errs.New(errs.Forbidden, "%s cannot speak for host %s", p, name)
	}
	reply := api.HeartbeatReply{Epochs: map[string]migration.Epoch{}}
	var owned []record.Workload
	var host record.Host
	var known bool
	c.node.Read(func(s *record.State) {
		host, known = s.Hosts[name]
		if trust, signing := trusted(s); signing != nil {
			reply.Authorities, reply.Signing = trust.Lines(), pki.Format(signing)
		}
		for _, w := range s.Workloads {
			if w.Owner == name {
				owned = append(owned, w)
				reply.Epochs[w.Name] = w.Epoch
			}
		}
		for _, k := range hb.Facts.Kept {
			if w, ok := s.Workloads[k.Workload]; !ok || w.Epoch < k.Epoch || w.Owner == name {
				reply.Forget = append(reply.Forget, k.Workload)
			}
		}
	})
	if !known {
		return reply, errs.New(errs.NotFound, "host %s is not a member of this cluster", name).WithNext("join it again, with a new token")
	}
	reply.Bandwidth = host.Bandwidth
	l.presence.hear(hb, time.Now())
	c.learn(ctx, host, hb, owned)
	c.endStrays(l, host, hb.Sessions)
	return reply, nil
}

// learn records what of a heartbeat must outlive the leader. A refusal means that the record has moved on: the next heartbeat
// tells again what is still so.
func (c *Coordinator) learn(ctx context.Context, host record.Host, hb api.Heartbeat, owned []record.Workload) {
	said := map[string]workload.Status{}
	for _, st := range hb.Workloads {
		said[st.Name] = st
	}
	var news []record.Change
	if a := hb.Facts.Address; a != "" && a != host.Address {
		news = append(news, record.HostAddress{Name: host.Name, Address: a})
	}
	for _, w := range owned {
		if change := newsOf(w, said[w.Name]); change != nil {
			news = append(news, change)
		}
	}
	for _, change := range news {
		if _, err := c.node.Propose(ctx, pki.Worker(host.Name).String(), change); err != nil {
			c.log.Info("a heartbeat's news was not recorded", "host", host.Name, "error", err)
		}
	}
}

// newsOf is what the record should learn from what a workload's owner says of it, nil if nothing.
func newsOf(w record.Workload, st workload.Status) record.Change {
	if st.Name != w.Name || st.Epoch != w.Epoch || w.Migration != "" {
		return nil
	}
	switch st.State {
	case workload.Exited, workload.Lost:
		if w.Life != record.Exited {
			return record.WorkloadExited{Name: w.Name, Epoch: w.Epoch, Code: st.ExitCode, Signal: st.Signal, At: st.Exited}
		}
	case workload.Running, workload.Stopped:
		if w.Life == record.Starting {
			return record.WorkloadStarted{Name: w.Name, Epoch: w.Epoch}
		}
	}
	return nil
}

// hostNow joins a host's record with what it last said.
func (l *lead) hostNow(h record.Host, now time.Time) api.Host {
	w := l.presence.of(h.Name)
	state := "up"
	if l.presence.silent(h.Name, now) {
		state = "silent"
	}
	return api.Host{Name: h.Name, Address: h.Address, Cordoned: h.Cordoned, Bandwidth: h.Bandwidth, Joined: h.Joined, State: state, LastSeen: w.At, Facts: w.Facts}
}

// workloadNow joins a workload's record with what its owner last said.
func (l *lead) workloadNow(w record.Workload, now time.Time) api.Workload {
	st := l.statusNow(w, now)
	st.Name, st.Spec, st.Epoch, st.Migration = w.Name, w.Spec, w.Epoch, w.Migration
	out := api.Workload{Name: w.Name, Spec: w.Spec, Owner: w.Owner, Epoch: w.Epoch, Migration: w.Migration, Created: w.Created, Status: st}
	if w.Migration == "" {
		out.Copies = l.presence.copies(w.Name, w.Owner)
	}
	return out
}

// unsaid is how long a host may leave out what the record has just given it: its next heartbeats may have been on their way.
const unsaid = 3 * time.Second

func (l *lead) statusNow(w record.Workload, now time.Time) workload.Status {
	host := l.presence.of(w.Owner)
	st, said := l.presence.status(w.Owner, w.Name)
	if said = said && st.Epoch == w.Epoch; !said {
		st = workload.Status{}
	}
	switch {
	case w.Life == record.Exited:
		st.State, st.ExitCode, st.Signal, st.Exited = workload.Exited, w.ExitCode, w.Signal, w.ExitedAt
	case l.presence.silent(w.Owner, now):
		st.State = workload.Lost
	case said:
	case w.Life == record.Starting:
		st.State = workload.Starting
	case w.Migration == "" && host.At.Sub(w.Since) > unsaid:
		st.State = workload.Lost
	default:
		st.State = workload.Running
	}
	return st
}

// awake is the worker of a host, errs.Unavailable if the host has been silent.
func (c *Coordinator) awake(l *lead, host string) (workerapi.Worker, error) {
	h, err := c.hostRecord(host)
	if err != nil {
		return nil, err
	}
	if l.presence.silent(host, time.Now()) {
		return nil, errs.New(errs.Unavailable, "host %s has been silent for %s", host, silence).WithNext("see that its worker runs: systemctl status drover-worker")
	}
	return c.worker(h), nil
}

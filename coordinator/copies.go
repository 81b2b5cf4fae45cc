package coordinator

import (
	"context"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/workload"
)

// Remove has hosts forget a workload, then the record; or one host what a migration has left there.
func (c *Coordinator) Remove(ctx context.Context, name string, o api.RemoveOptions) error {
	l, err := c.leading()
	if err != nil {
		return err
	}
	w, err := c.workloadRecord(name)
	switch {
	case o.Host != "" && (err != nil || o.Host != w.Owner):
		return c.removeCopy(ctx, l, name, o)
	case err != nil:
		return err
	}
	w, host, err := c.owner(name, "remove")
	if err != nil {
		return err
	}
	if o.Host == "" {
		if err := c.removeCopies(ctx, l, w, o.Force); err != nil {
			return err
		}
	}
	if err := host.Remove(ctx, name, o.Force); err != nil && errs.KindOf(err) != errs.NotFound {
		return errs.New(errs.KindOf(err), "remove %s from %s: %w", name, w.Owner, err)
	}
	l.presence.drop(w.Owner, name)
	_, err = c.node.Propose(ctx, by(ctx), record.WorkloadRemove{Name: name, Epoch: w.Epoch})
	return err
}

// removeCopies removes what hosts that do not own a workload have of it; a tree that still lives there only with force. A host that
// is silent keeps what it has: should it come back, rm with its name removes that without a record too.
func (c *Coordinator) removeCopies(ctx context.Context, l *lead, w record.Workload, force bool) error {
	copies := l.presence.copies(w.Name, w.Owner)
	for _, left := range copies {
		if force || ended(left.State) {
			continue
		}
		state, err := left.State, error(nil)
		if !l.presence.silent(left.Host, time.Now()) { // what it said last may be from before the end of a migration
			state, err = c.stateOn(ctx, left.Host, w.Name)
		}
		switch {
		case errs.KindOf(err) == errs.NotFound || err == nil && ended(state):
		case err != nil:
			return err
		default:
			return errs.New(errs.Conflict, "host %s still has a copy of %s, %s", left.Host, w.Name, state).
				WithNext("drover rm %s --host %s, or drover rm --force %s to be rid of all", w.Name, left.Host, w.Name)
		}
	}
	for _, left := range copies {
		if l.presence.silent(left.Host, time.Now()) {
			c.log.Warn("a copy stays on a host that does not answer", "workload", w.Name, "host", left.Host)
			continue
		}
		if err := c.removeCopy(ctx, l, w.Name, api.RemoveOptions{Host: left.Host, Force: true}); err != nil && errs.KindOf(err) != errs.NotFound {
			return err
		}
	}
	return nil
}

func ended(s workload.State) bool { return s == workload.Exited || s == workload.Lost }

// removeCopy has a host that does not own a workload forget what it has of it. While the workload lives elsewhere a fenced copy is
// of no more use than for looking at; otherwise it may be the last that there is, and goes only by force.
func (c *Coordinator) removeCopy(ctx context.Context, l *lead, name string, o api.RemoveOptions) error {
	if err := c.node.Fresh(ctx); err != nil { // a leader that was deposed must not take the workload for its copy
		return err
	}
	w, err := c.workloadRecord(name)
	unknown := err != nil
	epoch := w.Epoch
	switch {
	case unknown:
		c.node.Read(func(s *record.State) { epoch = s.Retired })
	case w.Migration != "":
		return errs.New(errs.Conflict, "cannot remove a copy of %s while migration %s moves it", name, w.Migration).
			WithNext("wait for it, or drover abort %s", w.Migration)
	}
	host, err := c.awake(l, o.Host)
	if err != nil {
		return err
	}
	state, err := c.stateOn(ctx, o.Host, name)
	switch lives := !ended(state); {
	case err != nil:
		return err
	case lives && !o.Force && state != workload.Fenced:
		return errs.New(errs.Conflict, "%s is %s on %s", name, state, o.Host).WithNext("drover rm %s --host %s --force, if it is a leftover", name, o.Host)
	case lives && !o.Force && w.Life != record.Started:
		return errs.New(errs.Conflict, "the copy of %s on %s may be the last that there is: the workload is not known to live elsewhere", name, o.Host).
			WithNext("drover rm %s --host %s --force, if it is not wanted", name, o.Host)
	}
	if err := host.RemoveCopy(ctx, name, epoch); err != nil {
		return errs.New(errs.KindOf(err), "remove the copy of %s from %s: %w", name, o.Host, err)
	}
	l.presence.drop(o.Host, name)
	return nil
}

// stateOn is the state of what a host has of a workload, by its own word of this moment; errs.NotFound if it has nothing.
func (c *Coordinator) stateOn(ctx context.Context, host, name string) (workload.State, error) {
	h, err := c.hostRecord(host)
	if err != nil {
		return "", err
	}
	said, err := c.worker(h).Workloads(ctx)
	if err != nil {
		return "", errs.New(errs.KindOf(err), "ask host %s for %s: %w", host, name, err)
	}
	for _, st := range said {
		if st.Name == name {
			return st.State, nil
		}
	}
	return "", errs.New(errs.NotFound, "host %s has nothing of %s", host, name).WithNext("drover show %s says where it is", name)
}

// Continue lets a stopped tree run on its owner, or on a host that it gives the workload to first.
func (c *Coordinator) Continue(ctx context.Context, name string, o api.ContinueOptions) (api.Workload, error) {
	w, host, err := c.owner(name, "continue")
	if err != nil {
		return api.Workload{}, err
	}
	if o.Host != "" && o.Host != w.Owner {
		return c.takeBack(ctx, w, o)
	}
	st, err := host.Continue(ctx, name, w.Epoch)
	if err != nil {
		return api.Workload{}, errs.New(errs.KindOf(err), "continue %s on %s: %w", name, w.Owner, err)
	}
	if l, err := c.leading(); err == nil {
		l.presence.note(w.Owner, st)
	}
	out, err := c.Workload(ctx, name)
	out.Status = st
	return out, err
}

// takeBack gives a workload to a host that a migration has left a fenced tree on, and lets that run. There is one owner at every
// instant: the tree of the present one must have ended, by its host's word or, if that is silent for good, by the caller's; then
// the record moves the workload at a new epoch, by which the old owner's tree could not be continued any more; only then does the
// fenced one run. It is the record that decides if somebody else does something about the workload at the same time.
func (c *Coordinator) takeBack(ctx context.Context, w record.Workload, o api.ContinueOptions) (api.Workload, error) {
	if !o.Force {
		return api.Workload{}, errs.New(errs.Refused, "%s is on %s: what %s has is the copy that it left there, and to continue that would make two", w.Name, w.Owner, o.Host).
			WithNext("to go back to the copy as it was left: drover stop %s, then drover continue %s --host %s --force", w.Name, w.Name, o.Host)
	}
	l, err := c.leading()
	if err != nil {
		return api.Workload{}, err
	}
	if err := c.node.Fresh(ctx); err != nil {
		return api.Workload{}, err
	}
	host, err := c.awake(l, o.Host)
	if err != nil {
		return api.Workload{}, err
	}
	switch state, err := c.stateOn(ctx, o.Host, w.Name); {
	case err != nil:
		return api.Workload{}, err
	case state != workload.Fenced:
		return api.Workload{}, errs.New(errs.Conflict, "%s is %s on %s: only a fenced copy can be continued there", w.Name, state, o.Host).WithNext("drover show %s", w.Name)
	}
	if err := c.ended(ctx, l, w, o); err != nil {
		return api.Workload{}, err
	}
	if _, err := c.node.Propose(ctx, by(ctx), record.WorkloadRaise{Name: w.Name, Epoch: w.Epoch, Owner: o.Host}); err != nil {
		return api.Workload{}, err
	}
	epoch := w.Epoch + 1
	st, err := host.Continue(ctx, w.Name, epoch)
	if err != nil {
		return api.Workload{}, errs.New(errs.KindOf(err), "%s belongs to %s now, but continuing it there failed: %w", w.Name, o.Host, err).
			WithNext("drover continue %s", w.Name)
	}
	l.presence.note(o.Host, st)
	return c.started(ctx, l, w.Name, epoch, nil)
}

// ended returns once it is in the record that a workload's tree has ended on its owner, and refuses if it has not, or if that
// cannot be known.
func (c *Coordinator) ended(ctx context.Context, l *lead, w record.Workload, o api.ContinueOptions) error {
	if w.Life == record.Exited {
		return nil
	}
	_, err := c.awake(l, w.Owner)
	var state workload.State
	if err == nil {
		state, err = c.stateOn(ctx, w.Owner, w.Name)
	}
	switch {
	case err == nil && ended(state):
	case err == nil:
		return errs.New(errs.Refused, "%s is %s on %s, its owner: to continue the copy on %s too would make two", w.Name, state, w.Owner, o.Host).
			WithNext("drover stop %s, then try again", w.Name)
	case o.Off != w.Owner:
		return errs.New(errs.Refused, "%s may still run on %s, its owner, to continue the copy on %s could make two: %w", w.Name, w.Owner, o.Host, err).
			WithNext("see that %s is switched off, or cut off for good, and say so: --off %s", w.Owner, w.Owner)
	default:
		c.log.Warn("a workload's owner is taken for dead on an operator's word", "workload", w.Name, "host", w.Owner, "by", by(ctx))
	}
	exited := record.WorkloadExited{Name: w.Name, Epoch: w.Epoch, At: time.Now().UTC()}
	_, err = c.node.Propose(ctx, by(ctx), exited)
	return err
}

package workloads

import (
	"context"
	"slices"
	"strings"

	"drover/internal/workload"
	"drover/worker/cgroup"
	"drover/worker/stat"
)

// Workloads is the status of every workload of this host, by name.
func (h *Host) Workloads(context.Context) ([]workload.Status, error) {
	h.mu.Lock()
	var listed []*entry
	for _, e := range h.all {
		if e.rec.State != gone && e.rec.State != reserved {
			listed = append(listed, e)
		}
	}
	h.mu.Unlock()
	slices.SortFunc(listed, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	all := make([]workload.Status, len(listed))
	for i, e := range listed {
		all[i] = h.status(e)
	}
	return all, nil
}

// Get is the status of one workload.
func (h *Host) Get(_ context.Context, name string) (workload.Status, error) {
	e, err := h.known(name)
	if err != nil {
		return workload.Status{}, err
	}
	return h.status(e), nil
}

// status joins what is remembered with what /proc says now.
func (h *Host) status(e *entry) workload.Status {
	h.mu.Lock()
	r, trouble := e.rec, e.trouble
	h.mu.Unlock()
	s := workload.Status{
		Name: e.name, Spec: r.Spec, Epoch: r.Epoch, State: r.State, Migration: r.Migration, Started: r.Started, Exited: r.Exited, Signal: r.Signal,
	}
	if r.State == workload.Exited && r.ExitKnown && r.Signal == 0 {
		s.ExitCode = &r.ExitCode
	}
	if !r.alive() {
		s.Migration = ""
		return s
	}
	s.Pid, s.Cgroup, s.Trouble = r.Pid, r.Place.Cgroup, trouble
	pids, _ := cgroup.Group(r.Place.Cgroup).Pids()
	for _, pid := range pids {
		if p, err := stat.Read(pid); err == nil {
			s.Processes++
			s.Threads += p.Threads
			s.RSS += p.RSS
		}
	}
	if s.State != workload.Migrating && s.State != workload.HeldState && r.Role != "" {
		s.Migration = ""
	}
	return s
}

package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
)

var pageShow = page{
	use:   "show WORKLOAD|HOST|MIGRATION",
	short: "say everything about one workload, host or migration",
	long: `Looks for a workload, a host and a migration of that name and says everything that the cluster knows about it: a workload's command, address, state and processes; a host's kernel, engine, memory and what it is missing; a migration's phases with their times, its rounds, its blackout and what the doctor said.

If a name is that of several things, say which: workload/NAME, host/NAME or migration/ID.`,
	example: `drover show web
drover show host/alpha
drover show 01hx3-web --json | jq .blackout_ns`,
	exits: exits{
		errs.NotFound: "nothing is called that",
		errs.Conflict: "several things are",
	},
}

func (a *app) cmdShow() *cobra.Command {
	return a.command(pageShow, a.askOne(func(ctx context.Context, c *cluster, name string) error {
		v, err := find(ctx, c, name)
		if err != nil {
			return err
		}
		return a.show(v)
	}))
}

// find looks for what is called name: in all kinds of things, or in the one before a slash.
func find(ctx context.Context, c api.Coordinator, name string) (view, error) {
	kind, rest, given := strings.Cut(name, "/")
	if given {
		name = rest
	}
	lookups := []struct {
		kind string
		find func(context.Context, api.Coordinator, string) (view, error)
	}{{"workload", findWorkload}, {"host", findHost}, {"migration", findMigration}}
	var found []view
	var kinds []string
	for _, l := range lookups {
		if given && l.kind != kind {
			continue
		}
		v, err := l.find(ctx, c, name)
		switch {
		case err == nil:
			found, kinds = append(found, v), append(kinds, l.kind+"/"+name)
		case errs.KindOf(err) != errs.NotFound && errs.KindOf(err) != errs.Invalid:
			return nil, err
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, errs.New(errs.Conflict, "%d things are called %q", len(found), name).WithNext("say which: %s", strings.Join(kinds, " or "))
	case given && kind != "workload" && kind != "host" && kind != "migration":
		return nil, errs.New(errs.Invalid, "%q is no kind of thing", kind).WithNext("use workload/, host/ or migration/")
	case given:
		return nil, errs.New(errs.NotFound, "no %s is called %q", kind, name).WithNext("drover %ss lists them", kind)
	}
	return nil, errs.New(errs.NotFound, "no workload, host or migration is called %q", name).
		WithNext("drover workloads, drover hosts and drover migrations list them")
}

func findWorkload(ctx context.Context, c api.Coordinator, name string) (view, error) {
	if err := workload.ValidName("workload", name); err != nil {
		return nil, err
	}
	w, err := c.Workload(ctx, name)
	return workloadView(w), err
}

func findHost(ctx context.Context, c api.Coordinator, name string) (view, error) {
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range hosts {
		if h.Name == name {
			return hostView(h), nil
		}
	}
	return nil, errs.New(errs.NotFound, "no host is called %q", name)
}

func findMigration(ctx context.Context, c api.Coordinator, name string) (view, error) {
	id := migration.ID(name)
	if err := id.Valid(); err != nil {
		return nil, err
	}
	m, err := c.Migration(ctx, id)
	return migrationView(m), err
}

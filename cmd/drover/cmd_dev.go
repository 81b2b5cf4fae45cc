package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"drover/configs"
	"drover/coordinator/api"
	"drover/engine/criu"
	"drover/internal/errs"
	"drover/internal/owned"
	"drover/internal/pki"
)

var pageDev = page{
	use:   "dev",
	short: "run a coordinator and a worker in one process, to try drover out",
	long: `Makes a throwaway cluster below --dir, unless there is one already, and runs its one coordinator and this machine's worker in this process until ctrl-C. It prints how to use it. It must be root, as a worker must.

Whoever can write below --dir is root here: the directory must belong to the user that runs dev, with all that it trusts in it, and nobody else may write it. Else dev refuses before it reads anything.

Both serve on the loopback only. Workloads go on when it ends, and it meets them again when it starts; to be rid of all, stop the workloads, end it, and remove the directory.`,
	example: `drover dev &
export DROVER_CONFIG=/var/tmp/drover-dev/client.yaml
drover run web --address 10.0.0.50/24 -- nginx -g 'daemon off;'`,
	exits: exits{
		errs.Refused:     "others have made, or may write, what is in --dir",
		errs.Unavailable: "a port is taken, or CRIU is missing or too old",
	},
	local: true,
}

// devStart bounds how long the coordinator may take to lead itself.
const devStart = 30 * time.Second

func (a *app) cmdDev() *cobra.Command {
	var d dev
	cmd := a.command(pageDev, nil)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !filepath.IsAbs(d.dir) || filepath.Clean(d.dir) != d.dir {
			return badUse(cmd, "--dir %q is not a clean absolute path", d.dir)
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		d.app = a
		return d.run(ctx)
	}
	cmd.Flags().StringVar(&d.dir, "dir", "/var/tmp/drover-dev", "directory that holds the whole cluster")
	cmd.Flags().StringVar(&d.name, "name", "dev", "name of the host, and of the coordinator")
	cmd.Flags().StringVar(&d.coordinator, "coordinator-listen", "127.0.0.1:7201", "where the coordinator serves")
	cmd.Flags().StringVar(&d.worker, "worker-listen", "127.0.0.1:7202", "where the worker serves")
	cmd.Flags().StringVar(&d.criu, "criu", "", "path of criu; empty: looked up in PATH")
	cmd.Flags().StringVar(&d.level, "log-level", "warn", "debug, info, warn or error")
	return cmd
}

// dev is a cluster in one process.
type dev struct {
	*app
	dir, name, coordinator, worker, criu, level string
}

func (d dev) run(ctx context.Context) error {
	f, err := criu.New(criu.Config{Path: d.criu}).Probe(ctx) // before anything is made
	if err == nil {
		err = f.Fit()
	}
	if err != nil {
		return errs.New(errs.Unavailable, "dev: %w", err).WithNext("install CRIU 4.2 or later, or say where it is with --criu")
	}
	c := configs.DefaultCoordinator()
	c.Name, c.Listen, c.StateDir, c.Log.Level = d.name, d.coordinator, filepath.Join(d.dir, "coordinator"), d.level
	w := configs.DefaultWorker()
	w.Name, w.Listen, w.CRIU, w.Log.Level = d.name, d.worker, d.criu, d.level
	w.StateDir, w.RunDir, w.Coordinators = filepath.Join(d.dir, "worker"), filepath.Join(d.dir, "run"), []string{c.Address()}
	for _, cfg := range []interface{ Validate() error }{c, w} {
		if err := cfg.Validate(); err != nil {
			return errs.New(errs.Invalid, "dev: %w", err)
		}
	}
	if err := d.own(w); err != nil {
		return err
	}
	if !there(c.AuthorityFile()) {
		n := newCluster{name: "dev", coordinator: c, operator: "dev", clientDir: d.dir, by: "drover dev"}
		if _, err := n.make(); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.runCoordinator(ctx, c) })
	g.Go(func() error {
		if err := d.join(ctx, w); err != nil {
			return err
		}
		g.Go(func() error {
			if err := d.awaitUp(ctx, time.Now()); err != nil {
				return err
			}
			return d.show(devView{filepath.Join(d.dir, "client.yaml"), d.name})
		})
		return d.runWorker(ctx, w)
	})
	return g.Wait()
}

// own makes the directory, or sees that nobody else has had a hand in what is there: it stands where any user may make one before, with a
// cluster of theirs in it. What trees write, and what is gone after a boot, is in directories that only this user enters.
func (d dev) own(w configs.Worker) error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return errs.New(errs.Failed, "dev: make its directory: %w", err)
	}
	err := owned.Above(d.dir)
	if err == nil {
		err = owned.Tree(d.dir, w.RunDir, filepath.Join(w.StateDir, "workloads"))
	}
	if err != nil {
		return errs.New(errs.KindOf(err), "dev trusts nothing in %s: %w", d.dir, err).
			WithNext("name a directory with --dir that is not there yet, below one of your own or root's; remove %s if nothing in it is yours", d.dir)
	}
	return nil
}

// join makes the worker a member, unless it is one, and returns once the coordinator leads.
func (d dev) join(ctx context.Context, w configs.Worker) error {
	m := member{role: pki.RoleWorker, name: d.name, address: w.Address(), dir: w.IdentityDir()}
	already, err := m.joined()
	if err != nil {
		return err
	}
	client, err := configs.LoadClient(filepath.Join(d.dir, "client.yaml"), nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, devStart)
	defer cancel()
	c, err := connect(ctx, client)
	for ; err != nil; c, err = connect(ctx, client) {
		select {
		case <-ctx.Done():
			return errs.New(errs.Timeout, "the coordinator does not lead after %s: %w", devStart, err)
		case <-time.After(100 * time.Millisecond): // nothing else tells
		}
	}
	defer c.Close()
	if already {
		return nil
	}
	token, err := c.NewToken(ctx, pki.RoleWorker, devStart)
	if err != nil {
		return err
	}
	_, err = m.join(ctx, token.Token)
	return err
}

// awaitUp returns when the coordinator has heard the worker since then: it can be given work. It ends without an error when dev does.
func (d dev) awaitUp(ctx context.Context, since time.Time) error {
	client, err := configs.LoadClient(filepath.Join(d.dir, "client.yaml"), nil)
	if err != nil {
		return err
	}
	return d.awaitHeard(ctx, since, func(ctx context.Context) ([]api.Host, error) {
		c, err := connect(ctx, client)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.Hosts(ctx)
	})
}

// awaitHeard is awaitUp that asks hosts. Whoever does not answer once is asked again: trees run here. Only what lasts for devStart is an error.
func (d dev) awaitHeard(ctx context.Context, since time.Time, hosts func(context.Context) ([]api.Host, error)) error {
	answered := time.Now()
	for {
		all, err := hosts(ctx)
		for _, h := range all {
			if h.Name == d.name && h.LastSeen.After(since) {
				return nil
			}
		}
		if err == nil {
			answered = time.Now()
		} else if time.Since(answered) > devStart && ctx.Err() == nil {
			return errs.New(errs.KindOf(err), "the coordinator has not said for %s whether it hears the worker: %w", devStart, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond): // nothing else tells
		}
	}
}

// devView says how to use it.
type devView struct {
	Config string `json:"config"`
	Host   string `json:"host"`
}

func (v devView) text(w io.Writer) {
	fmt.Fprintf(w, "the cluster dev runs, with the host %s; to use it:\n  export DROVER_CONFIG=%s\n", v.Host, v.Config)
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"drover/configs"
	"drover/coordinator"
	"drover/internal/errs"
	"drover/internal/pki"
)

var pageCoordinator = page{
	use:   "coordinator",
	short: "run a coordinator (a daemon)",
	long: `Runs one of the cluster's coordinators, which decide and record migrations, until SIGTERM or ctrl-C. It needs no privileges: one port and one directory. A cluster has one, three or five of them; with three, one may fail.

The configuration is /etc/drover/coordinator.yaml if it is there, or --config; each of its keys is a flag below and an environment variable (log.level is DROVER_LOG_LEVEL). drover config sample coordinator explains them. The machine must have been made a coordinator by drover cluster init or drover join.

It tells systemd when it serves (Type=notify). While it stops, migrations that it drives are taken over by the next leader.`,
	example: `drover coordinator
drover coordinator --config ./c1.yaml --log-level debug`,
	exits: exits{
		errs.NotFound:    "the configuration does not exist, or this machine is no coordinator yet",
		errs.Unavailable: "the port is taken",
	},
	local: true,
}

func (a *app) cmdCoordinator() *cobra.Command {
	cmd := a.command(pageCoordinator, nil)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := configs.LoadCoordinator(a.daemonFile(coordinatorFile), cmd.Flags())
		if err != nil {
			return err
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		defer context.AfterFunc(ctx, stopping)()
		return a.runCoordinator(ctx, cfg)
	}
	defaults := configs.DefaultCoordinator()
	configs.Flags(cmd.Flags(), &defaults)
	return cmd
}

// runCoordinator serves until ctx is done.
func (a *app) runCoordinator(ctx context.Context, cfg configs.Coordinator) error {
	identity, err := pki.LoadGenuine(cfg.IdentityDir())
	if err != nil {
		return notAMember(err, "drover cluster init, or drover join --role coordinator")
	}
	authority, next, err := loadAuthorities(cfg.AuthorityFile())
	if err != nil {
		return err
	}
	if identity.Expired() { // it was down for a day; who has the authority needs nobody to renew
		if identity, err = authority.Renew(identity); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return errs.New(errs.Unavailable, "coordinator %s cannot listen at %s: %w", identity.Name, cfg.Listen, err).WithNext("see who has the port: ss -ltnp")
	}
	options := coordinator.Config{
		Name: identity.Name, Listener: l, Advertise: cfg.Address(), DataDir: cfg.StateDir,
		Identity: identity, Authority: authority, Log: cfg.Log.Logger(a.err),
		SaveIdentity:  func(id *pki.Identity) error { return id.Save(cfg.IdentityDir()) },
		NextAuthority: next,
		SaveAuthorities: func(now, next *pki.Authority) error {
			return saveAuthorities(cfg.AuthorityFile(), now, next)
		},
	}
	founded, err := readFounding(cfg.FoundingFile())
	if err != nil {
		l.Close()
		return err
	}
	if founded != nil {
		options.Bootstrap, options.Cluster, options.FirstOperator = true, founded.Cluster, &founded.Operator
	}
	c, err := coordinator.New(options)
	if err != nil {
		l.Close()
		return err
	}
	if founded != nil {
		go forgetFounding(ctx, c, cfg.FoundingFile())
	}
	ready()
	return c.Run(ctx)
}

// nextSuffix is where a coordinator keeps the authority's new key while the cluster changes it: beside the one that signs.
const nextSuffix = ".next"

func loadAuthorities(file string) (now, next *pki.Authority, err error) {
	if now, err = pki.LoadAuthority(file); err != nil {
		return nil, nil, err
	}
	next, err = pki.LoadAuthority(file + nextSuffix)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return nil, nil, err
	}
	return now, next, nil
}

// saveAuthorities writes the new key before it overwrites the one that signs: a crash between the two loses neither.
func saveAuthorities(file string, now, next *pki.Authority) error {
	if next != nil {
		if err := next.Save(file + nextSuffix); err != nil {
			return err
		}
		return now.Save(file)
	}
	if err := now.Save(file); err != nil {
		return err
	}
	if err := os.Remove(file + nextSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.Failed, "remove the authority's old place: %w", err)
	}
	return nil
}

// readFounding is what the first coordinator is to put into the record, nil if there is nothing.
func readFounding(file string) (*founding, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, errs.New(errs.Failed, "read what the cluster is founded with: %w", err)
	}
	var f founding
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, errs.New(errs.Invalid, "%s is torn: %w", file, err).WithNext("make the cluster again in an empty --state-dir")
	}
	return &f, nil
}

// forgetFounding removes the file once the record has it: were the record lost later, a second cluster of the same name must
// not come into being by itself.
func forgetFounding(ctx context.Context, c *coordinator.Coordinator, file string) {
	for {
		if st, err := c.Cluster(ctx); err == nil && st.Name != "" {
			os.Remove(file)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// notAMember says how a machine without an identity gets one.
func notAMember(err error, how string) error {
	if errs.KindOf(err) == errs.NotFound {
		return errs.New(errs.NotFound, "this machine has not joined a cluster: %w", err).WithNext("%s", how)
	}
	return err
}

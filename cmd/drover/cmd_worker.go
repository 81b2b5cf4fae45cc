package main

import (
	"context"
	"net"

	"github.com/spf13/cobra"

	"drover/configs"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/worker/agent"
)

var pageWorker = page{
	use:   "worker",
	short: "run a host's worker (a daemon)",
	long: `Runs the worker of this host, which starts, dumps, sends, takes and restores process trees as the coordinators decide, until SIGTERM or ctrl-C. It must be root and needs CRIU 4.2 or later and cgroup v2.

Trees do not end with it: each has a keeper, a small process of its own, which the next worker meets again. It can be restarted or upgraded at any time, also in the middle of a migration.

The configuration is /etc/drover/worker.yaml if it is there, or --config; each of its keys is a flag below and an environment variable (log.level is DROVER_LOG_LEVEL). drover config sample worker explains them. The machine must have joined (drover join).

It tells systemd when it serves (Type=notify).`,
	example: `drover worker
drover worker --config ./alpha.yaml --log-level debug`,
	exits: exits{
		errs.NotFound:    "the configuration does not exist, or this machine has not joined",
		errs.Unavailable: "the port is taken",
	},
	local: true,
}

func (a *app) cmdWorker() *cobra.Command {
	cmd := a.command(pageWorker, nil)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := configs.LoadWorker(a.daemonFile(workerFile), cmd.Flags())
		if err != nil {
			return err
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		defer context.AfterFunc(ctx, stopping)()
		return a.runWorker(ctx, cfg)
	}
	defaults := configs.DefaultWorker()
	configs.Flags(cmd.Flags(), &defaults)
	return cmd
}

// runWorker serves until ctx is done.
func (a *app) runWorker(ctx context.Context, cfg configs.Worker) error {
	if cfg.StoreSpill != "" { // whether or not the machine has joined
		if err := agent.CheckSpill(cfg.StoreSpill); err != nil {
			return err
		}
	}
	identity, err := pki.LoadGenuine(cfg.IdentityDir())
	if err != nil {
		return notAMember(err, "drover join --role worker, with a token of drover token new")
	}
	agent.Version = version()
	w, err := agent.New(agent.Config{
		Name: identity.Name, Listen: cfg.Listen, Advertise: cfg.Address(), StateDir: cfg.StateDir, RunDir: cfg.RunDir,
		Identity: identity, Coordinators: cfg.Coordinators, MemoryLimit: int64(cfg.MemoryLimit), CRIU: cfg.CRIU,
		StoreMemory: int64(cfg.StoreMemory), StoreSpill: cfg.StoreSpill, KeepStore: cfg.KeepStore,
		CopyCPU: cfg.CopyCPU, CopyNice: cfg.CopyNice,
		Log:          cfg.Log.Logger(a.err),
		SaveIdentity: func(id *pki.Identity) error { return id.Save(cfg.IdentityDir()) },
		Parts:        agent.Parts{Listener: listenAndSaySo},
	})
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

func listenAndSaySo(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "%w", err).WithNext("see who has the port: ss -ltnp")
	}
	ready()
	return l, nil
}

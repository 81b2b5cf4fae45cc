package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/configs"
	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/workload"
)

var pageAdopt = page{
	use:   "adopt NAME",
	short: "take a tree that runs already as a workload",
	long: `Takes a process tree that runs on a host already as a workload called NAME. It stays as it is, in the host's namespaces, and is put into a cgroup of its own so that it can be frozen as a whole.

Exactly one of --pid, --cgroup and --unit says which tree. drover's own processes, kernel threads and the host's first process are refused.

A tree in the host's namespaces can only move where its pids, ports and files are free and the same; drover doctor says so beforehand. With --address, an address of the host that belongs to the tree moves along.`,
	example: `drover adopt db --pid 4711 --host alpha
drover adopt web --unit nginx.service --address 10.0.0.51/24`,
	exits: exits{
		errs.NotFound: "there is no such host, process, cgroup or unit",
		errs.Conflict: "there is another workload of that name, or the tree is one already",
		errs.Refused:  "that tree cannot be adopted: a kernel thread, or one of drover's own",
	},
}

func (a *app) cmdAdopt() *cobra.Command {
	spec := workload.Spec{Kind: workload.Adopt}
	var host string
	cmd := a.command(pageAdopt, nil)
	cmd.PreRunE = func(_ *cobra.Command, args []string) (err error) {
		spec.Name = args[0]
		if err := spec.Validate(); err != nil {
			return err
		}
		if host == "" {
			host, err = thisHost()
		}
		return err
	}
	cmd.RunE = a.askOne(func(ctx context.Context, c *cluster, _ string) error {
		w, err := start(ctx, c, api.RunRequest{Spec: spec, Host: host})
		if err != nil {
			return err
		}
		return a.show(workloadView(w))
	})
	flags := cmd.Flags()
	flags.StringVar(&host, "host", "", "host that the tree runs on; else this machine, by its worker's name")
	flags.IntVar(&spec.Find.Pid, "pid", 0, "the tree's root, as its host sees it")
	flags.StringVar(&spec.Find.Cgroup, "cgroup", "", "cgroup v2 path below the mount point; its topmost process is the root")
	flags.StringVar(&spec.Find.Unit, "unit", "", "systemd unit; its main process is the root")
	flags.StringVar(&spec.Address, "address", "", "address of the host that belongs to the tree, as 10.0.0.51/24")
	flags.StringVar(&spec.Link, "link", "", "the host's interface that --address lives on; else the one that has it")
	return cmd
}

// thisHost is the name that this machine's worker goes by.
func thisHost() (string, error) {
	cfg, err := loadIfThere(workerFile, configs.LoadWorker)
	if err != nil {
		return "", err
	}
	if name := cfg.HostName(); name != "" {
		return name, nil
	}
	return "", errs.New(errs.Invalid, "it is not known which host this machine is").WithNext("say so with --host")
}

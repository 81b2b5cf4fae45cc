package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/workload"
)

var pageRun = page{
	use:   "run NAME -- COMMAND",
	short: "start a workload on a host",
	long: `Starts COMMAND as a workload called NAME: a process tree in pid, mount, ipc and uts namespaces and a cgroup of its own, which drover can move. With --address it has a network namespace too, and the address moves with it, open connections included.

The tree's standard output and error go to files on its host (see drover logs). It outlives the worker that started it; when it ends, how it ended is recorded.

Every file that the tree uses must be on all hosts that it may move to: the host's own file system by default, or the directory named by --rootfs. What the tree writes belongs into volumes, which are carried along, or are --volume …:shared where every host sees the same files already.

Running it again with the same arguments changes nothing; a workload of that name that is another one is a conflict.`,
	example: `drover run web --address 10.0.0.50/24 -- nginx -g 'daemon off;'
drover run cache --host alpha --volume /srv/cache:/data --user 999:999 -- redis-server --dir /data
drover run job --env SEED=7 --dir /srv/job -- ./work --quiet`,
	exits: exits{
		errs.NotFound: "there is no such host",
		errs.Conflict: "there is another workload of that name",
		errs.Refused:  "no host can take it",
	},
}

func (a *app) cmdRun() *cobra.Command {
	spec := workload.Spec{Kind: workload.Run}
	var host string
	var volumes []string
	cmd := a.command(pageRun, nil)
	cmd.RunE = a.ask(func(ctx context.Context, c *cluster, args []string) error {
		w, err := start(ctx, c, api.RunRequest{Spec: spec, Host: host})
		if err != nil {
			return err
		}
		return a.show(workloadView(w))
	})
	cmd.PreRunE = func(cmd *cobra.Command, args []string) (err error) {
		switch dash := cmd.ArgsLenAtDash(); {
		case len(args) == 0 || dash == 0:
			return badUse(cmd, "NAME is missing")
		case dash < 0 || dash == len(args):
			return badUse(cmd, "COMMAND is missing: it stands after --")
		case dash > 1:
			return badUse(cmd, "%q is one argument too many: the command stands after --", args[1])
		}
		spec.Name, spec.Command = args[0], args[1:]
		if spec.Volumes, err = parseVolumes(volumes); err != nil {
			return err
		}
		return spec.Validate()
	}
	flags := cmd.Flags()
	flags.StringVar(&host, "host", "", "host to start it on; else the coordinator chooses one")
	flags.StringVar(&spec.Rootfs, "rootfs", "", "directory, on every host, that becomes the tree's /; else the host's own /")
	flags.StringVar(&spec.Address, "address", "", "address that moves with the tree, as 10.0.0.50/24; it gets a network namespace of its own")
	flags.StringVar(&spec.Gateway, "gateway", "", "default route, with --address")
	flags.StringVar(&spec.Link, "link", "", "the host's interface that --address lives on; else the one in the same subnet")
	flags.StringArrayVar(&volumes, "volume", nil, "HOST:INSIDE[:shared], a host's directory that the tree sees, made if it is not there; carried with it unless shared; may be repeated")
	flags.StringArrayVar(&spec.Env, "env", nil, "KEY=value for the tree's environment; may be repeated")
	flags.StringVar(&spec.User, "user", "", "uid[:gid], numbers (default 0:0)")
	flags.StringVar(&spec.Dir, "dir", "", "working directory inside the root (default /)")
	return cmd
}

// start starts or adopts a workload. One that is there already, alive, as it was asked for, is what was asked for.
func start(ctx context.Context, c api.Coordinator, req api.RunRequest) (api.Workload, error) {
	w, err := c.Run(ctx, req)
	if errs.KindOf(err) != errs.Conflict {
		return w, err
	}
	there, lookErr := c.Workload(ctx, req.Spec.Name)
	if lookErr == nil && (req.Host == "" || req.Host == there.Owner) && same(req.Spec, there.Spec) && there.Status.State != workload.Exited {
		return there, nil
	}
	return w, err
}

// same compares specs as they stand in the record.
func same(a, b workload.Spec) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func parseVolumes(texts []string) ([]workload.Volume, error) {
	var volumes []workload.Volume
	for _, text := range texts {
		parts := strings.Split(text, ":")
		shared := len(parts) == 3 && parts[2] == "shared"
		if len(parts) != 2 && !shared {
			return nil, errs.New(errs.Invalid, "run: volume %q is not of the form HOST:INSIDE or HOST:INSIDE:shared", text)
		}
		volumes = append(volumes, workload.Volume{Host: parts[0], Inside: parts[1], Shared: shared})
	}
	return volumes, nil
}

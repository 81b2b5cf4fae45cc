package main

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"

	"github.com/spf13/cobra"

	"drover/configs"
	"drover/internal/errs"
)

// Where daemons look for their configuration unless --config says otherwise.
const (
	workerFile      = "/etc/drover/worker.yaml"
	coordinatorFile = "/etc/drover/coordinator.yaml"
)

var pageClusterInit = page{
	use:   "init CLUSTER",
	short: "make a new cluster on this machine",
	long: `Makes what a new cluster begins with, on the machine of its first coordinator: the cluster's certificate authority and this coordinator's identity in --state-dir, its configuration (/etc/drover/coordinator.yaml or --config), and a client configuration for the first administrator in --client-dir, with a new key unless --key names one.

Nothing runs yet: start drover coordinator next. What exists is never overwritten.

Whoever can read --state-dir is the cluster. The authority's public key, which is printed, is what clients and hosts trust.`,
	example: `drover cluster init home --advertise alpha.example:7201
drover cluster init home --name c1 --advertise 10.0.0.1:7201 --operator alice --key ~/.ssh/id_ed25519.pub`,
	exits: exits{
		errs.NotFound: "the file of --key does not exist",
		errs.Conflict: "one of the files is there already",
	},
	local: true,
}

func (a *app) cmdCluster() *cobra.Command {
	family := &cobra.Command{Use: "cluster", Short: "make a new cluster, take a coordinator out of one, change its key"}
	family.AddCommand(a.cmdClusterInit(), a.cmdClusterRemove(), a.cmdClusterKeys())
	return family
}

func (a *app) cmdClusterInit() *cobra.Command {
	n := newCluster{by: "drover cluster init"}
	cmd := a.command(pageClusterInit, nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		n.name, n.file = args[0], coordinatorFile
		if a.config != "" {
			n.file = a.config
		}
		if n.coordinator, err = configs.LoadCoordinator("", cmd.Flags()); err != nil {
			return err
		}
		if n.clientDir == "" {
			file, err := configs.ClientFile()
			if err != nil {
				return err
			}
			n.clientDir = filepath.Dir(file)
		}
		if n.clientDir, err = filepath.Abs(n.clientDir); err != nil {
			return errs.New(errs.Invalid, "--client-dir: %w", err)
		}
		authority, err := n.make()
		if err != nil {
			return err
		}
		return a.show(initView{n.name, authority, n.coordinator.HostName(), n.coordinator.Address(), n.file, n.operator, n.clientFile()})
	}
	defaults := configs.DefaultCoordinator()
	configs.Flags(cmd.Flags(), &defaults)
	cmd.Flags().StringVar(&n.clientDir, "client-dir", "", "directory for the administrator's client.yaml and key; else ~/.config/drover")
	cmd.Flags().StringVar(&n.operator, "operator", userName(), "name of the first administrator")
	cmd.Flag("operator").DefValue = "your user name"
	cmd.Flags().StringVar(&n.key, "key", "", "their public SSH key, or its file; else a new key pair is made in --client-dir")
	return cmd
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return "admin"
}

// initView is what a new cluster's maker must know.
type initView struct {
	Cluster     string `json:"cluster"`
	Authority   string `json:"authority"`
	Coordinator string `json:"coordinator"`
	Address     string `json:"address"`
	Config      string `json:"config"`
	Operator    string `json:"operator"`
	Client      string `json:"client"`
}

func (v initView) text(w io.Writer) {
	fmt.Fprintf(w, "made the cluster %s\n\n", v.Cluster)
	fact(w, "authority", v.Authority)
	fact(w, "coordinator", v.Coordinator+" at "+v.Address)
	fact(w, "its config", v.Config)
	fact(w, "operator", v.Operator+", admin")
	fact(w, "client", v.Client)
	fmt.Fprintf(w, "\nnext:\n  drover coordinator --config %s\n  drover --config %s token new --role worker\n", v.Config, v.Client)
}

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"drover/configs"
	"drover/internal/errs"
	"drover/internal/pki"
)

var pageJoin = page{
	use:   "join [TOKEN]",
	short: "make this machine a host or a coordinator of a cluster",
	long: `Asks the cluster that a token is of to take this machine in, as a worker (a host) or as a coordinator. It makes a key here, has the cluster certify it, and writes the identity into --state-dir and the configuration to /etc/drover/worker.yaml or /etc/drover/coordinator.yaml, or --config. The token (drover token new) says which cluster and where to ask; it works once. "--token -" reads it from standard input, where no list of processes shows it.

--advertise says at which address the others reach this machine; it must be right before joining, because the cluster records it.

Nothing runs yet: start drover worker or drover coordinator next. A join whose answer was lost is repeated with the same token. A machine that has joined already is left as it is, unless its certificates have expired: then it joins again by the same key, with a new token, and a worker keeps its workloads.`,
	example: `drover join --role worker --token drover1.… --name beta --advertise beta.example:7202
drover token new --role coordinator | ssh c2 drover join --role coordinator --token - --name c2`,
	exits: exits{
		errs.Conflict:    "this machine has another identity, or the name is taken",
		errs.Unavailable: "no coordinator can be reached",
		errs.Timeout:     "a deadline passed",
		errs.Forbidden:   "the token is not of this cluster, was used, or has expired",
	},
	local: true,
}

func (a *app) cmdJoin() *cobra.Command {
	var token, role string
	cmd := a.command(pageJoin, nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 && token == "" {
			token = args[0]
		}
		m, written, err := a.joiner(cmd, role)
		if err != nil {
			return err
		}
		already, err := m.joined()
		if err != nil {
			return err
		}
		if already {
			return a.show(joinView{m.role, m.name, m.address, written.file, true})
		}
		if token, err = a.token(cmd, token); err != nil {
			return err
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		reply, err := m.join(ctx, token)
		if err != nil {
			return err
		}
		if err := written.write(reply.Coordinators); err != nil {
			return err
		}
		return a.show(joinView{m.role, m.name, m.address, written.file, false})
	}
	cmd.Flags().StringVar(&token, "token", "", "the token, or - to read it from standard input; required")
	cmd.Flags().StringVar(&role, "role", pki.RoleWorker, "worker or coordinator")
	worker, coordinator := configs.DefaultWorker(), configs.DefaultCoordinator()
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	configs.Flags(all, &worker)
	both := pflag.NewFlagSet("", pflag.ContinueOnError)
	configs.Flags(both, &coordinator)
	all.VisitAll(func(f *pflag.Flag) {
		if other := both.Lookup(f.Name); other != nil && other.DefValue != f.DefValue {
			f.DefValue = "by role"
		}
		cmd.Flags().AddFlag(f)
	})
	return cmd
}

// joinConfig is the configuration that a machine gets when it joins.
type joinConfig struct {
	file  string
	write func(coordinators []string) error
}

// joiner is what this machine is to become, by its configuration and the flags.
func (a *app) joiner(cmd *cobra.Command, role string) (m member, c joinConfig, err error) {
	switch role {
	case pki.RoleWorker:
		m, c, err = a.workerJoiner(cmd.Flags())
	case pki.RoleCoordinator:
		m, c, err = a.coordinatorJoiner(cmd.Flags())
	default:
		err = badUse(cmd, "--role %q is neither worker nor coordinator", role)
	}
	if err == nil && m.name == "" {
		err = errs.New(errs.Invalid, "this machine's host name cannot name a host").WithNext("choose one with --name")
	}
	return m, c, err
}

func (a *app) workerJoiner(flags *pflag.FlagSet) (member, joinConfig, error) {
	file, existing := a.joinFile(workerFile)
	cfg, err := configs.LoadWorker(existing, flags)
	if err != nil {
		return member{}, joinConfig{}, err
	}
	cfg.Name, cfg.Advertise = cfg.HostName(), cfg.Address()
	write := func(coordinators []string) error {
		if existing != "" && len(cfg.Coordinators) == 0 {
			a.say("%s was there and stays as it is: add the key coordinators: [%s]", file, strings.Join(coordinators, ", "))
		}
		if existing != "" {
			return nil
		}
		cfg.Coordinators = coordinators
		return configs.Write(file, "drover join", &cfg)
	}
	m := member{role: pki.RoleWorker, name: cfg.Name, address: cfg.Advertise, dir: cfg.IdentityDir()}
	return m, joinConfig{file, write}, nil
}

func (a *app) coordinatorJoiner(flags *pflag.FlagSet) (member, joinConfig, error) {
	file, existing := a.joinFile(coordinatorFile)
	cfg, err := configs.LoadCoordinator(existing, flags)
	if err != nil {
		return member{}, joinConfig{}, err
	}
	cfg.Name, cfg.Advertise = cfg.HostName(), cfg.Address()
	write := func([]string) error {
		if existing != "" {
			return nil
		}
		return configs.Write(file, "drover join", &cfg)
	}
	m := member{role: pki.RoleCoordinator, name: cfg.Name, address: cfg.Advertise, dir: cfg.IdentityDir(), authorityFile: cfg.AuthorityFile()}
	return m, joinConfig{file, write}, nil
}

// joinFile is the configuration to write, and to read if somebody wrote it already ("" if not): that one stays as it is.
func (a *app) joinFile(standard string) (file, existing string) {
	file = standard
	if a.config != "" {
		file = a.config
	}
	if there(file) {
		existing = file
	}
	return file, existing
}

// token is the one given, or read.
func (a *app) token(cmd *cobra.Command, given string) (string, error) {
	switch given {
	case "":
		return "", badUse(cmd, "--token is missing")
	case "-":
		text, err := io.ReadAll(io.LimitReader(a.in, 16<<10))
		if err != nil {
			return "", errs.New(errs.Failed, "read the token: %w", err)
		}
		word, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n") // drover token new prints more below it
		return word, nil
	}
	return given, nil
}

// joinView says what a machine has become.
type joinView struct {
	Role    string `json:"role"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Config  string `json:"config"`
	Already bool   `json:"already"`
}

func (v joinView) text(w io.Writer) {
	if v.Already {
		fmt.Fprintf(w, "this machine has joined already: %s %s\n", v.Role, v.Name)
	} else {
		fmt.Fprintf(w, "joined as %s %s, reached at %s\n", v.Role, v.Name, v.Address)
	}
	fmt.Fprintf(w, "next: drover %s --config %s\n", v.Role, v.Config)
}

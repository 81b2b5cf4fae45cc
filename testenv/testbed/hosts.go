package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"drover/internal/errs"
	"drover/testenv/host"
	"drover/testenv/rootfs"
)

// up opens a bed and keeps it until it is interrupted. Its hosts are 10.77.0.1, 10.77.0.2, … in the order they are named.
func up(ctx context.Context, args []string) (err error) {
	if len(args) < 2 || len(args) > 250 {
		return errs.New(errs.Invalid, "up needs a name and at least one host").WithNext("testbed up try alpha beta")
	}
	if _, err := rootfs.Build(ctx, os.Stderr); err != nil {
		return err
	}
	bed, err := host.NewBed(ctx, args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	for i, name := range args[1:] {
		address := fmt.Sprintf("10.77.0.%d/24", i+1)
		if _, err := bed.Host(ctx, name, host.Options{Address: address}); err != nil {
			return err
		}
		fmt.Printf("%s %s is up: testbed exec %s %s bash\n", name, address, args[0], name)
	}
	fmt.Println("the bed stays open until this ends (ctrl-C)")
	<-ctx.Done()
	return nil
}

func execute(ctx context.Context, args []string) error {
	if len(args) < 3 {
		return errs.New(errs.Invalid, "exec needs a bed, a host and a command").WithNext("testbed exec try alpha bash")
	}
	h, err := host.Find(args[0], args[1])
	if err != nil {
		return err
	}
	cmd := h.Command(context.WithoutCancel(ctx), args[2:]...) // ctrl-C is the command's
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	return err
}

func list(context.Context, []string) error {
	beds, err := host.List()
	if err != nil {
		return err
	}
	for _, b := range beds {
		state := "open"
		if !b.Alive {
			state = "left by a dead process: testbed sweep"
		}
		fmt.Printf("%s\t%s\t%s\n", b.ID, strings.Join(b.Hosts, " "), state)
	}
	return nil
}

func down(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errs.New(errs.Invalid, "down needs a bed").WithNext("see them: testbed list")
	}
	return host.Down(ctx, args[0])
}

func sweep(ctx context.Context, _ []string) error { return host.Sweep(ctx) }

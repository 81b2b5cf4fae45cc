package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"drover/internal/errs"
)

// app is what the verbs share.
type app struct {
	in       io.Reader
	out, err io.Writer
	terminal bool       // out is one: what is under way can be drawn in place
	asks     bool       // a person can be asked something, and answer on in
	width    func() int // of the terminal

	json   bool   // --json
	config string // --config, "" is the verb's default
	printer
}

func newApp(in, out, err *os.File) *app {
	return &app{in: in, out: out, err: err, terminal: isTerminal(out), asks: isTerminal(in) && isTerminal(err), width: func() int { return columns(out) }}
}

func columns(f *os.File) int {
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		return width
	}
	return 80
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// run runs one command line and returns its exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	a.printer = &textPrinter{out: a.out, err: a.err, terminal: a.terminal, width: a.width}
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if errs.KindOf(err) == errs.Invalid && errs.NextOf(err) == "" { // what makes no sense is always explained there
		err = errs.New(errs.Invalid, "%w", err).WithNext("%s --help", cmd.CommandPath())
	}
	if errors.Is(err, context.Canceled) {
		err = errs.New(errs.Failed, "interrupted")
	}
	a.json = a.json || slices.Contains(args, "--json") // flags that were not understood may have hidden it
	a.choosePrinter()
	a.fail(err)
	return errs.KindOf(err).ExitCode()
}

// choosePrinter is run once the flags are known.
func (a *app) choosePrinter() {
	if a.json {
		a.printer = &jsonPrinter{out: a.out, err: a.err}
	}
}

// interruptible is ctx until the user or the system asks the process to end.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// ask makes the RunE of a verb that asks the cluster something and ends: ctrl-C interrupts it.
func (a *app) ask(f func(ctx context.Context, c *cluster, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		return a.asking(ctx, cmd, args, f)
	}
}

// askOne is ask for a verb about the one thing that its argument names.
func (a *app) askOne(f func(ctx context.Context, c *cluster, name string) error) func(*cobra.Command, []string) error {
	return a.ask(func(ctx context.Context, c *cluster, args []string) error { return f(ctx, c, args[0]) })
}

// steer makes the RunE of a verb that deals with ctrl-C itself.
func (a *app) steer(f func(ctx context.Context, c *cluster, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return a.asking(cmd.Context(), cmd, args, f) }
}

func (a *app) asking(ctx context.Context, cmd *cobra.Command, args []string, f func(context.Context, *cluster, []string) error) error {
	cfg, err := a.clientConfig(cmd)
	if err != nil {
		return err
	}
	cluster, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer cluster.Close()
	return f(ctx, cluster, args)
}

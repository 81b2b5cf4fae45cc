package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"drover/internal/errs"
)

// page is what a verb's help says; the usage and the flags come from the command itself.
type page struct {
	use     string // name and arguments: "doctor WORKLOAD"; those in brackets may be left out
	short   string
	long    string // paragraphs, without line breaks inside; lines that begin with two spaces stay as they are
	example string
	exits   exits // what is not here means what everyExit or clusterExit says
	local   bool  // the verb asks no cluster
}

// exits say when a command ends with a kind's code.
type exits map[errs.Kind]string

var (
	everyExit = exits{
		errs.Failed:  "it was tried and did not work, or was interrupted",
		errs.Invalid: "an argument, a flag or the configuration makes no sense; nothing was tried",
	}
	clusterExit = exits{
		errs.Unavailable: "no coordinator that knows a leader can be reached, or a host cannot be",
		errs.Timeout:     "a deadline passed",
		errs.Forbidden:   "your key is not known to the cluster, or your role may not do this",
	}
)

// Annotations that a command carries for its help.
const (
	exitsKey = "exits"
	// connecting marks flags that say how to reach the cluster: they are the same for all verbs that ask it.
	connecting = "connecting"
)

// command makes a verb from its page.
func (a *app) command(p page, run func(*cobra.Command, []string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:         p.use,
		Short:       p.short,
		Long:        p.long,
		Example:     p.example,
		RunE:        run,
		Args:        arguments(p.use),
		Annotations: map[string]string{exitsKey: exitLines(p)},
	}
	if !p.local {
		a.connectingFlags(cmd.Flags())
	}
	return cmd
}

func exitLines(p page) string {
	all := maps.Clone(everyExit)
	if !p.local {
		maps.Copy(all, clusterExit)
	}
	maps.Copy(all, p.exits)
	lines := []string{"0  done; for what was done already, too"}
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		lines = append(lines, fmt.Sprintf("%d  %s", kind.ExitCode(), all[kind]))
	}
	return strings.Join(lines, "\n")
}

// arguments checks the arguments against the usage line and names the one that is missing.
func arguments(use string) cobra.PositionalArgs {
	var names []string
	required := 0
	for _, f := range strings.Fields(use)[1:] {
		if f == "--" {
			return nil // the verb looks itself
		}
		names = append(names, f)
		if !strings.HasPrefix(f, "[") {
			required++
		}
	}
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < required:
			return badUse(cmd, "%s is missing", names[len(args)])
		case len(args) > len(names):
			return badUse(cmd, "%q is one argument too many", args[len(names)])
		}
		return nil
	}
}

// badUse is an error in how a command was called.
func badUse(cmd *cobra.Command, format string, args ...any) error {
	return errs.New(errs.Invalid, "%s%s", verbs(cmd), fmt.Sprintf(format, args...)).WithNext("%s --help", cmd.CommandPath())
}

// badFlag says what is wrong with a flag in the words of who typed it, not in those of Go's parsers.
func badFlag(err error) string {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err.Error()
	}
	name, value := bad.GetFlag().Name, bad.GetValue()
	switch kind := bad.GetFlag().Value.Type(); {
	case kind == "int" && errors.Is(err, strconv.ErrRange):
		return fmt.Sprintf("--%s %s is too large a number", name, value)
	case kind == "int":
		return fmt.Sprintf("--%s %q is not a whole number", name, value)
	case kind == "bool":
		return fmt.Sprintf("--%s %q is neither true nor false", name, value)
	case kind == "duration":
		return fmt.Sprintf("--%s %q is not a time such as 500ms, 30s or 5m", name, value)
	}
	return fmt.Sprintf("--%s: %s", name, errors.Unwrap(bad))
}

// writeHelp is `drover help VERB`.
func writeHelp(w io.Writer, cmd *cobra.Command) {
	fmt.Fprintf(w, "%s - %s\n\nUSAGE\n  %s\n", cmd.CommandPath(), cmd.Short, usage(cmd))
	if cmd.Long != "" {
		fmt.Fprintf(w, "\nDESCRIPTION\n%s\n", wrapped(cmd.Long, "  ", 98))
	}
	for _, g := range cmd.Groups() {
		fmt.Fprintf(w, "\n%s\n", strings.ToUpper(g.Title))
		for _, c := range cmd.Commands() {
			if c.GroupID == g.ID && c.IsAvailableCommand() {
				fmt.Fprintf(w, "  %-13s %s\n", c.Name(), c.Short)
			}
		}
	}
	if len(cmd.Groups()) == 0 && cmd.HasAvailableSubCommands() {
		fmt.Fprint(w, "\nVERBS\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(w, "  %-13s %s\n", c.Name(), c.Short)
			}
		}
	}
	own, general := flagsOf(cmd)
	writeFlags(w, "FLAGS", own)
	writeFlags(w, "GENERAL FLAGS", general)
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nEXAMPLES\n%s\n", indented(cmd.Example, "  "))
	}
	if lines := cmd.Annotations[exitsKey]; lines != "" && cmd.Runnable() {
		fmt.Fprintf(w, "\nEXIT CODES\n%s\n", indented(lines, "  "))
	}
}

func usage(cmd *cobra.Command) string {
	line := cmd.CommandPath()
	if cmd.HasAvailableSubCommands() {
		return line + " VERB"
	}
	if _, args, ok := strings.Cut(cmd.Use, " "); ok {
		name, rest, dashed := strings.Cut(args, "-- ")
		line += " " + strings.TrimSpace(name)
		if dashed {
			return line + " [flags] -- " + rest
		}
	}
	return line + " [flags]"
}

// flagsOf are a verb's own flags and those it shares with the others.
func flagsOf(cmd *cobra.Command) (own, general []*pflag.Flag) {
	cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if _, shared := f.Annotations[connecting]; shared || f.Name == "help" || cmd.PersistentFlags().Lookup(f.Name) != nil {
			general = append(general, f)
		} else if !f.Hidden {
			own = append(own, f)
		}
	})
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { general = append(general, f) })
	slices.SortFunc(general, func(a, b *pflag.Flag) int { return strings.Compare(a.Name, b.Name) })
	return own, general
}

func writeFlags(w io.Writer, title string, flags []*pflag.Flag) {
	if len(flags) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", title)
	width := 0
	for _, f := range flags {
		width = max(width, len(flagName(f)))
	}
	for _, f := range flags {
		lines := strings.Split(wrapped(flagText(f), "", 94-width), "\n")
		fmt.Fprintf(w, "  %-*s  %s\n", width, flagName(f), lines[0])
		for _, more := range lines[1:] {
			fmt.Fprintf(w, "  %-*s  %s\n", width, "", more)
		}
	}
}

// flagName is "-f, --follow" or "--tail number".
func flagName(f *pflag.Flag) string {
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	switch kind := f.Value.Type(); kind {
	case "bool":
	case "int", "int64":
		name += " number"
	case "stringArray", "string":
		name += " text"
	default:
		name += " " + kind
	}
	return name
}

func flagText(f *pflag.Flag) string {
	switch f.DefValue {
	case "", "false", "0", "[]", "0s":
		return f.Usage
	}
	return fmt.Sprintf("%s (default %s)", f.Usage, f.DefValue)
}

// wrapped breaks paragraphs into lines; lines that begin with a space stay as they are.
func wrapped(text, indent string, width int) string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, " ") {
			out = append(out, indent+line)
			continue
		}
		row := ""
		for word := range strings.FieldsSeq(line) {
			if row != "" && len([]rune(row))+1+len([]rune(word)) > width {
				out, row = append(out, indent+row), ""
			}
			if row != "" {
				row += " "
			}
			row += word
		}
		if row != "" {
			row = indent + row
		}
		out = append(out, row)
	}
	return strings.Join(out, "\n")
}

func indented(text, indent string) string {
	return indent + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+indent)
}

package network

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"

	"drover/internal/errs"
)

// removeIptablesLocks removes CRIU's iptables rules from the calling thread's network. Where no filter table is in use it
// starts no program: even listing makes the kernel load what was not there.
func removeIptablesLocks(ctx context.Context, tables []*nftables.Table) error {
	for _, v := range []struct {
		command string
		family  nftables.TableFamily
		legacy  string // lists the tables that the old iptables has
	}{
		{"iptables", nftables.TableFamilyIPv4, "/proc/thread-self/net/ip_tables_names"},
		{"ip6tables", nftables.TableFamilyIPv6, "/proc/thread-self/net/ip6_tables_names"},
	} {
		inUse := slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Family == v.family && t.Name == "filter" })
		if names, err := os.ReadFile(v.legacy); err == nil && slices.Contains(strings.Fields(string(names)), "filter") {
			inUse = true
		}
		if _, err := exec.LookPath(v.command); !inUse || err != nil {
			continue // without the program CRIU could not have made its rules either
		}
		saved, err := exec.CommandContext(ctx, v.command+"-save", "-t", "filter").Output()
		if err != nil {
			return errs.New(errs.Failed, "list CRIU's network locks with %s-save: %w", v.command, err)
		}
		for _, args := range criuRules(string(saved)) {
			if out, err := exec.CommandContext(ctx, v.command, args...).CombinedOutput(); err != nil {
				return errs.New(errs.Failed, "remove CRIU's network lock with %s %s: %s: %w", v.command,
					strings.Join(args, " "), strings.TrimSpace(string(out)), err)
			}
		}
	}
	return nil
}

// criuRules are the arguments that undo what CRIU added, in order, from the output of iptables-save: rules that drop all but
// its own mark, and for a whole namespace a chain named CRIU.
func criuRules(saved string) (undo [][]string) {
	const mark, chain = "0xc114", "CRIU"
	for line := range strings.Lines(saved) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "-A" || f[1] == chain {
			continue
		}
		if slices.Contains(f, mark) || slices.Contains(f, chain) {
			undo = append(undo, append([]string{"-w", "-t", "filter", "-D"}, f[1:]...))
		}
	}
	if strings.Contains(saved, "\n:"+chain+" ") {
		undo = append(undo, []string{"-w", "-t", "filter", "-F", chain}, []string{"-w", "-t", "filter", "-X", chain})
	}
	return undo
}

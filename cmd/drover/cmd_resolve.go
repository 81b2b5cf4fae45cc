package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
)

var pageResolve = page{
	use:   "resolve MIGRATION",
	short: "decide for a host that is gone, where a migration waits for it",
	long: `A migration that has its verdict waits for both hosts, as long as it takes: silence proves nothing, and a tree that is held costs memory, not correctness. If a host will never come back, somebody who can look must say so.

Without a decision it asks both hosts, and says what is known, what may be decided, what must be done before that, and what follows. A host that has booted again needs nobody's word: start its worker, and its new boot id is the proof. A migration that has no verdict yet gets one by itself, and drover abort gets it one now.

With a decision it asks the person at the terminal to type the name of the host that they vouch for, or takes --vouch. The decision goes through the replicated log like any other, and only if the migration still stands where it was looked at; who decided (by the key of the connection), when, why, and what both hosts had said stays in the record: drover prove prints it. It is refused if the migration does not wait, or if the host answers. It takes an admin.

Only one of these decisions can do harm. If a target is said to be dead after COMMIT and is not, two copies run: power it off first. If a target is said to be alive and is not, the tree is lost.

Whole hosts are removed with drover host rm, coordinators with drover cluster remove.`,
	example: `drover resolve web
drover resolve web --target-is-dead --vouch beta --reason "board burnt, power cut at 14:02, ticket 812"`,
	exits: exits{
		errs.NotFound: "there is no such migration, or the workload has never been in one",
		errs.Conflict: "nothing is to be decided: it has ended, or has no verdict yet, or has gone on meanwhile",
		errs.Refused:  "the evidence speaks against it: a host that would be taken for dead answers, say",
	},
}

func (a *app) cmdResolve() *cobra.Command {
	var req api.ResolveRequest
	chosen := map[api.Decision]*bool{}
	cmd := a.command(pageResolve, a.askOne(func(ctx context.Context, c *cluster, name string) error {
		m, err := lastMigrationOf(ctx, c, name)
		if err != nil {
			return err
		}
		if req.Decision == "" {
			s, err := c.Situation(ctx, m.ID)
			if err != nil {
				return err
			}
			return a.show(situationView(s))
		}
		if req.Vouch == "" {
			if req.Vouch, err = a.vouch(ctx, c, m, req.Decision); err != nil {
				return err
			}
		}
		if m, err = c.Resolve(ctx, m.ID, req); err != nil {
			return err
		}
		a.say("recorded: %s is %s now; drover watch %s", m.ID, m.Phase, m.ID)
		return a.show(migrationView(m))
	}))
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for d, on := range chosen {
			if !*on {
				continue
			}
			if req.Decision != "" {
				return badUse(cmd, "--%s and --%s are two decisions", min(req.Decision, d), max(req.Decision, d))
			}
			req.Decision = d
		}
		switch {
		case req.Decision == "" && (req.Vouch != "" || req.Reason != ""):
			return badUse(cmd, "--vouch and --reason are for a decision, and none is given")
		case req.Decision != "" && req.Reason == "":
			return badUse(cmd, "--reason is missing: why it was decided stays in the record")
		case req.Decision != "" && req.Vouch == "" && (!a.asks || a.json):
			return badUse(cmd, "--vouch is missing, and there is nobody to ask")
		}
		return nil
	}
	flags := cmd.Flags()
	for d, text := range map[api.Decision]string{
		api.TargetIsDead:  "nothing of the tree runs on the target or ever will: you have powered it off; after COMMIT the source goes on",
		api.TargetIsAlive: "the tree runs on the target: you have looked; the source ends its own",
		api.SourceIsDead:  "the source will not come back: the migration ends without it",
	} {
		chosen[d] = flags.Bool(string(d), false, text)
	}
	flags.StringVar(&req.Vouch, "vouch", "", "the name of the host that the decision is about: your word for it; asked for if there is a terminal")
	flags.StringVar(&req.Reason, "reason", "", "why, for the record: at most 500 bytes")
	return cmd
}

// vouch has the person read what follows and type the host's name.
func (a *app) vouch(ctx context.Context, c api.Coordinator, m api.Migration, d api.Decision) (string, error) {
	s, err := c.Situation(ctx, m.ID)
	if err != nil {
		return "", err
	}
	for _, choice := range s.Choices {
		if choice.Decision != d {
			continue
		}
		a.say("before:  %s\nthen:    %s", choice.First, choice.Then)
		a.question(fmt.Sprintf("that the %s is yours to answer for. Type the host's name to vouch for it: ", decisionText(d, choice.Host)))
		defer a.answered()
		name, err := a.typed(ctx)
		if err == nil && name != choice.Host {
			err = errs.New(errs.Failed, "nothing was decided: %q is not %q", name, choice.Host)
		}
		return name, err
	}
	if d.About() == migration.Source {
		return m.Source, nil
	}
	return m.Target, nil // the coordinator says why it cannot be decided
}

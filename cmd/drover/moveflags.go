package main

import (
	"errors"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"drover/configs"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// moveFlags are the choices a move leaves to the user. What no flag says comes from the client's configuration.
type moveFlags struct {
	flags       *pflag.FlagSet
	final       finalState
	sourceFinal finalState
	strict      bool
	patience    time.Duration
	throttle    int
	freeze      time.Duration
	migrate     configs.Migrate
}

// common adds the flags of every verb that moves something.
func (m *moveFlags) common(flags *pflag.FlagSet) {
	m.flags = flags
	d := configs.DefaultClient().Migrate
	flags.DurationVar(&m.migrate.Downtime, "downtime", d.Downtime, "freeze the tree once the predicted blackout is within it")
	flags.StringVar(&m.migrate.Policy, "policy", d.Policy, "gentle, fast or must-move: the defaults of what follows; see below")
	flags.BoolVar(&m.strict, "strict", false, "fail instead of freezing it when --downtime cannot be met; else by policy")
	flags.DurationVar(&m.patience, "patience", 0, "how long to wait for a quiet moment when --downtime cannot be met; else by policy")
	flags.IntVar(&m.throttle, "throttle", 0, "percent of its time, up to 80, that may be taken from a tree that writes too much; else by policy")
	flags.IntVar(&m.migrate.MaxRounds, "max-rounds", d.MaxRounds, "rounds of copying while the tree runs, 1 to 64; else by policy")
	flags.DurationVar(&m.freeze, "freeze-deadline", 0, "from the freeze to the verdict; then it is rolled back; else by the blackout that is expected, at least 30s")
	flags.StringVar(&m.migrate.Tracker, "tracker", d.Tracker, "how changed pages are found: wp, softdirty or hash; else the best there is")
	flags.StringVar(&m.migrate.Compression, "compression", d.Compression, "none, s2 or zstd; else by link and processors")
	flags.StringVar(&m.migrate.Fill, "fill", d.Fill, "held: the target's memory is in place before the tree runs; running: it is filled in while the tree runs; else by its size")
	flags.Var(&m.migrate.Bandwidth, "bandwidth", "bytes a second on the wire while the tree runs, as 100MB; the cut-over is not limited; 0 is no limit; else by policy")
	flags.DurationVar(&m.migrate.Probation, "probation", d.Probation, "how long the source is held after the release")
}

// single adds those of a verb that moves one workload.
func (m *moveFlags) single(flags *pflag.FlagSet) {
	flags.Var(&m.final, "final-state", "what the target's tree is left as: running or stopped (default running)")
	flags.Var(&m.sourceFinal, "source-final-state", "what the source's tree is left as in the end: dead, or stopped and fenced (default dead)")
	flags.DurationVar(&m.migrate.Deadline, "deadline", configs.DefaultClient().Migrate.Deadline, "for all up to the verdict; then it is rolled back")
}

// check refuses what makes no sense before anything is asked.
func (m *moveFlags) check() error {
	if err := m.final.resolve(migration.OpRestore); err != nil {
		return err
	}
	if err := m.sourceFinal.resolve(migration.OpMigrationDump); err != nil {
		return err
	}
	c := configs.DefaultClient()
	c.Migrate = m.migrate
	if c.Migrate.Deadline == 0 {
		c.Migrate.Deadline = configs.DefaultClient().Migrate.Deadline
	}
	if err := flagError(c.Validate()); err != nil {
		return err
	}
	if m.flags.Changed("max-rounds") && m.migrate.MaxRounds == 0 {
		return errs.New(errs.Invalid, "--max-rounds: 0 is not between 1 and 64")
	}
	return m.options(m.migrate).Check()
}

// flagError says what is wrong by the flags' names instead of the configuration's keys.
func flagError(err error) error {
	var problems configs.Problems
	if !errors.As(err, &problems) {
		return err
	}
	said := make([]string, len(problems))
	for i, p := range problems {
		said[i] = "--" + strings.ReplaceAll(strings.TrimPrefix(p.Key, "migrate."), "_", "-") + ": " + p.What
	}
	return errs.New(errs.Invalid, "%s", strings.Join(said, "; "))
}

// options are what to ask for: flags that were given, else the configuration.
func (m *moveFlags) options(cfg configs.Migrate) workerapi.MoveOptions {
	o := workerapi.MoveOptions{
		Policy: migration.Policy(cfg.Policy), FinalState: migration.FinalState(m.final), SourceFinalState: migration.FinalState(m.sourceFinal),
		FreezeDeadline: m.freeze, Downtime: cfg.Downtime, MaxRounds: cfg.MaxRounds, Tracker: cfg.Tracker, Compression: cfg.Compression, Fill: cfg.Fill,
		Bandwidth: int64(cfg.Bandwidth), Probation: cfg.Probation, Deadline: cfg.Deadline,
	}
	for name, take := range map[string]func(){
		"policy":      func() { o.Policy = migration.Policy(m.migrate.Policy) },
		"strict":      func() { o.DowntimeStrict = &m.strict },
		"patience":    func() { o.Patience = &m.patience },
		"throttle":    func() { o.Throttle = &m.throttle },
		"downtime":    func() { o.Downtime = m.migrate.Downtime },
		"max-rounds":  func() { o.MaxRounds = m.migrate.MaxRounds },
		"tracker":     func() { o.Tracker = m.migrate.Tracker },
		"compression": func() { o.Compression = m.migrate.Compression },
		"fill":        func() { o.Fill = m.migrate.Fill },
		"bandwidth":   func() { o.Bandwidth = limitOf(m.migrate.Bandwidth) },
		"probation":   func() { o.Probation = m.migrate.Probation },
	} {
		if m.flags.Changed(name) {
			take()
		}
	}
	if m.migrate.Deadline != 0 && m.flags.Changed("deadline") {
		o.Deadline = m.migrate.Deadline
	}
	return o
}

// limitOf is a bandwidth that was asked for: none is not the same as none asked for.
func limitOf(s configs.Size) int64 {
	if s == 0 {
		return workerapi.Unlimited
	}
	return int64(s)
}

// within is a duration flag's check.
func within(d, limit time.Duration) bool { return d >= 0 && d <= limit }

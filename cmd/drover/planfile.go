package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"drover/configs"
	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// maxPlan bounds a plan's file, in bytes: 10,000 moves with all options fit.
const maxPlan = 8 << 20

// planFile is a plan as people write it.
type planFile struct {
	Name       string        `yaml:"name"`
	Migrations []planMove    `yaml:"migrations"`
	Parallel   int           `yaml:"parallel"`
	PerSource  int           `yaml:"per_source"`
	PerTarget  int           `yaml:"per_target"`
	OnFailure  string        `yaml:"on_failure"`
	StartAt    time.Time     `yaml:"start_at"`
	Cron       string        `yaml:"cron"`
	Deadline   time.Duration `yaml:"deadline"`
}

type planMove struct {
	Workload string      `yaml:"workload"`
	To       string      `yaml:"to"`
	Options  planOptions `yaml:"options"`
}

type planOptions struct {
	Policy           migration.Policy     `yaml:"policy"`
	FinalState       migration.FinalState `yaml:"final_state"`
	SourceFinalState migration.FinalState `yaml:"source_final_state"`
	MaxRounds        int                  `yaml:"max_rounds"`
	Downtime         time.Duration        `yaml:"downtime"`
	Strict           *bool                `yaml:"strict"`
	Patience         *time.Duration       `yaml:"patience"`
	Throttle         *int                 `yaml:"throttle"`
	Tracker          string               `yaml:"tracker"`
	Compression      string               `yaml:"compression"`
	Fill             string               `yaml:"fill"`
	Bandwidth        *planSize            `yaml:"bandwidth"`
	Probation        time.Duration        `yaml:"probation"`
	Deadline         time.Duration        `yaml:"deadline"`
	FreezeDeadline   time.Duration        `yaml:"freeze_deadline"`
}

// planSize reads sizes as the configuration does.
type planSize configs.Size

func (s *planSize) UnmarshalYAML(n *yaml.Node) error {
	size, err := configs.ParseSize(n.Value)
	if err != nil {
		return errs.New(errs.Invalid, "line %d: %w", n.Line, err)
	}
	*s = planSize(size)
	return nil
}

// readPlan reads a plan's file, "-" for standard input, strictly.
func (a *app) readPlan(file string) (api.PlanSpec, error) {
	text, err := a.planText(file)
	if err != nil {
		return api.PlanSpec{}, err
	}
	var p planFile
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&p); err != nil {
		return api.PlanSpec{}, badPlan(file, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return api.PlanSpec{}, errs.New(errs.Invalid, "plan %s holds more than one document", file)
	}
	return p.spec(file)
}

func (a *app) planText(file string) ([]byte, error) {
	in := a.in
	if file != "-" {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errs.New(errs.NotFound, "there is no plan %s", file).WithNext("drover apply --help shows what one looks like")
		}
		if err != nil {
			return nil, errs.New(errs.Failed, "read the plan: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPlan+1))
	switch {
	case err != nil:
		return nil, errs.New(errs.Failed, "read the plan %s: %w", file, err)
	case len(text) > maxPlan:
		return nil, errs.New(errs.Invalid, "plan %s is larger than %d bytes", file, maxPlan)
	}
	return text, nil
}

var unknownKey = regexp.MustCompile(`field (\S+) not found in type \S+`)

// badPlan says what is wrong in the words of the file, on one line.
func badPlan(file string, err error) error {
	if errors.Is(err, io.EOF) {
		return errs.New(errs.Invalid, "plan %s is empty", file).WithNext("drover apply --help shows what one looks like")
	}
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ")
	text = unknownKey.ReplaceAllString(text, "there is no key $1")
	for from, to := range map[string]string{
		"into main.planFile": "as a plan", "into []main.planMove": "as a list of moves", "into main.planMove": "as a move",
		"into main.planOptions": "as options", "into time.Duration": "as a duration such as 5m", "into int": "as a number", "into time.Time": "as a time",
		"cannot unmarshal !!": "cannot read a ",
	} {
		text = strings.ReplaceAll(text, from, to)
	}
	return errs.New(errs.Invalid, "plan %s: %s", file, strings.ReplaceAll(text, "\n  ", "; ")).
		WithNext("drover apply --help shows what a plan looks like")
}

// spec is the plan as the cluster takes it; what only the cluster can know is checked there.
func (p planFile) spec(file string) (api.PlanSpec, error) {
	s := api.PlanSpec{
		Name: p.Name, Parallel: p.Parallel, PerSource: p.PerSource, PerTarget: p.PerTarget, OnFailure: p.OnFailure,
		StartAt: p.StartAt, Cron: p.Cron, Deadline: p.Deadline,
	}
	if len(p.Migrations) == 0 {
		return s, errs.New(errs.Invalid, "plan %s has no migrations", file).WithNext("drover apply --help shows what one looks like")
	}
	for i, m := range p.Migrations {
		if m.Workload == "" || m.To == "" {
			return s, errs.New(errs.Invalid, "plan %s: move %d does not say both workload and to", file, i+1)
		}
		if err := m.Options.options().Check(); err != nil {
			return s, errs.New(errs.Invalid, "plan %s: move %d, %s: %w", file, i+1, m.Workload, err).WithNext("%s", errs.NextOf(err))
		}
		s.Migrations = append(s.Migrations, api.PlanItem{Workload: m.Workload, To: m.To, Options: m.Options.options()})
	}
	return s, nil
}

func (o planOptions) options() workerapi.MoveOptions {
	out := workerapi.MoveOptions{
		Policy: o.Policy, FinalState: o.FinalState, SourceFinalState: o.SourceFinalState, MaxRounds: o.MaxRounds, Downtime: o.Downtime,
		DowntimeStrict: o.Strict, Patience: o.Patience, Throttle: o.Throttle, Tracker: o.Tracker, Compression: o.Compression, Fill: o.Fill,
		Probation: o.Probation, Deadline: o.Deadline, FreezeDeadline: o.FreezeDeadline,
	}
	if o.Bandwidth != nil {
		out.Bandwidth = limitOf(configs.Size(*o.Bandwidth))
	}
	return out
}

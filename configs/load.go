package configs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"drover/internal/errs"
)

// LoadWorker is a worker's configuration from file ("" is none), the environment and flags (nil is none), later ones
// overruling earlier ones. Errors name the key and where its value stands.
func LoadWorker(file string, flags *pflag.FlagSet) (Worker, error) {
	c := DefaultWorker()
	err := load(&c, file, flags)
	return c, err
}

// LoadCoordinator is LoadWorker for a coordinator.
func LoadCoordinator(file string, flags *pflag.FlagSet) (Coordinator, error) {
	c := DefaultCoordinator()
	err := load(&c, file, flags)
	return c, err
}

// LoadClient is LoadWorker for the operator's verbs.
func LoadClient(file string, flags *pflag.FlagSet) (Client, error) {
	c := DefaultClient()
	err := load(&c, file, flags)
	return c, err
}

type validated interface{ Validate() error }

func load(cfg validated, file string, flags *pflag.FlagSet) error {
	leaves := fields(cfg)
	var said read
	if file != "" {
		var err error
		if said, err = readFile(file, leaves); err != nil {
			return wrap(file, err)
		}
	}
	v, err := sources(leaves, said, flags)
	if err != nil {
		return wrap(file, err)
	}
	origin := origins{file: filepath.Base(file), lines: said.lines, leaves: leaves, flags: flags}
	var p Problems
	for _, f := range leaves {
		if !v.IsSet(f.key) {
			continue
		}
		if err := f.set(v.Get(f.key)); err != nil {
			p = append(p, Problem{f.key, origin.of(f.key), err.Error()})
		}
	}
	var wrong Problems
	if errors.As(cfg.Validate(), &wrong) {
		for _, w := range wrong {
			w.Origin = origin.of(w.Key)
			p = append(p, w)
		}
	}
	return wrap(file, p.err())
}

// sources stacks them as viper does: a flag that was given, then the environment, then the file.
func sources(leaves []field, said read, flags *pflag.FlagSet) (*viper.Viper, error) {
	v := viper.New()
	v.SetEnvPrefix("DROVER")
	v.SetEnvKeyReplacer(strings.NewReplacer(".", "_"))
	v.AutomaticEnv()
	file := map[string]any{}
	for key, value := range said.values {
		nest(file, strings.Split(key, "."), value)
	}
	if err := v.MergeConfigMap(file); err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	for _, f := range leaves {
		if flags == nil {
			break
		}
		if flag := flags.Lookup(f.flag()); flag != nil {
			if err := v.BindPFlag(f.key, flag); err != nil {
				return nil, errs.New(errs.Failed, "flag --%s: %w", flag.Name, err)
			}
		}
	}
	return v, nil
}

func nest(into map[string]any, path []string, value any) {
	for ; len(path) > 1; path = path[1:] {
		inner, ok := into[path[0]].(map[string]any)
		if !ok {
			inner = map[string]any{}
			into[path[0]] = inner
		}
		into = inner
	}
	into[path[0]] = value
}

// origins knows where each value came from.
type origins struct {
	file   string
	lines  map[string]int
	leaves []field
	flags  *pflag.FlagSet
}

func (o origins) of(key string) string {
	for _, f := range o.leaves {
		if f.key != key {
			continue
		}
		if o.flags != nil && o.flags.Changed(f.flag()) {
			return "--" + f.flag()
		}
		if value, ok := os.LookupEnv(f.env()); ok && value != "" {
			return f.env()
		}
	}
	if line := o.lines[key]; line > 0 {
		return fmt.Sprintf("%s:%d", o.file, line)
	}
	return ""
}

// wrap makes a list of problems one error that names the file.
func wrap(file string, err error) error {
	var p Problems
	if !errors.As(err, &p) {
		return err
	}
	if file == "" {
		return errs.New(errs.Invalid, "configuration: %s", p)
	}
	return errs.New(errs.Invalid, "configuration %s: %s", file, p).WithNext(seeSample)
}

package configs

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/pflag"
)

// Flags adds a flag for each key of cfg, a pointer to one of this package's configurations with its defaults: --state-dir
// for state_dir, --log-level for log.level. A flag that is given overrules the environment and the file.
func Flags(flags *pflag.FlagSet, cfg any) {
	for _, f := range fields(cfg) {
		own := reflect.New(f.value.Type()).Elem()
		own.Set(f.value)
		flags.Var(flagValue{field{f.key, f.help, own}}, f.flag(), f.help)
	}
}

// flagValue checks a flag's type when it is parsed.
type flagValue struct{ field }

func (v flagValue) Set(text string) error { return v.field.set(text) }
func (v flagValue) Type() string          { return v.kind() }
func (v flagValue) String() string {
	if !v.value.IsValid() {
		return ""
	}
	switch value := v.value.Interface().(type) {
	case []string:
		return strings.Join(value, ",")
	case fmt.Stringer:
		return value.String()
	}
	return fmt.Sprint(v.value.Interface())
}

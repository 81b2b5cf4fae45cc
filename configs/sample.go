package configs

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"drover/internal/errs"
)

//go:embed worker.yaml coordinator.yaml client.yaml
var samples embed.FS

// Kinds are the configurations there are.
var Kinds = []string{"worker", "coordinator", "client"}

// Sample is the commented sample file of a kind; its values are the defaults.
func Sample(kind string) ([]byte, error) {
	text, err := samples.ReadFile(kind + ".yaml")
	if err != nil {
		return nil, errs.New(errs.Invalid, "there is no configuration of kind %q", kind).WithNext("choose one of %s", strings.Join(Kinds, ", "))
	}
	return text, nil
}

// Write writes cfg, a pointer to one of this package's configurations, to a new file, mode 0600: each value that is not the
// default, with its meaning. by says who wrote it. A file that exists is left as it is and an errs.Conflict error.
func Write(file, by string, cfg validated) error {
	// Others may look into it: a coordinator is not root, and what is secret is in files of mode 0600.
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // see above
		return errs.New(errs.Failed, "write configuration: %w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		return errs.New(errs.Conflict, "%s exists already", file).WithNext("move it away, or name another file")
	}
	if err != nil {
		return errs.New(errs.Failed, "write configuration: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(render(by, cfg)); err != nil {
		return errs.New(errs.Failed, "write configuration %s: %w", file, err)
	}
	return f.Close()
}

func render(by string, cfg validated) string {
	kind, defaults := defaultsOf(cfg)
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by %s. What is not here is the default: `drover config sample %s` shows all keys.\n", by, kind)
	section := ""
	for i, f := range fields(cfg) {
		if reflect.DeepEqual(f.value.Interface(), defaults[i].value.Interface()) {
			continue
		}
		indent, key := "", f.key
		if outer, inner, nested := strings.Cut(f.key, "."); nested {
			if outer != section {
				fmt.Fprintf(&b, "\n%s:", outer)
			}
			section, indent, key = outer, "  ", inner
		}
		fmt.Fprintf(&b, "\n%s# %s\n%s%s: %s\n", indent, f.help, indent, key, f.yaml())
	}
	return b.String()
}

// yaml is the leaf's value as it stands in a file.
func (f field) yaml() string {
	switch v := f.value.Interface().(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = fmt.Sprintf("%q", s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return fmt.Sprint(f.value.Interface())
}

// defaultsOf is the kind of a configuration and its leaves as they are by default.
func defaultsOf(cfg validated) (kind string, leaves []field) {
	switch cfg.(type) {
	case *Worker:
		c := DefaultWorker()
		return "worker", fields(&c)
	case *Coordinator:
		c := DefaultCoordinator()
		return "coordinator", fields(&c)
	}
	c := DefaultClient()
	return "client", fields(&c)
}

package configs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"drover/internal/errs"
)

func TestSamplesShowEveryKeyWithItsDefault(t *testing.T) {
	worker, coordinator, client := DefaultWorker(), DefaultCoordinator(), DefaultClient()
	for kind, cfg := range map[string]any{"worker": &worker, "coordinator": &coordinator, "client": &client} {
		leaves := fields(cfg)
		said, err := readFile(kind+".yaml", leaves)
		if err != nil {
			t.Errorf("%s.yaml: %v", kind, err)
			continue
		}
		for _, f := range leaves {
			v, ok := said.values[f.key]
			if !ok {
				t.Errorf("%s.yaml does not show %s", kind, f.key)
				continue
			}
			want := f.value.Interface()
			if err := f.set(v); err != nil {
				t.Errorf("%s.yaml: %s: %v", kind, f.key, err)
			}
			if diff := cmp.Diff(want, f.value.Interface()); diff != "" {
				t.Errorf("%s.yaml: %s is not the default (-default +sample):\n%s", kind, f.key, diff)
			}
			if f.help == "" {
				t.Errorf("%s has no help", f.key)
			}
		}
	}
}

func TestDefaultsAreValid(t *testing.T) {
	for name, c := range map[string]validated{"worker": DefaultWorker(), "coordinator": DefaultCoordinator(), "client": DefaultClient()} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEnvironmentOverrulesFileAndFlagsOverruleBoth(t *testing.T) {
	file := written(t, "name: from-file\nstate_dir: /from/file\nrun_dir: /run/file\nlog:\n  level: warn\n  format: json\n")
	t.Setenv("DROVER_STATE_DIR", "/from/env")
	t.Setenv("DROVER_RUN_DIR", "/run/env")
	t.Setenv("DROVER_LOG_LEVEL", "error")
	t.Setenv("DROVER_COORDINATORS", "c1:7201, c2:7201")
	flags := pflag.NewFlagSet("worker", pflag.ContinueOnError)
	defaults := DefaultWorker()
	Flags(flags, &defaults)
	if err := flags.Parse([]string{"--run-dir", "/run/flag", "--memory-limit=2GiB"}); err != nil {
		t.Fatal(err)
	}
	got, err := LoadWorker(file, flags)
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultWorker()
	want.Name, want.StateDir, want.RunDir = "from-file", "/from/env", "/run/flag"
	want.Coordinators, want.MemoryLimit = []string{"c1:7201", "c2:7201"}, 2<<30
	want.Log = Log{Level: "error", Format: "json"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGarbageIsRefusedWithKeyAndPlace(t *testing.T) {
	for _, c := range []struct {
		why, text string
		say       []string
	}{
		{"an unknown key", "lisen: ':1'", []string{"lisen (w.yaml:1): there is no such key, did you mean listen?"}},
		{"an unknown nested key", "log:\n  lvl: info", []string{"log.lvl (w.yaml:2): there is no such key", "log.level"}},
		{"a word for a size", "memory_limit: lots", []string{`memory_limit (w.yaml:1): "lots" is not a size`}},
		{"a number for text", "name: 12", []string{"name (w.yaml:1): text is expected here, not 12"}},
		{"one value for a list", "coordinators: a:1", []string{"coordinators (w.yaml:1): a list is expected here"}},
		{"a list for one value", "listen: [a]", []string{"listen (w.yaml:1): a list stands"}},
		{"keys for one value", "listen: {a: b}", []string{"listen (w.yaml:1): a text is expected here, not keys"}},
		{"a value for keys", "log: loud", []string{"log (w.yaml:1): keys and their values are expected"}},
		{"no value", "listen:", []string{"listen (w.yaml:1): has no value"}},
		{"a key twice", "listen: ':1'\nlisten: ':2'", []string{"listen", "second time"}},
		{"an impossible address", "listen: nowhere", []string{`listen (w.yaml:1): "nowhere" is not of the form host:port`}},
		{"several at once", "state_dir: here\nlog: {level: loud}\n", []string{"state_dir (w.yaml:1)", "log.level (w.yaml:2)", `"loud" is none of`}},
		{"a disk that is nowhere", "store_spill: stores", []string{"store_spill (w.yaml:1)"}},
		{"less than nothing for stores", "store_memory: -1", []string{"store_memory (w.yaml:1)"}},
		{"two directories in one", "state_dir: /a\nrun_dir: /a", []string{"run_dir (w.yaml:2): is the same directory"}},
		{"no YAML", "\tlisten", []string{"is not YAML"}},
		{"a list at the top", "- a", []string{"keys and their values are expected here"}},
		{"two documents", "name: a\n---\nname: b", []string{"more than one document"}},
		{"binary", "\x7fELF\x02\x01", []string{"is no text: byte 5 is 0x02"}},
		{"another encoding", "\xff\xfen\x00", []string{"is no text: byte 1 is 0xff"}},
		{"nothing", "", []string{"is empty"}},
		{"nothing but blanks", " \n\n", []string{"is empty"}},
		{"JSON that breaks off", `{"listen": `, []string{"is not YAML: line 1"}},
		{"JSON of something else", `{"a": [1, {}]}`, []string{"a (w.yaml:1): there is no such key"}},
		{"a word", "hello", []string{": w.yaml:1: keys and their values are expected here"}},
	} {
		file := filepath.Join(t.TempDir(), "w.yaml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadWorker(file, nil)
		if err == nil {
			t.Errorf("%s is taken", c.why)
			continue
		}
		for _, say := range append(c.say, file) {
			if !strings.Contains(err.Error(), say) {
				t.Errorf("%s: %q does not say %q", c.why, err, say)
			}
		}
		if strings.Contains(err.Error(), "\n") || errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %q is not one line of kind invalid", c.why, err)
		}
	}
}

func TestABadValueInTheEnvironmentNamesItsVariable(t *testing.T) {
	t.Setenv("DROVER_MIGRATE_DOWNTIME", "soon")
	_, err := LoadClient("", nil)
	if err == nil || !strings.Contains(err.Error(), `migrate.downtime (DROVER_MIGRATE_DOWNTIME): "soon" is not a duration`) {
		t.Errorf("got %v", err)
	}
}

func TestADirectoryIsNoConfiguration(t *testing.T) {
	dir := t.TempDir()
	_, err := LoadClient(dir, nil)
	if errs.KindOf(err) != errs.Invalid || err.Error() != "configuration "+dir+" is a directory, not a file" || errs.NextOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

func TestAMissingFileIsNotFound(t *testing.T) {
	if _, err := LoadClient(filepath.Join(t.TempDir(), "no.yaml"), nil); errs.KindOf(err) != errs.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestWrittenConfigurationsAreReadBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "client.yaml")
	want := DefaultClient()
	want.Coordinators, want.Identity = []string{"alpha:7201", "[::1]:7201"}, "/home/a \"b\"/key"
	want.Authority = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2Q2sBCqFTPNHYqSzqq2WLGhfy0Fe5Vg5EPBHhVIcqe"
	want.Migrate.Downtime, want.Migrate.Bandwidth = time.Second, 100e6
	if err := Write(file, "a test", &want); err != nil {
		t.Fatal(err)
	}
	got, err := LoadClient(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := Write(file, "a test", &want); errs.KindOf(err) != errs.Conflict {
		t.Errorf("written over a file: %v", err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "12": 12, "7B": 7, "1kB": 1000, "1.5 MB": 1500000, "512MiB": 512 << 20, "2GiB": 2 << 30, "3TB": 3e12} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
		if back, err := ParseSize(got.String()); err != nil || back != got {
			t.Errorf("%q becomes %q becomes %d", text, got, back)
		}
	}
	for _, text := range []string{"", "MB", "-1", "1e30TB", "NaN", "12 PB", "0x10"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
}

func TestProblemsCanBeLookedAt(t *testing.T) {
	c := DefaultCoordinator()
	c.StateDir, c.Log.Format = "", "xml"
	var p Problems
	if !errors.As(c.Validate(), &p) || len(p) != 2 || p[0].Key != "log.format" || p[1].Key != "state_dir" {
		t.Errorf("got %v", c.Validate())
	}
}

func written(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "worker.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

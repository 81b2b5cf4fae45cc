package mutations

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	schedules = flag.Int("schedules", 50_000, "how many schedules the simulator may need for a breakage")
	only      = flag.String("breakage", "", "try only those whose name this regular expression matches")
	keep      = flag.Bool("keep", false, "keep the simulator's schedules in its testdata")
	all       = flag.Bool("all", false, "try the breakages, which takes minutes")
)

const root = "../.."

func TestTheBreakagesAreOfFilesAsTheyAre(t *testing.T) {
	for _, b := range breakages {
		if _, err := b.broken(); err != nil {
			t.Errorf("%s: %v", b.name, err)
		}
	}
	if len(breakages) < 15 {
		t.Errorf("%d breakages are few", len(breakages))
	}
}

// TestEveryBreakageIsCaught tries them all.
func TestEveryBreakageIsCaught(t *testing.T) {
	if !*all {
		t.Log("the breakages themselves are tried by `make mutations`")
		return
	}
	const row = "%-76s %-24s %9s %6s  %s\n"
	fmt.Printf(row, "breakage", "caught by", "schedules", "trace", "as")
	for _, b := range breakages {
		if ok, err := regexp.MatchString(*only, b.name); err != nil || !ok {
			continue
		}
		c, err := b.try(t)
		if err != nil {
			t.Errorf("%s: %v", b.name, err)
			continue
		}
		fmt.Printf(row, b.name, c.by, c.schedules, c.lines, c.as)
	}
}

// catch is how a breakage was noticed.
type catch struct{ by, schedules, lines, as string }

// broken are the files as the breakage leaves them.
func (b breakage) broken() (map[string]string, error) {
	files := map[string]string{}
	for _, e := range b.edits {
		text, ok := files[e.file]
		if !ok {
			raw, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				return nil, err
			}
			text = string(raw)
		}
		if n := strings.Count(text, e.from); n != 1 {
			return nil, fmt.Errorf("%s has %d times %q", e.file, n, e.from)
		}
		files[e.file] = strings.Replace(text, e.from, e.to, 1)
	}
	return files, nil
}

// try runs the named tests with the breakage, or builds the simulator with it and runs that.
func (b breakage) try(t *testing.T) (catch, error) {
	overlay, err := b.overlay(t.TempDir())
	if err != nil {
		return catch{}, err
	}
	if b.test != "" {
		return b.tested(t, overlay)
	}
	said, failed, err := run(t.Context(), "test", "-overlay", overlay, "-vet", "off", "-count", "1", "-run", "Whatever", "./testenv/sim", "-schedules", fmt.Sprint(*schedules))
	if err != nil {
		return catch{}, err
	}
	if m := failure.FindStringSubmatch(said); failed && m != nil {
		_, trace, _ := strings.Cut(said, m[0])
		trace, _, _ = strings.Cut(trace, "\nFAIL")
		if *keep {
			kept := filepath.Join(root, "testenv/sim/testdata", strings.ReplaceAll(strings.ToLower(b.name), " ", "-")+".txt")
			if err := os.WriteFile(kept, []byte("With this on purpose: "+b.name+".\n"+strings.TrimSpace(m[0])+"\n"+trimmed(trace)+"\n"), 0o600); err != nil {
				return catch{}, err
			}
		}
		return catch{"the simulator", m[1], fmt.Sprint(strings.Count(trace, "\n")), m[2]}, nil
	}
	return catch{}, fmt.Errorf("not caught by the simulator in %d schedules:\n%s", *schedules, said)
}

// tested runs the tests that are to notice it.
func (b breakage) tested(t *testing.T, overlay string) (catch, error) {
	said, failed, err := run(t.Context(), "test", "-overlay", overlay, "-vet", "off", "-count", "1", b.test)
	if err != nil {
		return catch{}, err
	}
	m := test.FindStringSubmatch(said)
	if !failed || m == nil {
		return catch{}, fmt.Errorf("not caught by %s:\n%s", b.test, said)
	}
	return catch{b.test, "", "", m[1]}, nil
}

var (
	failure = regexp.MustCompile(`seed (\d+): (.*) \(\d+ choices\)\n`)
	test    = regexp.MustCompile(`--- FAIL: (\w+)`)
)

// trimmed takes off the indentation of a test's output.
func trimmed(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimPrefix(strings.TrimRight(line, "\n"), "        "))
	}
	return strings.Join(lines, "\n")
}

// overlay writes the broken files, and what the go command must know to take them for the true ones.
func (b breakage) overlay(dir string) (string, error) {
	files, err := b.broken()
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, text := range files {
		there, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			return "", err
		}
		here := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(here, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[there] = here
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, list, 0o600)
}

// run is the go command in the module's root; failed says that tests did.
func run(ctx context.Context, args ...string) (said string, failed bool, err error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	said = string(out)
	if err == nil {
		return said, false, nil
	}
	if strings.Contains(said, "[build failed]") || strings.Contains(said, "[setup failed]") {
		return said, false, fmt.Errorf("it does not build:\n%s", said)
	}
	return said, true, nil
}

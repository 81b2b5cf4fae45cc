package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"drover/configs"
	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	"drover/worker/session/rules"
)

// TestDocuments holds that what the documents take from the code is what the code says. `go generate ./cmd/drover` rewrites it.
func TestDocuments(t *testing.T) {
	for file, parts := range map[string]map[string]string{
		"cli.md":           {"verbs": verbsDoc(), "exit-codes": exitsDoc()},
		"protocol.md":      {"diagram": diagramDoc(), "table": tableDoc(), "programs": programsDoc()},
		"final-states.md":  {"final-states": finalStatesDoc()},
		"security.md":      {"routes": routesDoc()},
		"configuration.md": {"worker": sampleDoc(t, "worker"), "coordinator": sampleDoc(t, "coordinator"), "client": sampleDoc(t, "client")},
	} {
		t.Run(file, func(t *testing.T) { holds(t, filepath.Join("..", "..", "docs", file), parts) })
	}
}

// holds compares each generated part of a document, between its two comments, with what it should be.
func holds(t *testing.T, file string, parts map[string]string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	now := string(text)
	for name, want := range parts {
		begin, end := "<!-- generated: "+name+" -->\n", "<!-- end: "+name+" -->\n"
		before, rest, ok := strings.Cut(now, begin)
		got, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Errorf("%s has no part %q", file, name)
			continue
		}
		if diff := cmp.Diff(got, "\n"+want+"\n"); diff != "" && !*update {
			t.Errorf("%s, %s, differs from the code; run go generate ./cmd/drover (-file +code):\n%s", file, name, diff)
		}
		now = before + begin + "\n" + want + "\n" + end + after
	}
	if *update && now != string(text) {
		if err := os.WriteFile(file, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// programsDoc is what sessions do, op by op.
func programsDoc() string {
	var b strings.Builder
	fmt.Fprint(&b, "| side | when | in this order |\n|---|---|---|\n")
	for _, n := range rules.Listed() {
		var ops []string
		for _, op := range n.Program {
			ops = append(ops, op.String())
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", n.Side, n.When, strings.Join(ops, " · "))
	}
	return b.String()
}

// verbsDoc is the help of all verbs.
func verbsDoc() string {
	var b bytes.Buffer
	root := newRoot(&app{})
	for _, g := range groups {
		fmt.Fprintf(&b, "## %s\n\n", g.Title)
		for _, c := range root.Commands() {
			if c.GroupID == g.ID {
				verbDoc(&b, c)
			}
		}
	}
	return strings.TrimSpace(b.String()) + "\n"
}

func verbDoc(b *bytes.Buffer, cmd *cobra.Command) {
	if cmd.HasSubCommands() {
		for _, c := range cmd.Commands() {
			verbDoc(b, c)
		}
		return
	}
	fmt.Fprintf(b, "### %s\n\n%s\n\n    %s\n\n", cmd.CommandPath(), sentence(cmd.Short), usage(cmd))
	fmt.Fprintf(b, "%s\n\n", paragraphs(cmd.Long))
	own, _ := flagsOf(cmd)
	if len(own) > 0 {
		fmt.Fprint(b, "| flag | |\n|---|---|\n")
		for _, f := range own {
			flagDoc(b, f)
		}
		fmt.Fprintln(b)
	}
	fmt.Fprintf(b, "```sh\n%s\n```\n\n", cmd.Example)
	fmt.Fprint(b, "| exit code | |\n|---|---|\n")
	for line := range strings.SplitSeq(cmd.Annotations[exitsKey], "\n") {
		code, text, _ := strings.Cut(line, "  ")
		fmt.Fprintf(b, "| %s | %s |\n", code, escaped(text))
	}
	fmt.Fprintln(b)
}

func flagDoc(b *bytes.Buffer, f *pflag.Flag) {
	fmt.Fprintf(b, "| `%s` | %s |\n", flagName(f), escaped(flagText(f)))
}

func escaped(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

// paragraphs turns a help text into Markdown: words in angle brackets and pipes stay words, examples become code.
func paragraphs(text string) string {
	var out []string
	code := false
	for line := range strings.SplitSeq(text, "\n") {
		is := strings.HasPrefix(line, " ")
		if is != code && (is || line == "") {
			out = append(out, "```")
		}
		code = is
		out = append(out, line)
	}
	if code {
		out = append(out, "```")
	}
	return regexp.MustCompile("\n\n\n+").ReplaceAllString(strings.Join(out, "\n"), "\n\n")
}

func exitsDoc() string {
	var b strings.Builder
	b.WriteString("| code | kind | |\n|---|---|---|\n| 0 | | done; for what was done already, too |\n")
	meaning := map[errs.Kind]string{
		errs.NotFound: "a named workload, host, migration, plan or file does not exist", errs.Conflict: "the state forbids it now",
		errs.Refused: "a check said no: the doctor, memory, policy", errs.Aborted: "a migration was tried and rolled back; the workload is where it was",
	}
	for k := errs.Failed; k <= errs.Forbidden; k++ {
		text := meaning[k]
		for _, m := range []exits{everyExit, clusterExit} {
			if text == "" {
				text = m[k]
			}
		}
		fmt.Fprintf(&b, "| %d | %s | %s |\n", k.ExitCode(), k, text)
	}
	return b.String()
}

// diagramDoc is the protocol's table as a state diagram.
func diagramDoc() string {
	var b strings.Builder
	b.WriteString("```mermaid\nstateDiagram-v2\n    [*] --> " + string(migration.Table[0].From) + ": admitted by the doctor\n")
	for _, r := range migration.Table {
		fmt.Fprintf(&b, "    %s --> %s: %s\n", r.From, r.To, r.On)
	}
	done := map[migration.Phase]bool{}
	for _, r := range migration.Table {
		if r.To.Final() && !done[r.To] {
			done[r.To] = true
			fmt.Fprintf(&b, "    %s --> [*]\n", r.To)
		}
	}
	b.WriteString("```\n")
	return b.String()
}

// tableDoc is the protocol's table.
func tableDoc() string {
	var b strings.Builder
	b.WriteString("| from | event | to | record | source | target | undone by |\n|---|---|---|---|---|---|---|\n")
	for _, r := range migration.Table {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", r.From, r.On, r.To, r.Record, r.Source, r.Target, r.Undo)
	}
	return b.String()
}

// routesDoc says of each call of the coordinators who may make it.
func routesDoc() string {
	columns := []struct {
		title string
		who   pki.Principal
	}{
		{"viewer", pki.Principal{Role: pki.RoleOperator, Level: pki.LevelViewer}}, {"operator", pki.Principal{Role: pki.RoleOperator, Level: pki.LevelOperator}},
		{"admin", pki.Principal{Role: pki.RoleOperator, Level: pki.LevelAdmin}}, {"worker", pki.Principal{Role: pki.RoleWorker}},
		{"coordinator", pki.Principal{Role: pki.RoleCoordinator}}, {"expired worker", pki.Principal{Role: pki.RoleLapsed}},
		{"token", pki.Principal{Role: pki.RoleJoin, Level: pki.RoleWorker}}, {"transfer", pki.Principal{Role: pki.RoleTransfer}},
	}
	var b strings.Builder
	b.WriteString("| call |")
	for _, c := range columns {
		b.WriteString(" " + c.title + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, r := range api.Routes {
		fmt.Fprintf(&b, "| `%s` |", r.Pattern)
		for _, c := range columns {
			if r.Need.Admits(c.who) {
				b.WriteString(" yes |")
			} else {
				b.WriteString(" - |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func finalStatesDoc() string {
	var b strings.Builder
	b.WriteString("| operation | default | may be asked too |\n|---|---|---|\n")
	for _, op := range []migration.Operation{migration.OpPreDump, migration.OpMigrationDump, migration.OpSnapshotDump, migration.OpRestore} {
		states := migration.FinalStates(op)
		var more []string
		for _, s := range states[1:] {
			more = append(more, string(s))
		}
		if len(more) == 0 {
			more = []string{"nothing else"}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", op, states[0], strings.Join(more, ", "))
	}
	return b.String()
}

func sampleDoc(t *testing.T, kind string) string {
	t.Helper()
	text, err := configs.Sample(kind)
	if err != nil {
		t.Fatal(err)
	}
	return "```yaml\n" + string(text) + "```\n"
}

// TestSecurityNamesEveryFuzzTarget holds docs/security.md's list of what is read to the targets that there are, each with a corpus.
func TestSecurityNamesEveryFuzzTarget(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z/]+) (Fuzz[A-Za-z]+)`").FindAllStringSubmatch(string(text), -1) {
		named[m[1]+" "+m[2]] = true
	}
	target := regexp.MustCompile(`(?m)^func (Fuzz[A-Za-z]+)\(`)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		src, err := os.ReadFile(path)
		dir, _ := filepath.Rel(root, filepath.Dir(path))
		for _, m := range target.FindAllStringSubmatch(string(src), -1) {
			if !named[dir+" "+m[1]] {
				t.Errorf("%s %s is not in docs/security.md", dir, m[1])
			}
			if corpus, _ := os.ReadDir(filepath.Join(root, dir, "testdata", "fuzz", m[1])); len(corpus) == 0 {
				t.Errorf("%s %s has no corpus in testdata", dir, m[1])
			}
			delete(named, dir+" "+m[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range named {
		t.Errorf("docs/security.md names %s, which is not there", name)
	}
}

func TestEveryVerbIsExplained(t *testing.T) {
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			look(c)
		}
		if cmd.Hidden || !cmd.HasParent() {
			return
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: its short help is no short line", cmd.CommandPath())
		}
		if cmd.HasSubCommands() {
			return
		}
		if cmd.Long == "" || cmd.Example == "" || cmd.Annotations[exitsKey] == "" {
			t.Errorf("%s lacks a description, an example or exit codes", cmd.CommandPath())
		}
		if cmd.GroupID == "" && !cmd.Parent().HasParent() {
			t.Errorf("%s belongs to no group", cmd.CommandPath())
		}
	}
	look(newRoot(&app{}))
}

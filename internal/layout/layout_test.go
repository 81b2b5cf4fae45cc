// Package layout holds the shape of the source tree: who may import whom, and how every package introduces itself.
package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// forbidden lists imports that would bend the architecture: a package below the first path may not import one below the second.
var forbidden = []struct{ from, to, why string }{
	{"internal", "drover/cmd", "leaves know nobody"},
	{"internal", "drover/coordinator", "leaves know nobody"},
	{"internal", "drover/worker", "leaves know nobody"},
	{"internal", "drover/engine", "leaves know nobody"},
	{"internal", "drover/transfer", "leaves know nobody"},
	{"engine", "drover/transfer", "only worker/session joins an image to a stream"},
	{"transfer", "drover/engine", "only worker/session joins an image to a stream"},
	{"engine", "drover/worker", "the engine serves the worker"},
	{"transfer", "drover/worker", "the wire serves the worker"},
	{"engine", "drover/coordinator", "the engine knows no cluster"},
	{"transfer", "drover/coordinator", "the wire knows no cluster"},
	{"coordinator", "drover/engine/criu", "a coordinator never touches a tree"},
	{"coordinator", "drover/worker/session", "the coordinator reaches workers through worker/api only"},
	{"coordinator", "drover/worker/agent", "the coordinator reaches workers through worker/api only"},
	{"coordinator", "drover/worker/workloads", "the coordinator reaches workers through worker/api only"},
	{"worker", "drover/coordinator/record", "a worker knows the coordinator's api only"},
	{"worker", "drover/coordinator/drive", "a worker knows the coordinator's api only"},
	{"", "drover/cmd", "nothing imports a command"},
}

// only lists packages that keep a library to themselves.
var only = []struct{ library, in string }{
	{"github.com/spf13/viper", "configs"},
	{"github.com/spf13/cobra", "cmd"},
	{"github.com/hashicorp/raft", "coordinator"},
}

func TestImportsFollowTheArchitecture(t *testing.T) {
	each(t, func(dir, file string, f *ast.File) {
		for _, i := range f.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			for _, r := range forbidden {
				if strings.HasSuffix(file, "_test.go") && r.from != "engine" && r.from != "transfer" {
					continue
				}
				if below(dir, r.from) && below(path, r.to) && !(r.from == "" && below(dir, "cmd")) {
					t.Errorf("%s imports %s: %s", file, path, r.why)
				}
			}
			for _, r := range only {
				if below(path, r.library) && !below(dir, r.in) {
					t.Errorf("%s imports %s, which only %s may", file, path, r.in)
				}
			}
		}
	})
}

func TestEveryPackageIntroducesItself(t *testing.T) {
	said := map[string]bool{}
	each(t, func(dir, file string, f *ast.File) {
		if strings.HasSuffix(file, "_test.go") && f.Doc == nil {
			return
		}
		said[dir] = said[dir] || f.Doc != nil
	})
	for dir, ok := range said {
		if !ok {
			t.Errorf("package %s has no package comment: say what it owns and where to start reading", dir)
		}
	}
}

// below says whether path is root or lies below it; everything lies below "".
func below(path, root string) bool {
	return root == "" || path == root || strings.HasPrefix(path, root+"/")
}

// each parses every Go file of the module.
func each(t *testing.T, f func(dir, file string, src *ast.File)) {
	t.Helper()
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root && d.Name() != ".." || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		src, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		f(filepath.Dir(rel), rel, src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"drover/internal/errs"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// read is what a file says: by key, scalars as text and lists of text, and the line of each.
type read struct {
	values map[string]any
	lines  map[string]int
}

// readFile reads a file strictly: each value's key and type are those of one of the leaves. The error lists all problems.
func readFile(file string, leaves []field) (read, error) {
	out := read{map[string]any{}, map[string]int{}}
	text, err := readBounded(file)
	if err != nil {
		return out, err
	}
	if err := isText(file, text); err != nil {
		return out, err
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return out, nil // nothing but comments
	} else if err != nil {
		return out, errs.New(errs.Invalid, "configuration %s is not YAML: %s", file, strings.TrimPrefix(err.Error(), "yaml: ")).WithNext(seeSample)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return out, errs.New(errs.Invalid, "configuration %s holds more than one document", file).WithNext("take out what stands after ---")
	}
	r := reader{file: filepath.Base(file), leaves: leaves, out: out}
	r.mapping("", doc.Content[0])
	return out, r.problems.err()
}

// seeSample is what to do about a file that makes no sense.
const seeSample = "`drover config sample KIND` (worker, coordinator or client) shows every key and what it means"

// isText says what is wrong with a file before anybody tries to make sense of it.
func isText(file string, text []byte) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return errs.New(errs.Invalid, "configuration %s is empty", file).WithNext(seeSample)
	}
	for at, c := range string(text) {
		if c == utf8.RuneError && text[at] != 0xef || c < ' ' && !strings.ContainsRune("\t\r\n", c) {
			return errs.New(errs.Invalid, "configuration %s is no text: byte %d is 0x%02x", file, at+1, text[at]).WithNext(seeSample)
		}
	}
	return nil
}

func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "there is no configuration %s", file).WithNext("write one beginning with `drover config sample KIND` (worker, coordinator or client), or name another with --config")
	}
	if err != nil {
		return nil, errs.New(errs.Failed, "read configuration: %w", err).WithNext("the user that runs drover must be let into its directory, and own it or be root")
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errs.New(errs.Invalid, "configuration %s is a directory, not a file", file).WithNext("name the file in it")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, errs.New(errs.Failed, "read configuration %s: %w", file, err)
	}
	if len(text) > maxFile {
		return nil, errs.New(errs.Invalid, "configuration %s is larger than %d bytes", file, maxFile).WithNext(seeSample)
	}
	return text, nil
}

type reader struct {
	file     string
	leaves   []field
	out      read
	problems Problems
}

func (r *reader) problem(key string, n *yaml.Node, format string, args ...any) {
	r.problems = append(r.problems, Problem{key, r.at(n), fmt.Sprintf(format, args...)})
}

func (r *reader) at(n *yaml.Node) string { return fmt.Sprintf("%s:%d", r.file, n.Line) }

func (r *reader) mapping(prefix string, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		r.problem(strings.TrimSuffix(prefix, "."), n, "keys and their values are expected here, as in `listen: \":7202\"`")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		r.entry(prefix+n.Content[i].Value, n.Content[i], n.Content[i+1])
	}
}

func (r *reader) entry(key string, at, value *yaml.Node) {
	if _, twice := r.out.lines[key]; twice {
		r.problem(key, at, "stands here a second time")
		return
	}
	r.out.lines[key] = at.Line
	if slices.ContainsFunc(r.leaves, func(f field) bool { return strings.HasPrefix(f.key, key+".") }) {
		r.mapping(key+".", value)
		return
	}
	i := slices.IndexFunc(r.leaves, func(f field) bool { return f.key == key })
	if i < 0 {
		r.problem(key, at, "there is no such key%s", r.near(key))
		return
	}
	r.leaf(r.leaves[i], value)
}

// leaf takes what the file says if the leaf can have it; what it is then is set once all sources have been heard.
func (r *reader) leaf(f field, n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	var v any
	switch {
	case n.Tag == "!!null":
		r.problem(f.key, n, "has no value: give it one or take the key out")
		return
	case n.Kind == yaml.ScalarNode && f.kind() == "list":
		r.problem(f.key, n, "a list is expected here, as in [%s]", n.Value)
		return
	case n.Kind == yaml.ScalarNode && f.kind() == "text" && n.Tag != "!!str":
		r.problem(f.key, n, "text is expected here, not %s: put it into quotes", n.Value)
		return
	case n.Kind == yaml.ScalarNode:
		v = n.Value
	case n.Kind == yaml.SequenceNode:
		list := []string{}
		if err := n.Decode(&list); err != nil {
			r.problem(f.key, n, "a list of text is expected here")
			return
		}
		v = list
	default:
		r.problem(f.key, n, "a %s is expected here, not keys", f.kind())
		return
	}
	trial := field{f.key, f.help, reflect.New(f.value.Type()).Elem()}
	if err := trial.set(v); err != nil {
		r.problem(f.key, n, "%s", err)
		return
	}
	r.out.values[f.key] = v
}

// near suggests the key that was probably meant.
func (r *reader) near(key string) string {
	best, cost := "", 4
	for _, f := range r.leaves {
		if d := distance(key, f.key); d < cost {
			best, cost = f.key, d
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean " + best + "?"
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

package configs

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"drover/internal/workload"
)

// Problem is one thing wrong with a configuration.
type Problem struct {
	Key    string
	Origin string // where the value stands: "worker.yaml:3", "DROVER_LISTEN", "--listen"; "" if that is not known
	What   string
}

func (p Problem) Error() string {
	switch {
	case p.Origin == "":
		return p.Key + ": " + p.What
	case p.Key == "": // the whole of it
		return p.Origin + ": " + p.What
	}
	return fmt.Sprintf("%s (%s): %s", p.Key, p.Origin, p.What)
}

// Problems are all that is wrong, on one line.
type Problems []Problem

func (p Problems) Error() string {
	all := make([]string, len(p))
	for i, problem := range p {
		all[i] = problem.Error()
	}
	return strings.Join(all, "; ")
}

func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b Problem) int { return strings.Compare(a.Key, b.Key) })
	return p
}

func (p *Problems) add(key, format string, args ...any) {
	*p = append(*p, Problem{Key: key, What: fmt.Sprintf(format, args...)})
}

func (p *Problems) name(key, value string) {
	if value == "" {
		return
	}
	if err := workload.ValidName("host", value); err != nil {
		p.add(key, "%s", err)
	}
}

// address checks host:port; anyHost allows an empty host.
func (p *Problems) address(key, value string, anyHost bool) {
	if value == "" && key != "listen" {
		return
	}
	host, port, err := net.SplitHostPort(value)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 || host == "" && !anyHost {
		p.add(key, "%q is not of the form host:port", value)
	}
}

func (p *Problems) addresses(key string, values []string) {
	if len(values) > 16 {
		p.add(key, "%d addresses are more than 16", len(values))
	}
	for _, v := range values {
		host, port, err := net.SplitHostPort(v)
		if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 1 || n > 65535 || host == "" {
			p.add(key, "%q is not of the form host:port", v)
		}
	}
}

func (p *Problems) directory(key, value string) {
	if !filepath.IsAbs(value) || filepath.Clean(value) != value || value == "/" {
		p.add(key, "%q is not a clean absolute path below /", value)
	}
}

func (p *Problems) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		quoted := make([]string, len(allowed))
		for i, a := range allowed {
			quoted[i] = strconv.Quote(a)
		}
		p.add(key, "%q is none of %s", value, strings.Join(quoted, ", "))
	}
}

func (p *Problems) log(key string, l Log) {
	p.oneOf(key+".level", l.Level, "debug", "info", "warn", "error")
	p.oneOf(key+".format", l.Format, "text", "json")
}

package network

import (
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"

	"drover/internal/errs"
)

// icmpLimit is the least time, in ms, between two ICMP errors to one neighbour, after a burst of six. It is meant for hosts; a
// client with a pool of connections would be answered on six of them. In a namespace that a workload has to itself it is
// lifted while the address is fenced. The fence remembers it, as the comment of its answer rules: it outlives whoever made it.
type icmpLimit struct {
	file string // "" in the host's network: the limit is not ours to lift
	was  string // "" if it cannot be read
}

// limitBefore is the limit as it was before the fence that stands, or as it is if none does.
func limitBefore(c *nftables.Conn, nsPath string, addr netip.Addr) (icmpLimit, error) {
	if nsPath == "" {
		return icmpLimit{}, nil
	}
	l := icmpLimit{file: "/proc/sys/net/ipv4/icmp_ratelimit"}
	if addr.Is6() {
		l.file = "/proc/sys/net/ipv6/icmp/ratelimit"
	}
	table := fenceTables(addr)[0]
	there, err := c.ListTables()
	if err != nil {
		return l, errs.New(errs.Failed, "list nftables in %s: %w", where(nsPath), err)
	}
	if slices.ContainsFunc(there, func(t *nftables.Table) bool { return t.Family == table.Family && t.Name == table.Name }) {
		rules, err := c.GetRules(table, &nftables.Chain{Name: "in"})
		if err != nil {
			return l, errs.New(errs.Failed, "read the fence around %s in %s: %w", addr, where(nsPath), err)
		}
		for _, r := range rules {
			if l.recall(r.UserData) {
				return l, nil
			}
		}
	}
	b, err := os.ReadFile(l.file)
	if err == nil {
		l.was = strings.TrimSpace(string(b))
	}
	return l, nil // a fence is whole without it
}

const limitComment = "icmp ratelimit was "

// remembered is the limit as a rule's comment, nil if there is none to put back.
func (l icmpLimit) remembered() []byte {
	if l.was == "" {
		return nil
	}
	return userdata.AppendString(nil, userdata.TypeComment, limitComment+l.was)
}

func (l *icmpLimit) recall(data []byte) (found bool) {
	comment, ok := userdata.GetString(data, userdata.TypeComment)
	if !ok {
		return false
	}
	l.was, found = strings.CutPrefix(comment, limitComment)
	return found
}

// lift and restore do what they can: neither is worth a fence that does not go up or does not come down.
func (l icmpLimit) lift() {
	if l.was != "" {
		_ = os.WriteFile(l.file, []byte("0"), 0)
	}
}

func (l icmpLimit) restore() {
	if l.was != "" {
		_ = os.WriteFile(l.file, []byte(l.was), 0)
	}
}

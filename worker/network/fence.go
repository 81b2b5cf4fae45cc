package network

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// Fence hides one address from the network in a namespace, "" for the host's own: nothing from it or to it passes, no
// connection is reset, no neighbour learns of it. It is one nftables transaction, idempotent, and needs no link or address to
// be there yet. Segments of connections that exist are answered (answer.go), so that their senders try again soon.
//
// Loopback is hidden too: behind a fence no user code of the tree runs, and a process of the host that talks to the address
// would otherwise get a reset from a tree that is not complete.
func Fence(ctx context.Context, nsPath string, addr netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return within(nsPath, func() error {
		if err := raiseBest(nsPath, addr); err != nil {
			return errs.New(errs.KindOf(err), "fence %s in %s: %w", addr, where(nsPath), err).
				WithNext("the kernel needs nf_tables with the inet and arp families")
		}
		return nil
	})
}

// kind is what a fence does beyond dropping.
type kind struct {
	answers bool
	loses   []expr.Any // what loses a datagram that goes out, and its sender does not know it; nil drops it, and the sender's call fails
}

// kinds are all there are, the best first.
var kinds = []kind{{true, queued}, {true, queuedByTarget}, {true, nil}, {false, queued}, {false, queuedByTarget}, {false, nil}}

// able is the first of kinds that this kernel may have. What it lacks is asked for once: an attempt that fails costs a grace period.
var able atomic.Int32

// raiseBest puts up the best fence that this kernel has.
func raiseBest(nsPath string, addr netip.Addr) (err error) {
	for i := int(able.Load()); i < len(kinds); i++ {
		if err = raise(nsPath, addr, kinds[i]); !lacking(err) {
			able.Store(int32(i))
			return err
		}
	}
	return err
}

// raise puts a fence up in the calling thread's network, which nsPath names.
func raise(nsPath string, addr netip.Addr, k kind) error {
	c, err := nftables.New()
	if err != nil {
		return errs.New(errs.Failed, "open nftables: %w", err)
	}
	var limit icmpLimit
	if limit, err = limitBefore(c, nsPath, addr); err != nil {
		return err
	}
	for _, t := range fenceTables(addr) {
		replaceTable(c, t)
		for _, hook := range hooksOf(t.Family) {
			chain := c.AddChain(&nftables.Chain{
				Table: t, Name: hook.name, Type: nftables.ChainTypeFilter, Hooknum: hook.number, Priority: hook.priority,
			})
			if t.Family == nftables.TableFamilyINet {
				c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: ofCRIU()})
			}
			if k.answers && t.Family == nftables.TableFamilyINet && hook.name != "last" { // marked, an answer passes there
				c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: answer(hook.name, addr), UserData: limit.remembered()})
			}
			if hook.name == "out" && t.Family == nftables.TableFamilyINet && k.loses != nil {
				for _, match := range packets(addr) {
					c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: slices.Concat(match, meta(expr.MetaKeyL4PROTO, unix.IPPROTO_UDP), []expr.Any{&expr.Counter{}}, k.loses)})
				}
			}
			for _, match := range matches(t.Family, addr) {
				c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: append(match, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})})
			}
		}
	}
	if err := c.Flush(); err != nil {
		return errs.New(errs.Failed, "change nftables: %w", err)
	}
	if k.answers {
		limit.lift()
	}
	return nil
}

// lacking says whether the kernel has no such expression, as it is where nft_reject_inet or nft_limit is a module that cannot be
// loaded.
func lacking(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) }

// Unfence shows the address again. It announces nothing. Without a fence there is nothing to do.
func Unfence(ctx context.Context, nsPath string, addr netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return within(nsPath, func() error {
		c, err := nftables.New()
		if err != nil {
			return errs.New(errs.Failed, "open nftables: %w", err)
		}
		limit, err := limitBefore(c, nsPath, addr)
		if err != nil {
			return err
		}
		limit.restore() // while the fence that remembers it stands: whoever dies in between leaves it to the next
		for _, t := range fenceTables(addr) {
			c.AddTable(t) // what is not there could not be deleted
			c.DelTable(t)
		}
		if err := c.Flush(); err != nil {
			return errs.New(errs.Failed, "lift the fence around %s in %s: %w", addr, where(nsPath), err)
		}
		return nil
	})
}

// Open shows the address again at once, and leaves the fence behind, without effect, for Unfence to remove: whatever is taken out of
// nftables waits for the kernel's grace periods, 10 to 100 ms, and what is put in does not. It announces nothing. Without a fence
// there is nothing to do.
func Open(ctx context.Context, nsPath string, addr netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return within(nsPath, func() error {
		c, err := nftables.New()
		if err != nil {
			return errs.New(errs.Failed, "open nftables: %w", err)
		}
		standing, err := standing(c, addr)
		if err != nil {
			return errs.New(errs.Failed, "look at the fence around %s in %s: %w", addr, where(nsPath), err)
		}
		chains, err := c.ListChains() // another version's fence may have others
		if err != nil {
			return errs.New(errs.Failed, "look at the fence around %s in %s: %w", addr, where(nsPath), err)
		}
		for _, t := range standing {
			for _, chain := range chains {
				if chain.Table.Name == t.Name && chain.Table.Family == t.Family {
					c.InsertRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}, UserData: opened})
				}
			}
		}
		if err := c.Flush(); err != nil {
			return errs.New(errs.Failed, "open the fence around %s in %s: %w", addr, where(nsPath), err)
		}
		return nil
	})
}

// opened is the comment of a rule that lets everything through a fence.
var opened = userdata.AppendString(nil, userdata.TypeComment, "open")

// standing lists the tables of a fence around the address that are there and have not been opened.
func standing(c *nftables.Conn, addr netip.Addr) (all []*nftables.Table, err error) {
	have, err := c.ListTables()
	if err != nil {
		return nil, err
	}
	for _, want := range fenceTables(addr) {
		if !slices.ContainsFunc(have, func(t *nftables.Table) bool { return t.Family == want.Family && t.Name == want.Name }) {
			continue
		}
		rules, err := c.GetRules(want, &nftables.Chain{Table: want, Name: hooksOf(want.Family)[0].name})
		if err != nil {
			return nil, err
		}
		if len(rules) == 0 || !bytes.Equal(rules[0].UserData, opened) {
			all = append(all, want)
		}
	}
	return all, nil
}

// Fenced says whether a whole fence stands around the address.
func Fenced(ctx context.Context, nsPath string, addr netip.Addr) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	whole := false
	err := within(nsPath, func() error {
		c, err := nftables.New()
		if err != nil {
			return errs.New(errs.Failed, "open nftables: %w", err)
		}
		stands, err := standing(c, addr)
		if err != nil {
			return errs.New(errs.Failed, "list nftables in %s: %w", where(nsPath), err)
		}
		whole = len(stands) == len(fenceTables(addr))
		return nil
	})
	return whole && err == nil, err
}

// fenceTables are the tables of one fence: IPv4 resolves addresses by ARP, which no inet table sees; IPv6 does it by ICMPv6.
func fenceTables(addr netip.Addr) []*nftables.Table {
	name := "drover-fence-" + hex.EncodeToString(addr.AsSlice())
	tables := []*nftables.Table{{Family: nftables.TableFamilyINet, Name: name}}
	if addr.Is4() {
		tables = append(tables, &nftables.Table{Family: nftables.TableFamilyARP, Name: name})
	}
	return tables
}

// replaceTable empties a table that is there, whatever a former version put into it, within the transaction.
func replaceTable(c *nftables.Conn, t *nftables.Table) {
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
}

type hook struct {
	name     string
	number   *nftables.ChainHook
	priority *nftables.ChainPriority
}

// hooksOf lists where a packet enters and leaves. Before connection tracking (raw): what is dropped must not make an entry.
func hooksOf(family nftables.TableFamily) []hook {
	if family == nftables.TableFamilyARP {
		return []hook{
			{"in", nftables.ChainHookRef(0), nftables.ChainPriorityFilter}, // NF_ARP_IN
			{"out", nftables.ChainHookRef(1), nftables.ChainPriorityFilter},
		}
	}
	return []hook{
		{"in", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw},
		{"out", nftables.ChainHookOutput, nftables.ChainPriorityRaw},
		{"last", nftables.ChainHookPostrouting, nftables.ChainPriorityRaw}, // nothing gets this far
	}
}

// matches lists the left sides of the rules that drop: what is about the address.
func matches(family nftables.TableFamily, addr netip.Addr) [][]expr.Any {
	a := addr.AsSlice()
	switch {
	case family == nftables.TableFamilyARP:
		return [][]expr.Any{network(14, a), network(24, a)} // the sender's and the target's protocol address
	case addr.Is4():
		return packets(addr)
	default:
		discovery := slices.Concat(meta(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6), meta(expr.MetaKeyL4PROTO, unix.IPPROTO_ICMPV6))
		rules := packets(addr)
		// Neighbour solicitations and advertisements name their target 8 bytes after the type, and may come from and go to
		// other addresses.
		for _, kind := range []byte{135, 136} {
			rules = append(rules, slices.Concat(discovery, transport(0, []byte{kind}), transport(8, a)))
		}
		return rules
	}
}

// packets are the left sides of rules for what comes from the address and for what goes to it.
func packets(addr netip.Addr) [][]expr.Any {
	family := meta(expr.MetaKeyNFPROTO, icmpOf(addr).family)
	return [][]expr.Any{
		slices.Concat(family, network(from(addr), addr.AsSlice())),
		slices.Concat(family, network(to(addr), addr.AsSlice())),
	}
}

func meta(key expr.MetaKey, value byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, equal([]byte{value})}
}

func network(offset uint32, value []byte) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(value))}, equal(value)}
}

func transport(offset uint32, value []byte) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: uint32(len(value))}, equal(value)}
}

func equal(value []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value} }

func where(nsPath string) string {
	if nsPath == "" {
		return "the host's network"
	}
	return "network namespace " + nsPath
}

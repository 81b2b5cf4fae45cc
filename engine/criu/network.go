package criu

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/internal/proc"
)

// Where a tree's network namespace is its caller's on either host, CRIU is started in it. It then neither describes it nor makes it
// anew, which took two looks through the connection tracker's whole table at each dump; and the lock of the namespace is drover's, one transaction
// where CRIU starts libnftables over for each of five rules and loads all tables each time.

// ownNetwork is the path of the tree's network namespace, if CRIU is told that it is external and all of the tree is in it, else "".
func ownNetwork(t engine.Tree, o engine.Options) string {
	path := netnsOf(t.Pid)
	name, err := os.Readlink(path)
	if path == "" || err != nil || !slices.ContainsFunc(o.External, func(e string) bool { return isOf(e, name) }) {
		return ""
	}
	for _, pid := range proc.OfTree(t) {
		if other, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && other != name {
			return ""
		}
	}
	return path
}

// isOf says whether an external resource is the network namespace of that name: "net[4026532000]:key", "net:[4026532000]".
func isOf(external, name string) bool {
	return strings.HasPrefix(external, strings.Replace(name, ":", "", 1)+":")
}

// inherited is the network namespace among what a restore inherits, nil if there is none.
func inherited(files map[string]*os.File) *os.File {
	for _, f := range files {
		if kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err == nil && kind == unix.CLONE_NEWNET {
			return f
		}
	}
	return nil
}

// enter puts the calling thread into a network namespace.
func enter(ns *os.File) func() error {
	return func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the tree's network namespace: %w", err)
		}
		return nil
	}
}

// duplicate is a descriptor of one's own for an open file.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// pathOf is where this process finds a file that it has open.
func pathOf(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// mark is on the packets with which CRIU puts half-closed connections into their state (SOCCR_MARK in soccr/soccr.h).
const mark = 0xc114

// lockNetwork locks a network namespace as CRIU would (nftables_lock_network_internal in criu/net.c): nothing comes in and no TCP goes out, over
// loopback neither, but for CRIU's own packets. The lock of an earlier dump is taken over.
//
// A frozen tree sends nothing; only the kernel does for its connections. One whose dump was refused goes on a moment before it is unlocked:
// a dropped datagram would fail its call with EPERM, where a connection tries again by itself.
func lockNetwork(netns string) error {
	c, done, err := openTables(netns)
	if err != nil {
		return err
	}
	defer done()
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: ownLock}
	c.AddTable(table) // what is not there could not be deleted
	c.DelTable(table)
	c.AddTable(table)
	drop := nftables.ChainPolicyDrop
	for name, hook := range map[string]*nftables.ChainHook{"input": nftables.ChainHookInput, "output": nftables.ChainHookOutput} {
		chain := c.AddChain(&nftables.Chain{
			Table: table, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &drop,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(mark)},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
		if hook == nftables.ChainHookOutput {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
				&expr.Verdict{Kind: expr.VerdictAccept},
			}})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("lock the tree's network: %w", err)
	}
	return nil
}

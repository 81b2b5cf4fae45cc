package moves

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/migration"
	"drover/testenv/cluster"
	"drover/testenv/host"
)

// Command lines, with spaces between the words.
const (
	keeper = "^drover keeper run"
	filler = "^drover keeper fill"
	criu   = "^(criu: |/usr/sbin/criu swrk)" // it has a title of its own once it has a request
)

// commandLines tell a party's processes on a host.
var commandLines = map[party]*regexp.Regexp{
	theCRIU: regexp.MustCompile(criu), theKeeper: regexp.MustCompile(keeper), theFiller: regexp.MustCompile(filler),
}

// strike lets the fault happen. The repair that it returns undoes what of it lasts; nobody can repair before some time has passed, which is
// for the caller to see to.
func (c *trial) strike(p point) (repair func(), err error) {
	if all, several := together[p.who]; several {
		var blows []blow
		for _, v := range all {
			blows = append(blows, func() (func(), error) { return c.strike(point{at: p.at, who: v.who, role: v.role, what: p.what}) })
		}
		return inTurn(blows...)
	}
	switch p.who {
	case theHost:
		m := c.side(p.role)
		return func() { c.bootAgain(m) }, m.Kill(c.t.Context())
	case theLink:
		return c.strikeLink(p)
	case theDisk:
		return c.fillDisk(c.side(p.role))
	case theWorker:
		return c.strikeDaemon(c.side(p.role), p.what)
	case theLeader:
		return c.strikeDaemon(c.leader(c.t), p.what)
	case theMajority:
		leader := c.leader(c.t)
		other := c.Coordinators[0]
		if other == leader {
			other = c.Coordinators[1]
		}
		return inTurn(func() (func(), error) { return c.strikeDaemon(leader, p.what) }, func() (func(), error) { return c.strikeDaemon(other, p.what) })
	case theCommand:
		<-c.begun
		c.hangUp()
		return func() {}, nil
	}
	pids, err := c.find(p)
	if err != nil {
		return nil, err
	}
	return c.strikeProcesses(c.side(p.role), pids, p.what)
}

// blow is a fault that happens when it is called; see strike.
type blow func() (repair func(), err error)

// inTurn is several blows as one. They are repaired when all have been dealt.
func inTurn(blows ...blow) (repair func(), err error) {
	var repairs []func()
	repair = func() {
		for _, r := range repairs {
			r()
		}
	}
	for _, b := range blows {
		again, err := b()
		if err != nil {
			return repair, err
		}
		repairs = append(repairs, again)
	}
	return repair, nil
}

var errNotThere = errors.New("there is none at that point")

// find waits, where the boundary is not a halt, until the party is there.
func (c *trial) find(p point) (pids []int, err error) {
	until := time.Now()
	if p.at.within > 0 {
		until = until.Add(time.Second)
	}
	for {
		if pids = c.side(p.role).Processes(commandLines[p.who]); len(pids) > 0 {
			return pids, nil
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("%w: %s on %s", errNotThere, p.who, c.side(p.role).Name)
		}
	}
}

func (c *trial) side(r migration.Role) *cluster.Member {
	if r == migration.Source {
		return c.source
	}
	return c.target
}

func (c *trial) strikeDaemon(m *cluster.Member, what fault) (repair func(), _ error) {
	again := func() {
		if err := m.Restart(c.t.Context()); err != nil {
			c.t.Error(err)
		}
	}
	switch what {
	case killed:
		return again, m.Daemon.Kill(c.t.Context())
	case stopped:
		return func() { c.complain(m.Daemon.Signal(unix.SIGCONT)) }, m.Daemon.Signal(unix.SIGSTOP)
	}
	feed, err := c.strikeProcesses(m, m.Processes(regexp.MustCompile(`^/usr/local/bin/drover worker`)), what)
	if err != nil {
		return nil, err
	}
	return func() {
		feed()
		select {
		case <-m.Daemon.Ended():
			again()
		default: // it did not ask for memory
		}
	}, nil
}

func (c *trial) strikeProcesses(m *cluster.Member, pids []int, what fault) (repair func(), err error) {
	if len(pids) == 0 {
		return nil, fmt.Errorf("no such process on %s", m.Name)
	}
	all := func(s unix.Signal) {
		for _, pid := range pids {
			if err := unix.Kill(pid, s); err != nil && err != unix.ESRCH {
				c.t.Error(err)
			}
		}
	}
	switch what {
	case killed:
		all(unix.SIGKILL)
		return func() {}, nil
	case stopped:
		all(unix.SIGSTOP)
		return func() { all(unix.SIGCONT) }, nil
	case starved:
		var hungry []*host.Starved
		for _, pid := range pids {
			h, err := m.Starve(pid)
			if err != nil {
				return nil, err
			}
			hungry = append(hungry, h)
		}
		return func() {
			for _, h := range hungry {
				h.Feed()
			}
		}, nil
	}
	return nil, fmt.Errorf("processes are not struck by %q", what)
}

// strikeLink cuts the two workers off each other, or one host off all.
func (c *trial) strikeLink(p point) (repair func(), err error) {
	if p.role != "" {
		link := c.side(p.role).Link()
		return func() { c.complain(link.Heal()) }, link.Cut()
	}
	peer, _, _ := strings.Cut(c.target.Options.Address, "/")
	nft := func(argv ...string) error {
		_, err := c.source.Run(c.t.Context(), append([]string{"nft"}, argv...)...)
		return err
	}
	return func() { c.complain(nft("delete", "table", "inet", "cut")) }, nft(fmt.Sprintf(cutTable, peer))
}

// cutTable lets nothing pass between a host and the address; everybody else reaches both.
const cutTable = `table inet cut {
	chain in { type filter hook input priority 0; ip saddr %[1]s drop; }
	chain out { type filter hook output priority 0; ip daddr %[1]s drop; }
}`

// fillDisk lets a host's worker write nothing more to its disk, and nothing into the file system in memory that images lie in.
func (c *trial) fillDisk(m *cluster.Member) (repair func(), err error) {
	if _, err := m.Run(c.t.Context(), "sh", "-c", "for more in 4 64 256 1024; do mount -n -o remount,size=$(($(df -k --output=used /run | tail -n 1) + more))k /run && exit; done; exit 1"); err != nil {
		return nil, err
	}
	limit := func(pid int, to uint64) error {
		err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: to, Max: unix.RLIM_INFINITY}, nil)
		if err == unix.ESRCH {
			return nil
		}
		return err
	}
	everybody := regexp.MustCompile("")
	for _, pid := range m.Processes(regexp.MustCompile(`^/usr/local/bin/drover worker`)) {
		err = limit(pid, 0)
	}
	return func() {
		for _, pid := range m.Processes(everybody) { // those that the worker has started have its limit
			c.complain(limit(pid, unix.RLIM_INFINITY))
		}
		_, err := m.Run(c.t.Context(), "mount", "-n", "-o", "remount,size=50%", "/run")
		c.complain(errors.Join(err, m.Restart(c.t.Context()))) // a journal that could not be written to asks for that
	}, err
}

// bootAgain is a host's power coming back.
func (c *trial) bootAgain(m *cluster.Member) {
	if err := m.Boot(c.t.Context()); err != nil {
		c.t.Error(err)
		return
	}
	c.complain(m.Restart(context.WithoutCancel(c.t.Context())))
}

func (c *trial) complain(err error) {
	if err != nil {
		c.t.Error(err)
	}
}

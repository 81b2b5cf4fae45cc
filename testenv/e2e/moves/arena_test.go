package moves

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/testenv/cluster"
	"drover/testenv/witness"
)

// arena is hosts on which points are gone through one after the other, with the tree that is struck.
type arena struct {
	*ground
	tree    shape
	service *service
	seen    *witness.Trace            // of the tree
	address string                    // that hears it
	clean   map[string]map[string]int // what the hosts look like while the tree lives on that host
}

// pair is the tree that is struck where its size does not matter.
var pair = shape{processes: 2, threads: 2, pages: 64, pause: 5 * time.Millisecond}

// newArena makes an arena with a tree of that shape on alpha.
func newArena(t *testing.T, coordinators []string, tree shape) *arena {
	t.Helper()
	g := newGroundOf(t, cluster.Options{Drover: program("drover-halts"), Coordinators: coordinators, Workers: []string{"alpha", "beta"}})
	a := &arena{ground: g, tree: tree, clean: map[string]map[string]int{}}
	a.seen, a.address = a.watch(t, 9000)
	a.begin(t)
	for _, to := range []string{"beta", "alpha"} {
		if _, err := a.Migrate(t.Context(), nil, struckTree, to, append(slices.Clone(quick), "--max-rounds", "1")...); err != nil {
			t.Fatal(err)
		}
		a.service.lives(t, to)
		a.clean[to] = a.present(t)
	}
	return a
}

// watch begins to hear a tree's heartbeat on the client's host, at that port, until the test ends.
func (g *ground) watch(t *testing.T, port int) (seen *witness.Trace, address string) {
	t.Helper()
	address = fmt.Sprintf("10.77.0.99:%d", port)
	conn, err := g.client.ListenPacket(t.Context(), "udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	seen = &witness.Trace{}
	heard := make(chan error, 1)
	go func() { heard <- seen.Listen(conn) }()
	t.Cleanup(func() {
		conn.Close()
		if err := <-heard; err != nil {
			t.Error(err)
		}
	})
	return seen, address
}

// begin starts the tree that is struck, on alpha.
func (a *arena) begin(t *testing.T) {
	t.Helper()
	struck := a.tree
	struck.witness = a.address
	a.service = a.start(t, struckTree, "alpha", 0, struck)
}

// end ends the tree, and fails the test unless the hosts look then as before it came.
func (a *arena) end(t *testing.T, spare int) {
	t.Helper()
	a.service.end(t)
	a.nothingLeft(t, spare)
}

func (a *arena) close(t *testing.T) {
	t.Helper()
	a.service.call.hangUp()
	if err := a.Bed.Close(); err != nil {
		t.Error(err)
	}
}

// numbers are what differs between a process or a network namespace and the one that takes its place.
var numbers = regexp.MustCompile(`process \d+ |net:\[\d+\]`)

// present counts what exists on the hosts, processes by their command lines.
func (a *arena) present(t *testing.T) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for thing := range a.footprint(t).things {
		if strings.HasSuffix(thing, " descriptors") || expected(thing) {
			continue
		}
		seen[numbers.ReplaceAllString(thing, "… ")]++
	}
	return seen
}

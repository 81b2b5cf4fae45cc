package moves

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/testenv/cluster"
	"drover/testenv/host"
	"drover/testenv/host/hosttest"
)

// service is a workload with an address of its own: a tree that counts and checks itself, and an echo that remembers how many
// requests a connection has made. A client talks to the echo from the beginning on.
type service struct {
	ground  *ground
	name    string
	address string // of the echo
	shape   shape
	call    *call
}

// shape is how large a service's tree is.
type shape struct {
	processes, threads, pages int // threads of each process, pages of each thread
	pause                     time.Duration
	witness                   string // address and port that get its heartbeat; "" for none
}

// small is a tree of some 10 MB, of which a good part is always dirty.
var small = shape{processes: 3, threads: 2, pages: 64, pause: 5 * time.Millisecond}

// report is what the tree says of itself.
type report struct {
	Beat      uint64 `json:"beat"`
	Processes int    `json:"processes"`
	Threads   int    `json:"threads"`
	Steps     uint64 `json:"steps"`
	Faults    uint64 `json:"faults"`
	Fault     string `json:"fault"`
}

const statusDir = "/srv/moves"

// start runs a service on a host; its address is 10.77.0.50 plus n.
func (g *ground) start(t *testing.T, name, on string, n int, s shape) *service {
	t.Helper()
	address := fmt.Sprintf("10.77.0.%d", 50+n)
	for _, w := range g.Workers {
		hosttest.Run(t, w.Host, "mkdir", "-p", statusDir+"/"+name)
	}
	volume := statusDir + "/" + name
	count := fmt.Sprintf("counter -processes %d -threads %d -pages %d -pause %s -say 0 -status %s/status", s.processes, s.threads, s.pages, s.pause, volume)
	if s.witness != "" {
		count += " -witness " + s.witness
	}
	g.drover(t, "run", name, "--host", on, "--address", address+"/24", "--volume", volume+":"+volume, "--",
		"sh", "-c", count+" & exec echo serve -listen "+address+":7000")
	sv := &service{ground: g, name: name, address: address + ":7000", shape: s}
	sv.dial(t)
	sv.lives(t, on)
	return sv
}

// dial begins the client's conversation, or another one.
func (s *service) dial(t *testing.T) {
	t.Helper()
	hosttest.Eventually(t, s.name+" answers", func() bool {
		conn, err := s.ground.client.Dial(t.Context(), "tcp", s.address)
		if err != nil {
			return false
		}
		s.call = converse(conn)
		return true
	})
	t.Cleanup(s.call.hangUp)
}

// end stops and forgets the service.
func (s *service) end(t *testing.T) {
	t.Helper()
	s.call.hangUp()
	s.ground.drover(t, "stop", s.name)
	s.ground.drover(t, "rm", s.name)
	for _, w := range s.ground.Workers {
		hosttest.Run(t, w.Host, "sh", "-c", "rm -rf "+statusDir+"/"+s.name+"*")
	}
}

// lives fails the test unless the service runs on that host and nowhere else, without a fault, with its client's connection.
func (s *service) lives(t *testing.T, on string) {
	t.Helper()
	w, err := s.ground.Workload(t.Context(), s.name)
	if err != nil {
		t.Fatal(err)
	}
	if w.Owner != on || w.Migration != "" {
		t.Errorf("%s belongs to %s and is in migration %q, want %s and none", s.name, w.Owner, w.Migration, on)
	}
	home := s.ground.worker(t, on)
	first := s.report(t, home, "beats", func(report) bool { return true })
	last := s.report(t, home, "beats and makes steps", func(r report) bool { return r.Beat > first.Beat && r.Steps > first.Steps })
	if last.Faults != 0 {
		t.Errorf("%s has found %d faults in itself: %s", s.name, last.Faults, last.Fault)
	}
	if last.Processes != s.shape.processes || last.Threads != s.shape.processes*s.shape.threads {
		t.Errorf("%s counts with %d processes and %d threads, want %d and %d", s.name, last.Processes, last.Threads, s.shape.processes, s.shape.processes*s.shape.threads)
	}
	for _, m := range s.ground.Workers {
		want := 0
		if m == home {
			want = s.shape.processes + 1 // and the echo
		}
		if n := s.copies(m.Host); n != want {
			t.Errorf("%d processes of %s on %s, want %d", n, s.name, m.Name, want)
		}
	}
	if err := s.call.goesOn(t); err != nil {
		t.Errorf("the client of %s: %v", s.name, err)
	}
}

// report is the tree's first report on that host that is as wanted.
func (s *service) report(t *testing.T, on *cluster.Member, what string, wanted func(report) bool) (r report) {
	t.Helper()
	hosttest.Eventually(t, fmt.Sprintf("%s on %s %s", s.name, on.Name, what), func() bool {
		r = report{}
		text, err := os.ReadFile(on.Path(statusDir + "/" + s.name + "/status"))
		return err == nil && json.Unmarshal([]byte(strings.TrimSpace(string(text))), &r) == nil && wanted(r)
	})
	return r
}

// copies counts the processes of the service on a host, in whatever state.
func (s *service) copies(h *host.Host) int {
	out, err := h.Run(context.Background(), "sh", "-c", fmt.Sprintf("cat $(find /sys/fs/cgroup/drover/%s -name cgroup.procs 2>/dev/null) /dev/null", s.name))
	if err != nil {
		return -1
	}
	return len(strings.Fields(out))
}

// call is a client's one connection to an echo: it numbers its requests and compares the answers until it hangs up.
type call struct {
	conn net.Conn
	done chan struct{}

	mu      sync.Mutex
	answers uint64
	err     error
	quiet   bool // it hung up itself
}

func converse(conn net.Conn) *call {
	c := &call{conn: conn, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		err := c.run()
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.quiet {
			c.err = err
		}
	}()
	return c
}

func (c *call) run() error {
	answer := make([]byte, 16)
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for n := uint64(1); ; n++ {
		<-pace.C
		if err := c.conn.SetDeadline(time.Now().Add(hosttest.Patience)); err != nil {
			return err
		}
		if _, err := c.conn.Write(binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return fmt.Errorf("request %d: %w", n, err)
		}
		if _, err := io.ReadFull(c.conn, answer); err != nil {
			return fmt.Errorf("answer %d: %w", n, err)
		}
		if asked, served := binary.BigEndian.Uint64(answer), binary.BigEndian.Uint64(answer[8:]); asked != n || served != n {
			return fmt.Errorf("request %d was answered as %d, the connection's %d: something was lost or repeated", n, asked, served)
		}
		c.mu.Lock()
		c.answers = n
		c.mu.Unlock()
	}
}

func (c *call) seen() (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers, c.err
}

// goesOn returns nil once an answer has come that was asked for now.
func (c *call) goesOn(t *testing.T) error {
	t.Helper()
	before, err := c.seen()
	hosttest.Eventually(t, "the client's connection goes on", func() bool {
		var now uint64
		now, err = c.seen()
		return err != nil || now > before+1
	})
	return err
}

func (c *call) hangUp() {
	c.mu.Lock()
	c.quiet = true
	c.mu.Unlock()
	c.conn.Close()
	<-c.done
}

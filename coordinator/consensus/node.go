package consensus

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"drover/coordinator/record"
	"drover/internal/errs"
)

// Config is what a node needs.
type Config struct {
	Self     Peer
	Dir      string       // the log and the snapshots; made 0700
	Listener net.Listener // of the other coordinators' connections; the node closes it
	// Dial reaches another coordinator; it must have checked that the other is who it should be.
	Dial func(ctx context.Context, p Peer) (net.Conn, error)
	Log  *slog.Logger
	// Heartbeat is how long a follower waits for a sign of its leader before it stands for election; 0 is 500 ms, so that a
	// dead leader is replaced within 3 s even if a first election ends without a winner.
	Heartbeat time.Duration
}

// Node is one coordinator's part in the consensus. All methods may be called from several goroutines.
type Node struct {
	self      Peer
	raft      *raft.Raft
	transport *raft.NetworkTransport
	store     *store
	fsm       *fsm
	lock      *os.File
	fresh     atomic.Uint64 // the term in which a barrier has passed: the record holds all that earlier leaders acknowledged
}

const (
	keepSnapshots  = 2
	snapshotAfter  = 4096 // entries
	snapshotLook   = 30 * time.Second
	cachedEntries  = 512
	streamTimeout  = 5 * time.Second
	enqueueTimeout = 2 * time.Second
	handOver       = time.Second
)

// Open starts a node from what its directory holds, all of which it has read and found whole: else it fails and says which file is not. A new node takes part once a leader has added it or Found was called.
func Open(cfg Config) (*Node, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, errs.New(errs.Failed, "make the record's directory: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	n, err := openNode(cfg)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	n.lock = lock
	return n, nil
}

// lockDir takes the directory for this process, until the file is closed.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, errs.New(errs.Failed, "lock the record: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, errs.New(errs.Conflict, "the record in %s is in use: %w", dir, err).WithNext("see that no other coordinator uses this directory")
	}
	return f, nil
}

func openNode(cfg Config) (*Node, error) {
	snapshots, err := openSnapshots(cfg.Dir, keepSnapshots, newRaftLog(cfg.Log))
	if err != nil {
		return nil, errs.New(errs.Failed, "open the snapshots in %s: %w", cfg.Dir, err)
	}
	if err := verify(cfg.Dir, snapshots); err != nil {
		return nil, err
	}
	file := filepath.Join(cfg.Dir, logFile)
	if _, err := os.Stat(file); err == nil {
		if err := renew(file); err != nil {
			return nil, errs.New(errs.Failed, "write the log %s anew: %w", file, err).WithNext("see that the disk has room")
		}
	}
	store, err := openStore(file)
	if err != nil {
		return nil, errs.New(errs.Failed, "open the log %s: %w", file, err)
	}
	if err := writeSynced(begunMark(cfg.Dir), nil); err != nil {
		return nil, errors.Join(errs.New(errs.Failed, "note that a record was begun: %w", err), store.Close())
	}
	n := &Node{self: cfg.Self, store: store, fsm: newFSM()}
	if err := n.start(cfg, snapshots); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return n, nil
}

func (n *Node) start(cfg Config, snapshots raft.SnapshotStore) error {
	log := newRaftLog(cfg.Log)
	cache, err := raft.NewLogCache(cachedEntries, n.store)
	if err != nil {
		return err
	}
	n.transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: newStreams(cfg.Listener, cfg.Dial), MaxPool: 3, Timeout: streamTimeout, Logger: log,
	})
	n.raft, err = raft.NewRaft(raftConfig(cfg), n.fsm, cache, n.store, snapshots, advertised{n.transport, cfg.Self.raft()})
	if err != nil {
		n.transport.Close()
		return errs.New(errs.Failed, "start consensus from %s: %w", cfg.Dir, err)
	}
	return nil
}

func raftConfig(cfg Config) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(cfg.Self.Name)
	c.Logger = newRaftLog(cfg.Log)
	c.HeartbeatTimeout = cfg.Heartbeat
	if c.HeartbeatTimeout == 0 {
		c.HeartbeatTimeout = 500 * time.Millisecond
	}
	c.ElectionTimeout = c.HeartbeatTimeout
	c.LeaderLeaseTimeout = c.HeartbeatTimeout
	c.SnapshotThreshold = snapshotAfter
	c.SnapshotInterval = snapshotLook
	c.NoLegacyTelemetry = true
	return c
}

// advertised gives the transport the address that the others know instead of the one its listener has.
type advertised struct {
	*raft.NetworkTransport
	self raft.ServerAddress
}

func (a advertised) LocalAddr() raft.ServerAddress { return a.self }

// Close stops the node. If it leads it hands the lead over first, as far as somebody takes it at once; the others go on.
func (n *Node) Close() error {
	if n.Leads() && len(n.Servers()) > 1 {
		ctx, cancel := context.WithTimeout(context.Background(), handOver)
		_ = wait(ctx, n.raft.LeadershipTransfer()) // nobody took it: the others elect one
		cancel()
	}
	err := n.raft.Shutdown().Error()
	return errors.Join(err, n.transport.Close(), n.store.Close(), n.lock.Close())
}

// Found makes this node a cluster of one and writes the first command. On a node that has a record already it changes nothing.
func (n *Node) Found(ctx context.Context, f record.Found) error {
	only := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(n.self.Name), Address: n.self.raft()}}}
	if err := n.raft.BootstrapCluster(only).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return errs.New(errs.Failed, "found the cluster: %w", err)
	}
	for {
		if n.cluster() != "" {
			return nil
		}
		if _, err := n.Propose(ctx, "", f); err == nil || errs.KindOf(err) == errs.Conflict {
			return nil
		} else if errs.KindOf(err) != errs.Unavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.Changed():
		case <-time.After(100 * time.Millisecond): // until it has elected itself
		}
	}
}

func (n *Node) cluster() (name string) {
	n.Read(func(s *record.State) { name = s.Cluster })
	return name
}

// Propose puts a change into the log in by's name and returns the log index at which the record took it, or the error with
// which it refused. errs.Unavailable means that this node does not lead, or stopped to while the change was under way: it
// may then still take effect. Changes are compare-and-set, so that the caller can look at the record and decide again.
func (n *Node) Propose(ctx context.Context, by string, change record.Change) (uint64, error) {
	c, err := record.NewCommand(rand.Text(), time.Now(), by, change)
	if err != nil {
		return 0, err
	}
	return n.ProposeCommand(ctx, c)
}

// ProposeCommand is Propose for a command that is ready: proposed twice, it acts once.
func (n *Node) ProposeCommand(ctx context.Context, c record.Command) (uint64, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return 0, errs.New(errs.Invalid, "encode %s: %w", c.Type, err)
	}
	f := n.raft.Apply(data, enqueueTimeout)
	if err := wait(ctx, f); err != nil {
		return 0, n.notLeader(err)
	}
	if err, refused := f.Response().(error); refused {
		return 0, err
	}
	return f.Index(), nil
}

// Read calls f with the record as this node has it, which may be behind the leader's. f must keep no reference to the state's
// maps; values in them may be kept.
func (n *Node) Read(f func(*record.State)) {
	n.fsm.mu.RLock()
	defer n.fsm.mu.RUnlock()
	f(n.fsm.state)
}

// View is a copy of the record as this node has it.
func (n *Node) View() *record.State {
	n.fsm.mu.RLock()
	defer n.fsm.mu.RUnlock()
	return n.fsm.state.Clone()
}

// Fresh returns once this node has proven that it leads and that its record holds everything that was acknowledged before the
// call, by any leader: a Read that follows is linearizable.
func (n *Node) Fresh(ctx context.Context) error {
	if term := n.raft.CurrentTerm(); n.fresh.Load() != term {
		if err := wait(ctx, n.raft.Barrier(enqueueTimeout)); err != nil {
			return n.notLeader(err)
		}
		n.fresh.Store(term)
	}
	return n.notLeader(wait(ctx, n.raft.VerifyLeader()))
}

// Changed is closed at the record's next change.
func (n *Node) Changed() <-chan struct{} {
	n.fsm.mu.RLock()
	defer n.fsm.mu.RUnlock()
	return n.fsm.changed
}

// Leads says whether this node thinks that it leads.
func (n *Node) Leads() bool { return n.raft.State() == raft.Leader }

// Leader is who leads as far as this node knows; an empty Peer if it knows nobody.
func (n *Node) Leader() Peer {
	address, _ := n.raft.LeaderWithID()
	return peerOf(address)
}

// Leadership tells of this node's becoming leader (true) and ceasing to be (false). Only the newest is kept: a true after a
// true means that leadership was lost in between.
func (n *Node) Leadership() <-chan bool { return n.raft.LeaderCh() }

// Term is the current term.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// Applied is the index of the last entry that the record has in it.
func (n *Node) Applied() uint64 { return n.raft.AppliedIndex() }

// notLeader turns what Raft says into what a caller can act on.
func (n *Node) notLeader(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, raft.ErrLeadershipLost):
		return errs.New(errs.Unavailable, "coordinator %s lost the lead before the others had answered", n.self.Name).WithNext("try again")
	}
	return errs.New(errs.Unavailable, "coordinator %s does not lead: %w", n.self.Name, err).WithNext("try again")
}

// wait waits for a future, but not longer than ctx. Raft ends every future itself once leadership is lost.
func wait(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

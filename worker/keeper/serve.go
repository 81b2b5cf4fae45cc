package keeper

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/errs"
	"drover/worker/cgroup"
)

// keeper is the process's side.
type keeper struct {
	dir    Dir
	config Config
	log    *slog.Logger
	lock   *os.File
	tree   *watcher
	group  cgroup.Group
	engine engine.Engine
	quit   chan struct{}
	once   sync.Once

	mu    sync.Mutex
	work  chan struct{} // closed when the dump or restore that goes on has ended, as a hold or without; nil if none does
	hold  engine.Hold   // the last one, ended or not, until it is forgotten
	id    uint64        // its number; numbers are not used twice
	kind  string        // opDump or opRestore
	ended chan struct{}
}

// serve answers calls until it is told to quit.
func (k *keeper) serve(l *net.UnixListener) int {
	go func() {
		<-k.quit
		l.Close()
	}()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			select {
			case <-k.quit:
				return 0
			default:
				k.log.Error("the keeper's socket failed", "error", err)
				return 1
			}
		}
		go k.answer(c)
	}
}

// answer serves one connection, which is one call.
func (k *keeper) answer(c *net.UnixConn) {
	defer c.Close()
	if !fromRoot(c) {
		return
	}
	_ = c.SetDeadline(time.Now().Add(greetTime))
	if err := send(c, greeting{Version: version, Workload: k.config.Workload, Pid: os.Getpid()}); err != nil {
		return
	}
	var r request
	files, err := receive(c, &r)
	defer closeAll(files)
	if err != nil {
		return
	}
	_ = c.SetDeadline(time.Time{})
	cl := newCall(c)
	defer cl.cancel()
	body, err := k.do(cl, r, files)
	a := answer{Error: toWire(err)}
	if err == nil && body != nil {
		if a.Body, err = json.Marshal(body); err != nil {
			a = answer{Error: toWire(err)}
		}
	}
	if err := send(c, a); err != nil {
		k.log.Info("the worker did not wait for an answer", "op", r.Op)
	}
	if r.Op == opQuit && a.Error == nil {
		k.once.Do(func() { close(k.quit) })
	}
}

// fromRoot says whether the other end is root: the socket's mode says so already, this does not depend on a directory's.
func fromRoot(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		ok = err == nil && cred.Uid == 0
	})
	return err == nil && ok
}

// call is one call in progress: its context ends when the worker cancels it, not when the worker goes away.
type call struct {
	conn   *net.UnixConn
	ctx    context.Context
	cancel context.CancelFunc
	more   chan request  // what the worker says after its request
	gone   chan struct{} // closed when the worker is
}

func newCall(c *net.UnixConn) *call {
	ctx, cancel := context.WithCancel(context.Background())
	cl := &call{conn: c, ctx: ctx, cancel: cancel, more: make(chan request, 1), gone: make(chan struct{})}
	go cl.listen()
	return cl
}

func (cl *call) listen() {
	defer close(cl.gone)
	for {
		var r request
		files, err := receive(cl.conn, &r)
		closeAll(files)
		switch {
		case err != nil:
			return
		case r.Op == opCancel:
			cl.cancel()
		default:
			select {
			case cl.more <- r:
			default: // one answer is all that is ever asked for
			}
		}
	}
}

// unwanted says whether nobody waits for the call any more.
func (cl *call) unwanted() bool {
	select {
	case <-cl.gone:
		return true
	case <-cl.ctx.Done():
		return true
	default:
		return false
	}
}

// ask calls the worker back in the middle of its call, and reads its answer into reply unless that is nil. Without a worker there is
// nobody who would give the call a meaning: it is given up.
func (cl *call) ask(ctx context.Context, reply any) error {
	gone := errs.New(errs.Aborted, "the worker went away during its call")
	if err := send(cl.conn, answer{Asks: true}); err != nil {
		return gone
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-cl.gone:
		return gone
	case r := <-cl.more:
		var a answer
		if err := json.Unmarshal(r.Body, &a); err != nil {
			return err
		}
		if a.Error != nil || reply == nil {
			return a.Error.err()
		}
		return json.Unmarshal(a.Body, reply)
	}
}

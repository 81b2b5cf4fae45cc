package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
)

// The protocol: the worker connects to the keeper's SOCK_SEQPACKET socket, one connection a call, one packet a message, JSON
// in it, descriptors beside it. The keeper greets, the worker asks, the keeper answers; before the answer to a dump the
// keeper may call back once, which the worker replies to ("reply"). "cancel" asks the keeper to give a call up. A worker
// that disconnects asks for nothing: what was begun goes on, and a hold that it was told of is kept. A call that it still has to answer is given
// up, and a hold that it has not heard of is ended.

// version is that of the protocol. A worker speaks with keepers of its own version only; those of another one still keep
// their trees, holds and exit records, and end when told by a worker that knows them.
const version = 3

const (
	maxPacket = 160 << 10 // below the kernel's default socket buffer of 208 KiB; a list of 4,096 pids fits
	maxFiles  = 16
	greetTime = 5 * time.Second
)

// The operations.
const (
	opState     = "state"
	opWait      = "wait" // answers once the tree has ended
	opStart     = "start"
	opWatch     = "watch"
	opProbe     = "probe"
	opPreDump   = "predump"
	opDump      = "dump"
	opRestore   = "restore"
	opContinue  = "continue"
	opHold      = "hold"
	opCommit    = "commit"
	opAbort     = "abort"
	opAwaitLost = "await-lost" // answers once the hold is lost or ended
	opForget    = "forget"     // lets go of an ended hold
	opQuit      = "quit"
	opCancel    = "cancel"
	opReply     = "reply" // to what the keeper has called back for
)

type greeting struct {
	Version  int    `json:"version"`
	Workload string `json:"workload"`
	Pid      int    `json:"pid"` // the keeper's own
}

// request is one call. Body is the operation's own.
type request struct {
	Op   string          `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
}

// answer ends a call or, with Asks, calls back: at a dump's freeze, or when a restore is ready.
type answer struct {
	Asks  bool            `json:"asks,omitempty"`
	Error *wireError      `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// Bodies.
type (
	watchBody struct {
		Pid   int    `json:"pid"`
		Birth uint64 `json:"birth"` // start time of the process, field 22 of /proc/PID/stat: tells a pid from its successor
	}
	startBody struct {
		Launch Launch `json:"launch"`
		NetNS  bool   `json:"net_ns"` // the first descriptor is the tree's network namespace
	}
	preDumpBody struct {
		Request engine.PreDumpRequest `json:"request"`
		Pages   bool                  `json:"pages"` // descriptors: images, pages if true
	}
	dumpBody struct {
		Request dumpRequest `json:"request"`
		Pages   bool        `json:"pages"`
		Ask     bool        `json:"ask"` // call back at the freeze
	}
	restoreBody struct {
		Request engine.RestoreRequest `json:"request"`
		Inherit []string              `json:"inherit,omitempty"` // keys of the descriptors after the first, which is the images'
		Ask     bool                  `json:"ask,omitempty"`     // call back when it is ready
	}
	treeBody struct {
		Tree        engine.Tree `json:"tree"`
		KeepStopped []int       `json:"keep_stopped,omitempty"`
	}
	holdBody struct {
		ID uint64 `json:"id"`
	}
	holdAnswer struct {
		ID    uint64       `json:"id"` // 0: there is no hold
		Kind  string       `json:"kind,omitempty"`
		Pid   int          `json:"pid,omitempty"`
		Stats engine.Stats `json:"stats"`
	}
)

// wireError carries an error with what errors.Is and errs find in it.
type wireError struct {
	Kind     string `json:"kind"`
	Msg      string `json:"msg"`
	Next     string `json:"next,omitempty"`
	Sentinel string `json:"sentinel,omitempty"`
}

var sentinels = map[string]error{
	"gone": engine.ErrGone, "busy": engine.ErrBusy, "decided": engine.ErrDecided, "lost": engine.ErrLost, "no-tracking": engine.ErrNoTracking,
	"bad-image": engine.ErrBadImage, "unsupported": engine.ErrUnsupported, "conflict": engine.ErrConflict, "moment": engine.ErrMoment,
	"not-lazy": engine.ErrNotLazy,
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Kind: errs.KindOf(err).String(), Msg: err.Error(), Next: errs.NextOf(err)}
	for name, s := range sentinels {
		if errors.Is(err, s) {
			w.Sentinel = name
		}
	}
	return w
}

// quiet keeps a sentinel for errors.Is; the message has its words already.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

func (w *wireError) err() error {
	if w == nil {
		return nil
	}
	e := &errs.Error{Kind: errs.KindNamed(w.Kind), Msg: w.Msg, Next: w.Next}
	if s := sentinels[w.Sentinel]; s != nil {
		e.Err = quiet{s}
	}
	return e
}

// send writes one message with descriptors beside it.
func send(c *net.UnixConn, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxPacket {
		return errs.New(errs.Invalid, "a message of %d bytes is more than a keeper takes (%d)", len(b), maxPacket)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, rights, nil)
	return err
}

// receive reads one message. The descriptors are the caller's to close, also when it fails.
func receive(c *net.UnixConn, v any) ([]*os.File, error) {
	b := make([]byte, maxPacket)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, err
	}
	files, err := filesIn(oob[:oobn])
	switch {
	case err != nil:
		return files, err
	case n == 0:
		return files, net.ErrClosed // the other end is gone
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		return files, errs.New(errs.Invalid, "a message is too long")
	}
	if err := json.Unmarshal(b[:n], v); err != nil {
		return files, errs.New(errs.Invalid, "a message cannot be read: %w", err)
	}
	return files, nil
}

func filesIn(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // credentials: not asked for
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// dumpRequest is engine.DumpRequest without the function in it.
type dumpRequest struct {
	Tree       engine.Tree          `json:"tree"`
	Options    engine.Options       `json:"options"`
	FinalState migration.FinalState `json:"final_state"`
	Parent     string               `json:"parent"`
	Lazy       bool                 `json:"lazy,omitempty"`
	Timeout    time.Duration        `json:"timeout"`
}

func wireDump(r engine.DumpRequest) dumpRequest {
	return dumpRequest{Tree: r.Tree, Options: r.Options, FinalState: r.FinalState, Parent: r.Parent, Lazy: r.Lazy, Timeout: r.Timeout}
}

func (r dumpRequest) request(images, pages *os.File) engine.DumpRequest {
	return engine.DumpRequest{Tree: r.Tree, Options: r.Options, FinalState: r.FinalState, Parent: r.Parent, Lazy: r.Lazy, Timeout: r.Timeout, Images: images, Pages: pages}
}

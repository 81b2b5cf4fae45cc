package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/errs"
)

// Client is the worker's side of one keeper. It keeps no connection: each call makes its own, so that a keeper that was
// replaced is found again. It is an engine.Engine whose CRIU runs in the keeper.
type Client struct {
	Dir Dir
}

// answerTime is how long a keeper may take, after a call was cancelled, to say how it ended.
const answerTime = 10 * time.Second

// State asks how the tree is.
func (c *Client) State(ctx context.Context) (State, error) {
	var s State
	err := c.call(ctx, opState, nil, nil, &s)
	return s, err
}

// Wait returns when the tree has ended.
func (c *Client) Wait(ctx context.Context) (State, error) {
	var s State
	err := c.call(ctx, opWait, nil, nil, &s)
	if err == nil && !s.Exited {
		err = errs.New(errs.Unavailable, "the keeper stopped waiting")
	}
	return s, err
}

// Start starts the tree. netns is the network namespace it is to live in, nil for the host's; it stays the caller's.
func (c *Client) Start(ctx context.Context, l Launch, netns *os.File) (State, error) {
	var files []*os.File
	if netns != nil {
		files = append(files, netns)
	}
	var s State
	err := c.call(ctx, opStart, startBody{Launch: l, NetNS: netns != nil}, files, &s)
	return s, err
}

// Watch makes the keeper follow a tree that was there before it. birth as of Birth, 0 for the process as it is.
func (c *Client) Watch(ctx context.Context, pid int, birth uint64) error {
	return c.call(ctx, opWatch, watchBody{Pid: pid, Birth: birth}, nil, nil)
}

// Quit ends the keeper; its tree, if it lives, goes to the host's init. A keeper with a hold refuses.
func (c *Client) Quit(ctx context.Context) error { return c.call(ctx, opQuit, nil, nil, nil) }

// connect greets the keeper. errs.Unavailable if there is none.
func (c *Client) connect(ctx context.Context) (*net.UnixConn, error) {
	d, err := os.OpenFile(string(c.Dir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "there is no keeper in %s: %w", c.Dir, err)
	}
	defer d.Close()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: through(d, filepath.Base(c.Dir.socket()))})
	if err != nil {
		return nil, errs.New(errs.Unavailable, "the keeper in %s does not answer: %w", c.Dir, err)
	}
	end := time.Now().Add(greetTime)
	if dl, ok := ctx.Deadline(); ok && dl.Before(end) {
		end = dl
	}
	_ = conn.SetReadDeadline(end)
	var g greeting
	files, err := receive(conn, &g)
	closeAll(files)
	if err == nil && g.Version != version {
		err = errs.New(errs.Unavailable, "the keeper of %s speaks version %d, this worker %d", g.Workload, g.Version, version).
			WithNext("run the worker it was started by to move or stop the tree")
	}
	if err != nil {
		conn.Close()
		return nil, errs.New(errs.Unavailable, "the keeper in %s does not greet: %w", c.Dir, err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	return conn, nil
}

func (c *Client) call(ctx context.Context, op string, body any, files []*os.File, result any) error {
	return c.callAsking(ctx, op, body, files, nil, result)
}

// callAsking makes one call. asked is what answers the keeper's call back, nil says yes.
func (c *Client) callAsking(ctx context.Context, op string, body any, files []*os.File, asked func(context.Context) (any, error), result any) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if err := send(conn, request{Op: op, Body: b}, files...); err != nil {
		return errs.New(errs.Unavailable, "ask the keeper to %s: %w", op, err)
	}
	// Cancelling is a message, not a disconnect: the keeper then still says how the call ended.
	stop := context.AfterFunc(ctx, func() {
		_ = send(conn, request{Op: opCancel})
		_ = conn.SetReadDeadline(time.Now().Add(answerTime))
	})
	defer stop()
	for {
		var a answer
		got, err := receive(conn, &a)
		closeAll(got)
		switch {
		case err != nil && ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("the keeper did not stop its %s in time: %w", op, ctx.Err())
		case err != nil:
			return errs.New(errs.Unavailable, "the keeper went away during %s: %w", op, errors.Join(err, engine.ErrLost))
		case a.Asks:
			if err := reply(ctx, conn, asked); err != nil {
				return err
			}
		case a.Error != nil:
			return a.Error.err()
		case result == nil:
			return nil
		default:
			return json.Unmarshal(a.Body, result)
		}
	}
}

func reply(ctx context.Context, conn *net.UnixConn, asked func(context.Context) (any, error)) error {
	var said answer
	if asked != nil {
		body, err := asked(ctx)
		said.Error = toWire(err)
		if said.Body, err = json.Marshal(body); err != nil {
			return err
		}
	}
	b, err := json.Marshal(said)
	if err != nil {
		return err
	}
	return send(conn, request{Op: opReply, Body: b})
}

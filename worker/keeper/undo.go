package keeper

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"drover/engine"
	"drover/engine/criu"
	"drover/internal/errs"
	"drover/worker/cgroup"
)

// A dump locks connections and puts sockets into repair mode. While its keeper and CRIU live they undo that; what if both die? CRIU's log
// among the images says by which name it locked. So the worker notes where they are before it asks for a dump, and forgets it when
// the dump's hold is forgotten.

// noteDump notes that a dump begins.
func (c *Client) noteDump(images string) error {
	images, err := filepath.Abs(images)
	if err == nil {
		err = errors.Join(c.forgetDump(), os.Symlink(images, c.Dir.dump()))
	}
	if err != nil {
		return errs.New(errs.Failed, "note where the dump's images are: %w", err)
	}
	return nil
}

func (c *Client) forgetDump() error {
	if err := os.Remove(c.Dir.dump()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.Failed, "forget where the dump's images are: %w", err)
	}
	return nil
}

// Dumped says whether a dump of the tree has begun here whose hold, if it came to one, has not been forgotten.
func (c *Client) Dumped() bool {
	_, err := os.Lstat(c.Dir.dump())
	return err == nil
}

// Images is the directory that such a dump wrote to, "" if there is none.
func (c *Client) Images() string {
	images, err := os.Readlink(c.Dir.dump())
	if err != nil {
		return ""
	}
	return images
}

// NetworkLock is the name of the nftables table that such a dump has left in the tree's network namespace, "" if there is none.
// It needs no keeper.
func (c *Client) NetworkLock() string {
	images := c.Images()
	if images == "" {
		return ""
	}
	return criu.LockName(images)
}

// workEnds is how long Undo waits for a dump that goes on.
const workEnds = 2 * time.Second

// Undo lets a tree run, whatever a dump has left of itself: a hold, which may be one that its worker has not heard of, or, without one, sockets in repair
// mode, the lock of the network, the frozen cgroup, which are undone in this order. It changes nothing of a tree that runs as it should. Beneath a dump
// that goes on it undoes nothing: it fails if that takes longer than workEnds, and may be tried again. It needs no keeper, but one that lives
// has to answer.
func (c *Client) Undo(ctx context.Context, t engine.Tree) error {
	within, cancel := context.WithTimeout(ctx, workEnds)
	defer cancel()
	hold, err := c.HoldOf(within, false)
	if err == nil && hold != nil {
		err = hold.Abort(ctx)
	}
	if err != nil && (errs.KindOf(err) != errs.Unavailable || Gone(within, c.Dir) != nil) {
		return err
	}
	return c.undo(ctx, t)
}

// undo is Undo of a dump of which nobody is left.
func (c *Client) undo(ctx context.Context, t engine.Tree) error {
	if images := c.Images(); images != "" {
		if err := criu.Undo(t, images); err != nil {
			return err
		}
	}
	if t.Cgroup == "" {
		return nil
	}
	return cgroup.Group(t.Cgroup).Thaw(ctx)
}

package track

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
	"drover/internal/errs"
)

// NewSoftDirty makes the tracker that lets the engine do rounds its own way: CRIU's pre-dump finds written pages by the kernel's
// soft-dirty bits and stops the tree only while it looks for them. It needs engine.Features.SoftDirty. dir is an empty directory
// of the tracker's own for what one round leaves for the next; Close removes what is in it.
func NewSoftDirty(e engine.Engine, t engine.Tree, o engine.Options, dir string) Tracker {
	return &softDirty{engine: e, tree: t, options: o, dir: dir}
}

type softDirty struct {
	engine  engine.Engine
	tree    engine.Tree
	options engine.Options
	dir     string
	rounds  int
	parent  string // the last round's images, "" before the first
}

func (s *softDirty) Name() string { return "softdirty" }

// Parent implements Tracker. The path is absolute.
func (s *softDirty) Parent() string { return s.parent }

func (s *softDirty) Close() error { return s.remove(s.parent) }

func (s *softDirty) remove(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove a round's images: %w", err)
	}
	return nil
}

func (s *softDirty) Round(ctx context.Context, emit func(image.Space, uint64, []byte) error) (RoundStats, error) {
	begin := time.Now()
	dir := filepath.Join(s.dir, fmt.Sprintf("round-%d", s.rounds))
	s.rounds++
	if err := os.Mkdir(dir, 0o700); err != nil {
		return RoundStats{Tracker: s.Name()}, fmt.Errorf("make a round's directory: %w", err)
	}
	stats, err := s.preDump(ctx, dir, &counting{emit: emit})
	stats.Tracker, stats.Took = s.Name(), time.Since(begin)
	last := s.parent
	if err != nil { // the bits may have been cleared and the pages not taken: only a round that takes all can follow
		s.parent = ""
		return stats, errors.Join(err, s.remove(dir), s.remove(last))
	}
	s.parent = dir
	return stats, s.remove(last) // only its inventory was needed, and only by this round
}

// preDump makes one round with its pages going through sink.
func (s *softDirty) preDump(ctx context.Context, dir string, sink *counting) (stats RoundStats, err error) {
	images, err := os.Open(dir)
	if err != nil {
		return stats, fmt.Errorf("open a round's directory: %w", err)
	}
	defer images.Close()
	server, client, err := socketPair()
	if err != nil {
		return stats, fmt.Errorf("make a socket for a round's pages: %w", err)
	}
	defer client.Close()
	served := make(chan error, 1)
	go func() {
		defer server.Close() // an error from emit ends the pre-dump
		served <- image.ServePages(server, sink, func(image.Space) bool { return s.parent != "" })
	}()
	req := engine.PreDumpRequest{Tree: s.tree, Options: s.options, Images: images, Pages: client, Parent: s.parent}
	did, err := s.engine.PreDump(ctx, req)
	client.Close() // nothing more comes; without an error all has been acknowledged
	taken := <-served
	switch {
	case sink.failed != nil:
		return stats, sink.failed // emit's own error, which broke the pre-dump
	case err != nil:
		return stats, err
	case taken != nil:
		return stats, errs.New(errs.KindOf(taken), "round of pid %d: %w", s.tree.Pid, taken)
	}
	stats.Scanned, stats.Emitted, stats.Processes = did.PagesScanned, sink.pages, len(sink.processes)
	return stats, nil
}

// counting hands runs on and counts.
type counting struct {
	emit      func(image.Space, uint64, []byte) error
	space     image.Space
	pages     uint64
	processes map[uint64]bool
	failed    error
}

func (c *counting) Open(s image.Space) error {
	c.space = s
	if s.Kind == image.Process {
		if c.processes == nil {
			c.processes = map[uint64]bool{}
		}
		c.processes[s.ID] = true
	}
	return nil
}

func (c *counting) Run(addr uint64, _ uint32, data []byte) error {
	c.pages += uint64(len(data) / image.PageSize)
	c.failed = c.emit(c.space, addr, data)
	return c.failed
}

func (c *counting) Hole(uint64, uint32, uint64) error { return nil }

func (c *counting) Close() error { return nil }

// socketPair are the ends of a connected stream socket.
func socketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "pages"), os.NewFile(uintptr(fds[1]), "pages"), nil
}

package engine_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
)

// BenchmarkHolds measures what a migration pays in the engine alone: a tree of three processes is dumped through the page
// server into images in memory and restored from them. Each figure is the median of five.
func BenchmarkHolds(b *testing.B) {
	onHost(b, func() {
		g := newGround(b)
		s := g.start(b, bigEnv+"=200")
		laps := map[string][]time.Duration{}
		for range 5 {
			measureHolds(b, g, s, laps)
		}
		for what, all := range laps {
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, what)
		}
		b.ReportMetric(0, "ns/op")
		s.Verify(b)
	})
}

func measureHolds(b *testing.B, g *ground, s *subject, laps map[string][]time.Duration) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	lap := func(what string, since time.Time) { laps[what] = append(laps[what], time.Since(since)) }
	dir, err := os.MkdirTemp("/run", "images")
	must(b, err)
	defer os.RemoveAll(dir)
	images, err := os.Open(dir)
	must(b, err)
	defer images.Close()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(b, err)
	server, client := os.NewFile(uintptr(fds[0]), "server"), os.NewFile(uintptr(fds[1]), "client")
	defer server.Close()
	defer client.Close()
	served := make(chan error, 1)
	go func() { served <- image.ServePages(server, &intoFiles{dir: dir}, nil) }()

	begin := time.Now()
	var frozen time.Time
	h, err := g.e.Dump(ctx, engine.DumpRequest{Tree: s.tree, Options: s.Options(), Images: images, Pages: client, AtFreeze: func(context.Context) error {
		frozen = time.Now()
		return nil
	}})
	must(b, err)
	must(b, <-served)
	lap("ms/dump-to-hold", begin)
	lap("ms/frozen-to-hold", frozen)
	begin = time.Now()
	_, err = h.Commit(ctx)
	must(b, err)
	lap("ms/dump-commit", begin)
	eventually(b, "the tree is gone", func() bool { return len(s.Look(b)) == 0 })

	begin = time.Now()
	h, err = g.e.Restore(ctx, s.Into(images))
	must(b, err)
	s.Restored(h.Pid())
	lap("ms/restore-to-hold", begin)
	begin = time.Now()
	_, err = h.Commit(ctx)
	must(b, err)
	lap("ms/restore-commit", begin)
}

// intoFiles is a sink that writes images.
type intoFiles struct {
	dir string
	n   uint32
	w   *image.PagemapWriter
}

func (f *intoFiles) Open(s image.Space) (err error) {
	if err := f.Close(); err != nil {
		return err
	}
	f.n++
	f.w, err = image.NewPagemapWriter(f.dir, s, f.n)
	return err
}

func (f *intoFiles) Run(addr uint64, flags uint32, data []byte) error {
	return f.w.Run(addr, flags, data)
}

func (f *intoFiles) Hole(addr uint64, flags uint32, n uint64) error { return f.w.Hole(addr, flags, n) }

func (f *intoFiles) Close() error {
	if f.w == nil {
		return nil
	}
	w := f.w
	f.w = nil
	return w.Close()
}

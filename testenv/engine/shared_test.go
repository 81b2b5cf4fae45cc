package engine_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/engine"
	"drover/engine/criu"
	"drover/engine/image"
)

// sharers are programs of which two processes write to the same memory; that of System V has an IPC namespace of its own.
var sharers = map[string][]string{
	"memfd":     {"shm", "-kind", "memfd", "-size", "2M", "-say", "20ms"},
	"anonymous": {"shm", "-kind", "anonymous", "-size", "2M", "-say", "20ms"},
	"System V":  {"unshare", "--ipc", "shm", "-kind", "sysv", "-size", "2M", "-say", "20ms"},
}

func startSharer(t *testing.T, argv []string) *outside {
	t.Helper()
	v := startOutside(t, argv...)
	eventually(t, "both processes share memory", func() bool { return len(v.pids()) == 2 && len(v.shared(t)) > 0 })
	v.works(t)
	return v
}

// What trackers hand over of memory that processes share is compared with what they have when they stand still.
func TestSharedMemoryIsHandedOverByteForByte(t *testing.T) {
	onHost(t, func() {
		for name, make := range trackers {
			for kind, argv := range sharers {
				t.Run(name+"/"+kind, func(t *testing.T) {
					v := startSharer(t, argv)
					tr, got := make(v.tree), received{}
					for range 5 {
						_, err := tr.Round(t.Context(), got.take)
						must(t, err)
						v.works(t)
					}
					v.freeze(t, true)
					before := v.compareShared(t, got)
					_, err := tr.Round(t.Context(), got.take)
					must(t, err)
					after := v.compareShared(t, got)
					t.Logf("differing pages: %d of %d before the last round, %d after it", before.differed, before.same+before.differed, after.differed)
					if before.differed == 0 || after.differed > 0 || after.same < 512 {
						t.Errorf("before the last round %+v, after it %+v", before, after)
					}
					v.freeze(t, false)
					must(t, tr.Close())
					v.untouched(t)
					v.ends(t)
				})
			}
		}
	}, "./testenv/victims/shm")
}

// A lazy dump leaves shared memory where it is in any other: whole in the images. No tracker is asked about it.
func TestSharedMemoryIsWholeInALazyDump(t *testing.T) {
	onHost(t, func() {
		for kind, argv := range sharers {
			t.Run(kind, func(t *testing.T) {
				v := startSharer(t, argv)
				dir := t.TempDir()
				images, err := os.Open(dir)
				must(t, err)
				defer images.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				tr := newWP(v.tree)
				_, err = tr.Round(ctx, ignore)
				must(t, err)
				h, err := criu.New(criu.Config{}).Dump(ctx, engine.DumpRequest{Tree: v.tree, Images: images, Lazy: true})
				must(t, err)
				spaces, err := image.Spaces(dir)
				must(t, err)
				spaces = slices.DeleteFunc(spaces, func(s image.Space) bool { return s.Kind != image.Shmem })
				got := received{}
				for _, s := range spaces {
					_, entries, err := image.ReadPagemap(dir, s)
					must(t, err)
					for _, e := range entries {
						if e.Flags&image.PELazy != 0 || e.Flags&image.PEPresent == 0 {
							t.Errorf("%s: %d pages from %#x are not in the image (flags %#x)", s, e.Pages, e.Addr, e.Flags)
						}
					}
					must(t, image.ReadPages(dir, s, func(addr uint64, data []byte) error { return got.take(s, addr, data) }))
				}
				if seen := v.compareShared(t, got); seen.differed > 0 || seen.same < 512 {
					t.Errorf("%+v of %v", seen, spaces)
				}
				must(t, h.Abort(ctx))
				must(t, tr.Close())
				v.works(t)
				v.untouched(t)
				v.ends(t)
			})
		}
	}, "./testenv/victims/shm")
}

// piece is where a process has memory that others have too.
type piece struct {
	pid                       int
	start, end, offset, inode uint64
}

// shared lists one place of every piece of memory, files apart, that the tree's processes share.
func (v *outside) shared(t *testing.T) (all []piece) {
	for _, pid := range v.pids() {
		maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		for line := range strings.Lines(string(maps)) {
			p := piece{pid: pid}
			var perm, device string
			if _, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &p.start, &p.end, &perm, &p.offset, &device, &p.inode); err != nil {
				t.Fatal(err)
			}
			memory := strings.Contains(line, "/memfd:") || strings.Contains(line, "/SYSV") || strings.Contains(line, "/dev/zero")
			if strings.HasSuffix(perm, "s") && memory && !slices.ContainsFunc(all, func(o piece) bool { return o.inode == p.inode }) {
				all = append(all, p)
			}
		}
	}
	return all
}

// compareShared reads what the processes themselves see, of each piece by the number that CRIU's images have for it; a page that nobody handed over must be zeroes.
func (v *outside) compareShared(t *testing.T, got received) (seen sight) {
	t.Helper()
	for _, p := range v.shared(t) {
		mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.pid))
		must(t, err)
		have := got[image.Space{Kind: image.Shmem, ID: p.inode}]
		for at := p.start; at < p.end; at += image.PageSize {
			page := make([]byte, image.PageSize)
			_, err := mem.ReadAt(page, int64(at))
			must(t, err)
			was := have[p.offset+at-p.start]
			if was == nil {
				was = make([]byte, image.PageSize)
			}
			if string(was) == string(page) {
				seen.same++
			} else {
				seen.differed++
			}
		}
		mem.Close()
	}
	return seen
}

package track

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"drover/engine/image"
)

// objects are pieces of memory that processes share: shared anonymous memory, memfds, SysV segments. What protects a page of one
// process from writing does not protect it from the others, so they are always hashed, each once. Only what is mapped is
// found; a final dump carries all of it in any case.
type objects map[objectID]object

type objectID struct {
	device string
	inode  uint64
}

// object says where one is mapped.
type object struct {
	pid        int
	start, end uint64
}

func (o objects) add(pid int, maps []mapping) {
	for _, m := range maps {
		if !m.private() && m.dumped() {
			o[objectID{m.device, m.inode}] = object{pid, m.start, m.end}
		}
	}
}

// hash reads all of them. Addresses are offsets, the space is numbered as CRIU does, by the inode.
func (o objects) hash(ctx context.Context, pass *pass) error {
	for id, at := range o {
		f, err := os.Open(fmt.Sprintf("/proc/%d/map_files/%x-%x", at.pid, at.start, at.end))
		if err != nil {
			continue // it was unmapped meanwhile, or the kernel lets nobody look
		}
		pass.begin(image.Space{Kind: image.Shmem, ID: id.inode})
		err = eachExtent(f, func(start, end uint64) error {
			return pass.read(ctx, start, end, func(addr uint64, b []byte) func(int) bool {
				n, _ := f.ReadAt(b, int64(addr))
				clear(b[n:]) // behind the end of a file its last page is zero
				return func(page int) bool { return page*image.PageSize < n }
			})
		})
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// eachExtent calls f with the ranges of a file in memory that have pages.
func eachExtent(f *os.File, use func(start, end uint64) error) error {
	for at := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // no more
		}
		if err != nil {
			return fmt.Errorf("find the pages of %s: %w", f.Name(), err)
		}
		end, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("find the pages of %s: %w", f.Name(), err)
		}
		end = (end + image.PageSize - 1) / image.PageSize * image.PageSize
		if err := use(uint64(data), uint64(end)); err != nil {
			return err
		}
		at = end
	}
}

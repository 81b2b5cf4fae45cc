package session

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What has been taken of what was promised is not free any more: it must not be counted as promised too.
func TestWhatAStoreAndATreeHaveTakenIsNotPromisedStill(t *testing.T) {
	const mib, machine, tree = 1 << 20, 1 << 30, 100 << 20
	for _, limit := range []int64{0, 600 * mib} {
		taken := int64(0)
		r := New(Config{MemoryFree: func() (int64, error) { return machine - taken, nil }, MemoryLimit: limit, Stores: Stores{Memory: 400 * mib}})
		room := func() int64 {
			t.Helper()
			room, err := r.Room()
			if err != nil {
				t.Fatal(err)
			}
			return room.Memory
		}
		if err := r.reserve("m", "", tree); err != nil {
			t.Fatal(err)
		}
		want := room()
		fd, err := unix.MemfdCreate("store", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		store, inPlace := os.NewFile(uintptr(fd), "store"), int64(0)
		if err := r.fillsUp("m", store, func() int64 { return inPlace }); err != nil {
			t.Fatal(err)
		}
		still := func(when string) {
			t.Helper()
			if got := room(); got != want {
				t.Errorf("limit %d MiB, %s: %d MiB are left, want %d", limit/mib, when, got/mib, want/mib)
			}
		}
		if _, err := store.Write(make([]byte, 8*mib)); err != nil {
			t.Fatal(err)
		}
		taken += 8 * mib
		still("part of the store is there")
		inPlace, taken = 4*mib, taken+4*mib
		still("part of the tree's memory is in place")
		if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4*mib); err != nil {
			t.Fatal(err)
		}
		taken -= 4 * mib
		still("part of the store has been given back")
		if err := r.grow("m", 101*mib); err != nil {
			t.Errorf("limit %d MiB: %v", limit/mib, err)
		}
		if err := r.grow("m", 700*mib); err == nil {
			t.Errorf("limit %d MiB: a store grows beyond all there is", limit/mib)
		}
		store.Close()
		r.free("m")
		if left := r.Reserved(); left != 0 {
			t.Errorf("%d bytes are still promised", left)
		}
	}
}

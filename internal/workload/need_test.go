package workload

import "testing"

func TestWhereAStoreHasRoom(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, c := range []struct {
		what         string
		room         Room
		memory, disk int64
		ok           bool
	}{
		{"all in memory", Room{4 * gib, 4 * gib, 0}, gib, 0, true},
		{"as little as will do", Room{2*gib + 64*mib, 2 * gib, 0}, gib, 0, true},
		{"a byte less", Room{2*gib + 64*mib - 1, 2 * gib, 0}, gib - 1, 1, false},
		{"a byte less, and a disk", Room{2*gib + 64*mib - 1, 2 * gib, 1}, gib - 1, 1, true},
		{"a limit", Room{8 * gib, 100 * mib, 0}, 100 * mib, 924 * mib, false},
		{"a limit and a disk", Room{8 * gib, 100 * mib, gib}, 100 * mib, 924 * mib, true},
		{"a limit and a small disk", Room{8 * gib, 100 * mib, 923 * mib}, 100 * mib, 924 * mib, false},
		{"a limit that others have used up", Room{8 * gib, -5 * mib, gib}, 0, gib, true},
		{"no memory for the tree", Room{gib, gib, 8 * gib}, 0, gib, false},
		{"less than nothing", Room{-gib, -gib, 8 * gib}, 0, gib, false},
	} {
		if memory, disk, ok := c.room.Split(gib); memory != c.memory || disk != c.disk || ok != c.ok {
			t.Errorf("%s: %d MiB in memory, %d MiB on the disk, %t", c.what, memory>>20, disk>>20, ok)
		}
	}
	if _, _, ok := (Room{64 * mib, 0, 0}).Split(-1); !ok {
		t.Error("a tree of no size has no room")
	}
}

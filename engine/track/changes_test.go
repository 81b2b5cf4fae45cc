package track

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"drover/engine/image"
)

func TestARangeIsSplitWhereItIsKnown(t *testing.T) {
	c := &Changes{same: map[uint64][]span{}}
	c.add(7, rising([]span{{0x2000, 0x4000}, {0x4000, 0x5000}, {0x8000, 0x8000}, {0x9000, 0xa000}}), 7)
	if st := c.Stats(); st.Scanned != 3+1+3 || st.Emitted != 3 {
		t.Errorf("%+v", st)
	}
	for _, q := range []struct {
		pid, start, end uint64
		want            string
	}{
		{7, 0x1000, 0xb000, "1000-2000 2000-5000= 5000-9000 9000-a000= a000-b000"},
		{7, 0x3000, 0x4000, "3000-4000="},
		{7, 0x4000, 0x9000, "4000-5000= 5000-9000"},
		{7, 0x5000, 0x9000, "5000-9000"},
		{7, 0xa000, 0xb000, "a000-b000"},
		{7, 0x1000, 0x2000, "1000-2000"},
		{7, 0x2000, 0x2000, ""},
		{8, 0x2000, 0x4000, "2000-4000"},
	} {
		if got := split(t, c, q.pid, q.start, q.end); got != q.want {
			t.Errorf("%#x-%#x of %d: %q, want %q", q.start, q.end, q.pid, got, q.want)
		}
	}
	if got := split(t, nil, 7, 0x2000, 0x4000); got != "2000-4000" {
		t.Errorf("who knows nothing says %q", got)
	}
	full := errors.New("full")
	if err := c.Split(7, 0x1000, 0xb000, func(_, _ uint64, same bool) error {
		if same {
			return full
		}
		return nil
	}); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

func split(t *testing.T, c *Changes, pid, start, end uint64) string {
	t.Helper()
	var got []string
	if err := c.Split(pid, start, end, func(start, end uint64, same bool) error {
		one := fmt.Sprintf("%x-%x", start, end)
		if same {
			one += "="
		}
		got = append(got, one)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

func TestPagesThatAreOwedOrWereHandedOverOnceAreNotKnown(t *testing.T) {
	w := &watch{owed: map[uint64]bool{0x3000: true, 0x6000: true}, recent: []span{{0x8000, 0xa000}}}
	got := less([]span{{0x2000, 0x5000}, {0x6000, 0x7000}, {0x9000, 0xb000}}, rising(w.unsure()))
	if want := []span{{0x2000, 0x3000}, {0x4000, 0x5000}, {0xa000, 0xb000}}; !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestRangesAreLookedUpByTheMappingsTheyAreIn(t *testing.T) {
	ranges := []span{{0x2000, 0x3000}, {0x4000, 0x9000}}
	for _, c := range []struct {
		m    mapping
		want bool
	}{
		{mapping{start: 0x1000, end: 0x2000}, false},
		{mapping{start: 0x2000, end: 0x3000}, true},
		{mapping{start: 0x3000, end: 0x4000}, false},
		{mapping{start: 0x4000, end: 0x5000}, true},
		{mapping{start: 0x8000, end: 0x9000}, true},
		{mapping{start: 0x9000, end: 0xa000}, false},
	} {
		if got := touches(&ranges, c.m); got != c.want {
			t.Errorf("%x: %v", c.m.start, got)
		}
	}
}

func TestAStretchEndsAtWhatIsNotRegistered(t *testing.T) {
	maps := []mapping{
		{start: 0x400000, end: 0x401000, perm: "r-xp"},
		{start: 0x500000, end: 0x501000, perm: "rw-p"},
		{start: 0x600000, end: 0x601000, perm: "rw-s"},
		{start: 0x601000, end: 0x602000, perm: "r--p", name: "[vvar]"},
		{start: 0x700000, end: 0x701000, perm: "rw-p"},
	}
	var got []string
	for s := range eachStretch(maps) {
		got = append(got, fmt.Sprintf("%x-%x:%d", s.start, s.end, len(s.maps)))
	}
	if want := fmt.Sprintf("%x-600000:2 602000-701000:1", 16*image.PageSize); strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestWhatRangesHaveBeyondOthers(t *testing.T) {
	for _, c := range []struct{ ranges, others, want []span }{
		{[]span{{1, 5}, {7, 9}}, nil, []span{{1, 5}, {7, 9}}},
		{[]span{{1, 5}, {7, 9}}, []span{{2, 3}, {4, 8}}, []span{{1, 2}, {3, 4}, {8, 9}}},
		{[]span{{1, 5}, {7, 9}}, []span{{0, 10}}, nil},
		{[]span{{4, 5}, {7, 9}}, []span{{1, 2}, {5, 7}, {9, 12}}, []span{{4, 5}, {7, 9}}},
		{[]span{{1, 9}}, []span{{0, 2}, {2, 3}, {8, 9}}, []span{{3, 8}}},
	} {
		if got := less(c.ranges, c.others); !slices.Equal(got, c.want) {
			t.Errorf("%v less %v is %v, want %v", c.ranges, c.others, got, c.want)
		}
	}
}

func TestWhatAScanReportsTwiceCountsOnce(t *testing.T) {
	c := &Changes{same: map[uint64][]span{}}
	c.add(1, rising([]span{{0x3000, 0x6000}, {0x1000, 0x3000}, {0x2000, 0x4000}, {0x8000, 0x9000}, {0x8000, 0x8000}, {0x4000, 0x5000}}), 0)
	var got []span
	at := uint64(0)
	if err := c.Split(1, 0, 0xa000, func(start, end uint64, same bool) error {
		if start != at || end <= start {
			t.Fatalf("a piece from %#x to %#x follows one that ended at %#x", start, end, at)
		}
		if at = end; same {
			got = append(got, span{start, end})
		}
		return nil
	}); err != nil || at != 0xa000 {
		t.Fatalf("it ended at %#x: %v", at, err)
	}
	if want := []span{{0x1000, 0x6000}, {0x8000, 0x9000}}; !slices.Equal(got, want) || c.Stats().Scanned != 6 {
		t.Errorf("%x are the same, %d pages; want %x", got, c.Stats().Scanned, want)
	}
}

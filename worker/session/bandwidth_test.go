package session

import (
	"slices"
	"testing"

	"drover/internal/migration"
)

func TestAHostsBandwidthIsShared(t *testing.T) {
	for _, c := range []struct {
		why  string
		host int64
		own  []int64
		want []int64
	}{
		{"nobody sends", 100, nil, nil},
		{"no limit at all", 0, []int64{0, 0}, []int64{0, 0}},
		{"only their own", 0, []int64{10, 0}, []int64{10, 0}},
		{"in equal parts", 100, []int64{0, 0}, []int64{50, 50}},
		{"what one may not use the others get", 100, []int64{0, 10, 0}, []int64{45, 10, 45}},
		{"own limits are kept", 1000, []int64{30, 20}, []int64{30, 20}},
		{"large own limits give no right", 90, []int64{500, 500, 30}, []int64{30, 30, 30}},
		{"never none at all, which would be no limit", 1, []int64{0, 0}, []int64{1, 1}},
	} {
		got := shares(c.host, c.own)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.why, got, c.want)
		}
	}
}

func TestEveryChangeIsToldToAllThatSend(t *testing.T) {
	b := bandwidth{of: map[migration.ID]*sending{}}
	limits := map[migration.ID]int64{}
	set := func(id migration.ID) func(int64) { return func(n int64) { limits[id] = n } }
	want := func(when string, a, c int64) {
		t.Helper()
		if limits["a"] != a || limits["c"] != c {
			t.Errorf("%s: %v", when, limits)
		}
	}
	b.join("a", -1, set("a"))
	want("alone", 0, 0)
	b.limitHost(100)
	want("the host is limited", 100, 0)
	b.join("c", 20, set("c"))
	want("another comes", 80, 20)
	b.limit("c", 0)
	want("and is limited no more", 50, 50)
	b.leave("c")
	b.limit("c", 7)
	want("it is frozen", 100, 50)
	b.limitHost(0)
	want("the host neither", 0, 50)
}

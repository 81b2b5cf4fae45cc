package track

import "slices"

// Changes says which pages of a frozen tree are still what a tracker's rounds have handed over last. A nil *Changes knows of none.
type Changes struct {
	same    map[uint64][]span // by pid in the tree's own namespace; by rising address
	watched []*watch          // of the processes that same is known of
	stats   RoundStats
}

// Stats are the figures of the scan: Scanned is how many pages of their own the watched processes have, Emitted how many of them changed.
func (c *Changes) Stats() RoundStats {
	if c == nil {
		return RoundStats{}
	}
	return c.stats
}

// Split calls f with the range from start to end of the process with that pid (in the tree's own pid namespace) in pieces, by
// rising address. Of a piece that is the same, whatever the rounds have handed over last for each of its pages is what the page
// holds, as long as the tree stands still; no other piece may be relied on: it changed, was never seen, or is memory of a kind that cannot be
// watched. It stops at f's first error. start and end are addresses of pages.
func (c *Changes) Split(pid, start, end uint64, f func(start, end uint64, same bool) error) error {
	if c == nil {
		return f(start, end, false)
	}
	all := c.same[pid]
	i, _ := slices.BinarySearchFunc(all, start, func(s span, at uint64) int {
		if s.end <= at {
			return -1
		}
		return 1
	})
	for ; start < end && i < len(all) && all[i].start < end; i++ {
		if start < all[i].start {
			if err := f(start, all[i].start, false); err != nil {
				return err
			}
			start = all[i].start
		}
		to := min(end, all[i].end)
		if err := f(start, to, true); err != nil {
			return err
		}
		start = to
	}
	if start < end {
		return f(start, end, false)
	}
	return nil
}

// add notes which of a process's pages are the same, by rising address; it has so many of its own.
func (c *Changes) add(pid uint64, same []span, pages uint64) {
	c.same[pid] = same
	n := count(same)
	c.stats.Scanned += max(pages, n)
	c.stats.Emitted += max(pages, n) - n
}

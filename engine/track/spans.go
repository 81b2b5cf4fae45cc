package track

import (
	"cmp"
	"slices"

	"drover/engine/image"
)

// span is a range of addresses, of whole pages.
type span struct{ start, end uint64 }

// rising puts ranges into order and makes those one that meet. A scan may report a range twice, because the kernel can say that it
// came less far than it did (walk_end of PAGEMAP_SCAN stays where its buffer was full once).
func rising(ranges []span) []span {
	slices.SortFunc(ranges, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	joined := make([]span, 0, len(ranges))
	for _, s := range ranges {
		switch n := len(joined); {
		case s.start == s.end:
		case n > 0 && s.start <= joined[n-1].end:
			joined[n-1].end = max(joined[n-1].end, s.end)
		default:
			joined = append(joined, s)
		}
	}
	return joined
}

// less is what ranges have beyond others; both rise.
func less(ranges, others []span) (rest []span) {
	for _, s := range ranges {
		for len(others) > 0 && others[0].end <= s.start {
			others = others[1:]
		}
		for _, o := range others {
			if o.start >= s.end {
				break
			}
			if s.start < o.start {
				rest = append(rest, span{s.start, o.start})
			}
			s.start = min(s.end, max(s.start, o.end))
		}
		if s.start < s.end {
			rest = append(rest, s)
		}
	}
	return rest
}

// count is how many pages ranges have.
func count(ranges []span) (n uint64) {
	for _, s := range ranges {
		n += (s.end - s.start) / image.PageSize
	}
	return n
}

package image

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
)

// AddLazy notes in the pagemap of a process that a lazy dump in dir has left pages out, as CRIU would have noted it: as far as they lie in
// mappings whose memory such a dump leaves out. What the pagemap says of a page already stays, and what CRIU has
// written is not left out. left need not be in order and may overlap.
// Pages that a lazy dump must not leave out are an error: they would be lost. pid is as in the tree's own pid namespace.
func AddLazy(dir string, pid uint64, left []Range) error {
	space := Space{Process, pid}
	mappings, err := readMappings(dir, pid)
	if err != nil {
		return err
	}
	id, entries, err := ReadPagemap(dir, space)
	if err != nil {
		return err
	}
	left = joined(left)
	var lazy, dumped, known []Range
	for _, m := range mappings {
		switch {
		case m.lazy():
			lazy = append(lazy, m.Range)
		case m.dumped():
			dumped = append(dumped, m.Range)
		}
	}
	if lost, _ := parted(left, joined(dumped)); len(lost) > 0 {
		return bad(PagemapName(space), "page %#x was left out of a mapping that a lazy dump has", lost[0].Start)
	}
	for i, e := range entries {
		known = append(known, Range{e.Addr, e.End()})
		if e.Flags&PEPresent != 0 { // a lazy restore is not to take it for left out
			entries[i].Flags &^= PELazy
		}
	}
	ours, _ := parted(left, joined(lazy))
	_, ours = parted(ours, known)
	for _, r := range ours {
		entries = append(entries, Entry{r.Start, (r.End - r.Start) / PageSize, PELazy})
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Addr, b.Addr) })
	return replacePagemap(dir, space, id, entries)
}

// joined are ranges in order, each as long as it can be.
func joined(all []Range) (rising []Range) {
	for _, r := range slices.SortedFunc(slices.Values(all), func(a, b Range) int { return cmp.Compare(a.Start, b.Start) }) {
		if n := len(rising); n > 0 && r.Start <= rising[n-1].End {
			rising[n-1].End = max(rising[n-1].End, r.End)
			continue
		}
		rising = append(rising, r)
	}
	return rising
}

// parted parts ranges into what lies within others and what does not. Both rise and do not overlap.
func parted(all, others []Range) (within, without []Range) {
	i := 0
	for _, r := range all {
		for i < len(others) && others[i].End <= r.Start {
			i++
		}
		for j := i; r.Start < r.End; j++ {
			if j == len(others) || others[j].Start >= r.End {
				without = append(without, r)
				break
			}
			if o := others[j]; r.Start < o.Start {
				without = append(without, Range{r.Start, o.Start})
				r.Start = o.Start
			}
			end := min(r.End, others[j].End)
			within = append(within, Range{r.Start, end})
			r.Start = end
		}
	}
	return within, without
}

// replacePagemap writes the pagemap of a space anew, all at once: its pages file stays as it is.
func replacePagemap(dir string, s Space, pagesID uint32, entries []Entry) error {
	path := filepath.Join(dir, PagemapName(s))
	f, err := create(path + ".new")
	if err != nil {
		return err
	}
	w := newEntryWriter(f, pagesID)
	for _, e := range entries {
		err = errors.Join(err, w.add(e.Addr, e.Flags, e.Pages))
	}
	if err = errors.Join(err, w.close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = os.Remove(path + ".new")
	}
	return err
}

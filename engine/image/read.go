package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Entry is one run of a pagemap: Pages pages from Addr on, in one of the places that Flags says.
type Entry struct {
	Addr  uint64
	Pages uint64
	Flags uint32
}

// End is the address behind the run.
func (e Entry) End() uint64 { return e.Addr + e.Pages*PageSize }

// maxParents bounds a chain of parent images; rounds are far fewer.
const maxParents = 256

// ReadPagemap reads the pagemap of a space in dir: the number of its pages file and its entries, which rise and do not overlap.
func ReadPagemap(dir string, s Space) (pagesID uint32, entries []Entry, err error) {
	name := PagemapName(s)
	err = eachRecord(dir, name, magicPagemap, pagemapDecoder(name, &pagesID, &entries))
	if err == nil && pagesID == 0 {
		err = bad(name, "it names no pages file")
	}
	return pagesID, entries, err
}

// pagemapDecoder takes the records of a pagemap: a head with the number of the pages file, then entries.
func pagemapDecoder(name string, pagesID *uint32, entries *[]Entry) func([]byte) error {
	var f fields
	return func(b []byte) error {
		var ok bool
		f, ok = parseInto(f, b)
		first, has := f.one(1)
		if !ok || !has {
			return bad(name, "entry %d cannot be read", len(*entries))
		}
		if *pagesID == 0 {
			if *pagesID = uint32(first); *pagesID == 0 {
				return bad(name, "its head cannot be read")
			}
			return nil
		}
		e := Entry{Addr: first}
		e.Pages, has = f.one(5)
		if !has { // as CRIU 4.1 wrote it
			e.Pages, _ = f.one(2)
		}
		flags, _ := f.one(4)
		e.Flags = uint32(flags)
		last := uint64(0)
		if n := len(*entries); n > 0 {
			last = (*entries)[n-1].End()
		}
		if e.Pages == 0 || e.Pages > maxPages || e.Addr%PageSize != 0 || e.End() < e.Addr || e.Addr < last {
			return bad(name, "entry %d has %d pages at %#x", len(*entries), e.Pages, e.Addr)
		}
		*entries = append(*entries, e)
		return nil
	}
}

// Spaces lists the spaces that have a pagemap in dir.
func Spaces(dir string) ([]Space, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var all []Space
	for _, f := range files {
		rest, ok := strings.CutPrefix(f.Name(), "pagemap-")
		rest, img := strings.CutSuffix(rest, ".img")
		if !ok || !img {
			continue
		}
		s := Space{Kind: Process}
		if id, shared := strings.CutPrefix(rest, "shmem-"); shared {
			s.Kind, rest = Shmem, id
		}
		if s.ID, err = strconv.ParseUint(rest, 10, 32); err != nil {
			return nil, bad(f.Name(), "its name has no number")
		}
		all = append(all, s)
	}
	return all, nil
}

// ReadPages hands every page of a space to emit in rising order, those of parent images too (dir/parent, as CRIU links it), in
// runs of at most 256 pages; data is valid during the call. Lazy pages without data are left out.
func ReadPages(dir string, s Space, emit func(addr uint64, data []byte) error) error {
	levels, err := openLevels(dir, s)
	defer levels.close()
	if err != nil {
		return err
	}
	buf := make([]byte, maxRun*PageSize)
	for _, e := range levels[0].entries {
		if err := levels.read(0, e, buf, emit); err != nil {
			return err
		}
	}
	return nil
}

// level is a space's images in one directory of a chain.
type level struct {
	entries []Entry
	offsets []int64 // in the pages file, by entry
	pages   *os.File
	name    string
}

type levels []level

func (ls levels) close() {
	for _, l := range ls {
		if l.pages != nil {
			l.pages.Close()
		}
	}
}

// openLevels opens the images of a space in dir and in its parents, as far as they have the space.
func openLevels(dir string, s Space) (ls levels, err error) {
	for len(ls) < maxParents {
		id, entries, err := ReadPagemap(dir, s)
		if err != nil {
			return ls, err
		}
		l := level{entries: entries, name: PagesName(id), offsets: make([]int64, len(entries))}
		at := int64(0)
		for i, e := range entries {
			l.offsets[i] = at
			if e.Flags&PEPresent != 0 {
				at += int64(e.Pages * PageSize)
			}
		}
		if l.pages, err = os.Open(filepath.Join(dir, l.name)); err != nil {
			return ls, bad(l.name, "it cannot be opened")
		}
		ls = append(ls, l)
		dir = filepath.Join(dir, "parent")
		if _, err := os.Stat(filepath.Join(dir, PagemapName(s))); errors.Is(err, os.ErrNotExist) {
			return ls, nil
		}
	}
	return ls, bad(PagemapName(s), "more than %d parents", maxParents)
}

// read emits the pages of [e.Addr, e.End()) as level i has them, from its parents where it says so.
func (ls levels) read(i int, want Entry, buf []byte, emit func(uint64, []byte) error) error {
	if i >= len(ls) {
		return bad(ls[len(ls)-1].name, "page %#x is said to be in a parent that lacks it", want.Addr)
	}
	at := want.Addr
	for j, e := range ls[i].entries {
		if e.End() <= at || e.Addr >= want.End() {
			continue
		}
		if e.Addr > at {
			break
		}
		part := Entry{Addr: at, Pages: (min(e.End(), want.End()) - at) / PageSize, Flags: e.Flags}
		var err error
		switch {
		case e.Flags&PEPresent != 0:
			err = ls[i].emit(ls[i].offsets[j]+int64(at-e.Addr), part, buf, emit)
		case e.Flags&PEParent != 0:
			err = ls.read(i+1, part, buf, emit)
		}
		if err != nil {
			return err
		}
		at = part.End()
	}
	if at < want.End() {
		return bad(ls[i].name, "page %#x is missing", at)
	}
	return nil
}

func (l level) emit(offset int64, e Entry, buf []byte, emit func(uint64, []byte) error) error {
	for at := e.Addr; at < e.End(); {
		b := buf[:min(uint64(len(buf)), e.End()-at)]
		if _, err := l.pages.ReadAt(b, offset); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", l.name, err)
		} else if err != nil {
			return bad(l.name, "it is torn")
		}
		if err := emit(at, b); err != nil {
			return err
		}
		at, offset = at+uint64(len(b)), offset+int64(len(b))
	}
	return nil
}

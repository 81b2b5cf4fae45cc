package image

import (
	"fmt"
	"os"
	"path/filepath"
)

// perProcess are the images that every living process has, with their magic numbers (criu/include/magic.h). CRIU crashes in the
// half-built process if one is missing.
var perProcess = map[string]uint32{"mm": 0x57492820, "ids": 0x54432030, "fs": 0x51403912}

// Check says whether dir has a whole dump that CRIU 4.2 can read: an inventory, every process's own images, a pagemap for each
// that lives, and pages files exactly as long as the pagemaps say. It reads no page. What is torn, foreign or left out is an
// engine.ErrBadImage that names the file.
func Check(dir string) error { return check(dir, false) }

// CheckLazy is Check of a lazy dump, whose pagemaps name pages that the images do not have.
func CheckLazy(dir string) error { return check(dir, true) }

func check(dir string, lazy bool) error {
	inv, err := ReadInventory(dir)
	if err != nil {
		return err
	}
	if inv.Version < 1 || inv.Version > 2 {
		return bad("inventory.img", "version %d is not one that drover knows", inv.Version)
	}
	tasks, err := ReadTasks(dir)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if t.State != Alive && t.State != Stopped {
			continue // a zombie has no memory
		}
		if err := checkProcess(dir, t.Pid); err != nil {
			return err
		}
	}
	spaces, err := Spaces(dir)
	if err != nil {
		return err
	}
	owner := map[uint32]Space{}
	for _, s := range spaces {
		id, err := checkSpace(dir, s, lazy)
		if err != nil {
			return err
		}
		if other, taken := owner[id]; taken {
			return bad(PagesName(id), "it belongs to %s and to %s", other, s)
		}
		owner[id] = s
	}
	return nil
}

func checkProcess(dir string, pid int) error {
	for kind, magic := range perProcess {
		most := uint32(maxRecord)
		if kind == "mm" {
			most = maxMM
		}
		if err := eachRecordOf(dir, fmt.Sprintf("%s-%d.img", kind, pid), magic, most, func([]byte) error { return nil }); err != nil {
			return err
		}
	}
	pagemap := PagemapName(Space{Process, uint64(pid)})
	if _, err := os.Stat(filepath.Join(dir, pagemap)); err != nil {
		return bad(pagemap, "it is missing")
	}
	return nil
}

// checkSpace compares a pages file with its pagemap.
func checkSpace(dir string, s Space, lazy bool) (pagesID uint32, err error) {
	id, entries, err := ReadPagemap(dir, s)
	if err != nil {
		return 0, err
	}
	var want uint64
	for _, e := range entries {
		switch {
		case lazy && e.Flags&PELazy != 0 && e.Flags&PEPresent != 0: // which CRIU would pass over
			return 0, bad(PagemapName(s), "page %#x was not left to a lazy restore", e.Addr)
		case e.Flags&PEPresent != 0:
			want += e.Pages * PageSize
		case e.Flags&PELazy != 0 && e.Flags&PEParent == 0 && !lazy:
			return 0, bad(PagemapName(s), "page %#x was left to a lazy restore", e.Addr)
		}
	}
	st, err := os.Stat(filepath.Join(dir, PagesName(id)))
	if err != nil {
		return 0, bad(PagesName(id), "it is missing")
	}
	if uint64(st.Size()) != want {
		return 0, bad(PagesName(id), "it has %d bytes and its pagemap says %d", st.Size(), want)
	}
	return id, nil
}

package image

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const magicMM = 0x57492820

// maxMM bounds an mm image: it has one record with every mapping in it, some 60 bytes each, and Linux allows 65,530 by default.
const maxMM = 64 << 20

// Range is memory of a process, [Start, End).
type Range struct{ Start, End uint64 }

// mapping is one of a process's, as its mm image has it (images/mm.proto, images/vma.proto).
type mapping struct {
	Range
	flags  uint64 // of mmap, as parse_vmflags in criu/proc_parse.c finds them
	status uint64 // criu/include/image.h
	advice uint64 // a bit for each number of madvise
}

const (
	vmaRegular     = 1 << 0
	vmaKernels     = 1<<2 | 1<<3 | 1<<12 // vsyscall, vdso, vvar
	vmaFilePrivate = 1 << 6
	vmaAnonPrivate = 1 << 9
	vmaAIORing     = 1 << 13
)

// lazy says whether a lazy dump leaves the pages out (vma_entry_can_be_lazy in criu/include/vma.h).
func (m mapping) lazy() bool {
	const private = unix.MAP_ANONYMOUS | unix.MAP_PRIVATE
	return m.flags&private == private && m.flags&(unix.MAP_LOCKED|unix.MAP_HUGETLB) == 0 && m.status&vmaKernels == 0
}

// dumped says whether a dump has the pages (generate_vma_iovs in criu/mem.c).
func (m mapping) dumped() bool {
	private := m.status&vmaRegular != 0 && m.status&(vmaAnonPrivate|vmaFilePrivate) != 0 || m.status&vmaAIORing != 0
	return private && m.flags&unix.MAP_DROPPABLE == 0
}

// readMappings lists the mappings of the process with that pid in the tree's own pid namespace.
func readMappings(dir string, pid uint64) (all []mapping, err error) {
	name := fmt.Sprintf("mm-%d.img", pid)
	err = eachRecordOf(dir, name, magicMM, maxMM, func(b []byte) error {
		mm, ok := parse(b)
		if !ok {
			return bad(name, "its entry cannot be read")
		}
		var vma fields
		for b := range mm.strings(14) {
			vma, ok = parseInto(vma, b)
			start, has := vma.one(1)
			end, also := vma.one(2)
			if !ok || !has || !also || start >= end {
				return bad(name, "it has a mapping that cannot be read")
			}
			m := mapping{Range: Range{start, end}}
			m.flags, _ = vma.one(6)
			m.status, _ = vma.one(7)
			m.advice, _ = vma.one(9)
			all = append(all, m)
		}
		return nil
	})
	return all, err
}

// ForkAdvised lists the mappings of a process that a child does not get as its parent has them: MADV_DONTFORK and
// MADV_WIPEONFORK. pid is as in the tree's own pid namespace.
func ForkAdvised(dir string, pid uint64) (all []Range, err error) {
	mappings, err := readMappings(dir, pid)
	for _, m := range mappings {
		if m.advice&(1<<unix.MADV_DONTFORK|1<<unix.MADV_WIPEONFORK) != 0 {
			all = append(all, m.Range)
		}
	}
	return all, err
}

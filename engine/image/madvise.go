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

// ForkAdvised lists the mappings of a process that a child does not get as its parent has them: MADV_DONTFORK and
// MADV_WIPEONFORK (images/mm.proto, images/vma.proto, parse_vmflags in criu/proc_parse.c). pid is as in the tree's own pid namespace.
func ForkAdvised(dir string, pid uint64) (all []Range, err error) {
	name := fmt.Sprintf("mm-%d.img", pid)
	err = eachRecordOf(dir, name, magicMM, maxMM, func(b []byte) error {
		mm, ok := parse(b)
		if !ok {
			return bad(name, "its entry cannot be read")
		}
		for _, b := range mm.bytes[14] {
			vma, ok := parse(b)
			start, has := vma.one(1)
			end, also := vma.one(2)
			if !ok || !has || !also || start >= end {
				return bad(name, "it has a mapping that cannot be read")
			}
			if advice, _ := vma.one(9); advice&(1<<unix.MADV_DONTFORK|1<<unix.MADV_WIPEONFORK) != 0 {
				all = append(all, Range{start, end})
			}
		}
		return nil
	})
	return all, err
}

package inject

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mostCode is how much of a mapping is searched for an instruction, in bytes.
const mostCode = 4 << 20

// findEntry is the address of a system call instruction in the process: in its vdso, or else in any code it has.
func findEntry(pid int) (uint64, error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, errors.Join(unix.ESRCH, err)
	}
	defer maps.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer mem.Close()
	var others []code
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var c code
		var perm string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &c.start, &c.end, &perm); n < 3 || !strings.Contains(perm, "x") {
			continue
		}
		switch {
		case strings.HasSuffix(lines.Text(), "[vdso]"):
			if at, ok := c.entry(mem); ok {
				return at, nil
			}
		case !strings.HasSuffix(lines.Text(), "[vsyscall]"):
			others = append(others, c)
		}
	}
	for _, c := range others {
		if at, ok := c.entry(mem); ok {
			return at, nil
		}
	}
	return 0, ErrEntry
}

type code struct{ start, end uint64 }

func (c code) entry(mem io.ReaderAt) (uint64, bool) {
	b := make([]byte, min(c.end-c.start, mostCode))
	n, _ := mem.ReadAt(b, int64(c.start)) // part of it will do
	i := indexEntry(b[:n])
	return c.start + uint64(max(i, 0)), i >= 0
}

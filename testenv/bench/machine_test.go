package bench

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// machine says where the figures come from.
func machine(b *testing.B) {
	b.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d × %s, Linux %s, all hosts on this machine", runtime.NumCPU(), processor(b), unix.ByteSliceToString(u.Release[:]))
}

// processor is the machine's, as the kernel names it.
func processor(b *testing.B) string {
	b.Helper()
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown processor"
}

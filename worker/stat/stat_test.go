package stat

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

func TestStatIsReadWhateverAProcessIsCalled(t *testing.T) {
	p, ok := Parse("42 (a) b (c) T 7 42 41 34816 42 4194304 1 2 3 4 5 6 7 8 20 0 3 0 99 1000 10 18446744073709551615")
	want := Process{Pid: 42, Parent: 7, Session: 41, Comm: "a) b (c", State: "T", TTY: 34816, Threads: 3, RSS: 10 * int64(os.Getpagesize()), Birth: 99}
	if !ok || p != want {
		t.Errorf("got %+v, %v", p, ok)
	}
	for _, torn := range []string{"", "42", "42 (x", "42 (x) S 1", "x (y) " + strings.Repeat("1 ", 30)} {
		if _, ok := Parse(torn); ok {
			t.Errorf("%q is taken for a process", torn)
		}
	}
}

func TestAProcessIsRead(t *testing.T) {
	p, err := Read(os.Getpid())
	if err != nil || p.Pid != os.Getpid() || p.Parent != os.Getppid() || p.Kernel || p.Zombie() || p.Birth == 0 || p.RSS <= 0 || p.Threads < 1 {
		t.Errorf("this process is %+v, %v", p, err)
	}
	if k, err := Read(2); err == nil && !k.Kernel && k.Comm == "kthreadd" {
		t.Errorf("kthreadd is %+v", k)
	}
	if _, err := Read(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a pid that cannot be: %v", err)
	}
}

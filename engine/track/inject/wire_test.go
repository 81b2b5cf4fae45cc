package inject

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns []*net.UnixConn
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c.(*net.UnixConn))
	}
	return conns[0], conns[1]
}

func TestAnErrorIsTheSameOnTheOtherSide(t *testing.T) {
	here, there := pair(t)
	for _, want := range append(known, errors.New("another")) {
		a := answer{Number: 7}
		a.fail(fmt.Errorf("in pid 1: %w", want))
		if err := send(here, a, -1); err != nil {
			t.Fatal(err)
		}
		var got answer
		if _, err := receive(there, &got); err != nil {
			t.Fatal(err)
		}
		err := got.err()
		if err == nil || err.Error() != "in pid 1: "+want.Error() || got.Number != 7 {
			t.Errorf("%v came as %v", want, err)
		}
		for _, k := range known {
			if errors.Is(err, k) != errors.Is(want, k) {
				t.Errorf("%v: it is %v: %t", want, k, errors.Is(err, k))
			}
		}
	}
}

func TestADescriptorComesAlongAndNothingIsLeftOfAMessageThatIsRefused(t *testing.T) {
	here, there := pair(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	open := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	if err := send(here, request{Pid: 1}, int(null.Fd())); err != nil {
		t.Fatal(err)
	}
	var r request
	fd, err := receive(there, &r)
	if err != nil || fd < 0 || r.Pid != 1 {
		t.Fatalf("descriptor %d, %+v, %v", fd, r, err)
	}
	unix.Close(fd)
	before := open()
	for what, message := range map[string]any{"too long": make([]int, maxMessage), "something else": "a string"} {
		if err := send(here, message, int(null.Fd())); err != nil {
			t.Fatal(err)
		}
		if fd, err := receive(there, &r); err == nil || fd >= 0 {
			t.Errorf("%s: descriptor %d, %v", what, fd, err)
		}
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors before and %d after", before, after)
	}
	here.Close()
	if _, err := receive(there, &r); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the other end is gone: %v", err)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"pid":1}`))
	f.Add([]byte(`{"pid":1,"close":3}`))
	f.Add([]byte(`{"error":"no","is":[0,-1,99]}`))
	here, there := pair(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 2*maxMessage {
			return
		}
		for _, v := range []any{&request{}, &answer{}} {
			if _, err := here.Write(b); err != nil {
				t.Fatal(err)
			}
			fd, err := receive(there, v)
			if fd >= 0 || err == nil && len(b) > maxMessage {
				t.Fatalf("descriptor %d, %v", fd, err)
			}
			if a, ok := v.(*answer); ok {
				_ = a.err()
			}
		}
	})
}

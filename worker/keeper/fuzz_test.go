package keeper

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzReceive: whatever one packet holds, it is a request or an error.
func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"op":"dump","body":{"tree":{"pid":1}}}`))
	f.Add([]byte(`{"op":"hold","body":`))
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(file)
		file.Close()
		if err != nil {
			f.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		defer c.Close()
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) == 0 || len(packet) > maxPacket {
			return
		}
		if _, err := ends[0].Write(packet); err != nil {
			t.Fatal(err)
		}
		var r request
		files, err := receive(ends[1], &r)
		closeAll(files)
		if err == nil && !json.Valid(packet) {
			t.Errorf("%q was taken", packet)
		}
	})
}

// FuzzLockName: whatever the inventory of an image says, the name of its lock is that of a table of CRIU's, or none.
func FuzzLockName(f *testing.F) {
	dir := f.TempDir()
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{1, 2, 3, 4, 6, 0, 0, 0}, 0x5a, 4, 'a', 'b', 'c', 'd'))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, "inventory.img"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		images, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer images.Close()
		name, err := lockName(images)
		if err == nil && name != "" && (!strings.HasPrefix(name, "CRIU-") || len(name) > 31) {
			t.Errorf("%q", name)
		}
		if err == nil && len(b) >= 8 && uint64(binary.LittleEndian.Uint32(b[4:])) > uint64(len(b)) {
			t.Error("a torn inventory was read")
		}
	})
}

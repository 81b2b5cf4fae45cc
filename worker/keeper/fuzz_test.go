package keeper

import (
	"encoding/json"
	"net"
	"os"
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

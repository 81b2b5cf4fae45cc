package main

import (
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/phaul"
	criurpc "github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// None is what calls carry that carry nothing.
type None struct{}

// Target is what the source calls, one after the other.
type Target struct {
	listener int
	server   *phaul.Server
}

// serve answers calls until the source ends its side.
func serve(out io.WriteCloser) error {
	calls := rpc.NewServer()
	if err := calls.Register(&Target{}); err != nil {
		return err
	}
	calls.ServeConn(pipe{os.Stdin, out})
	return nil
}

// Listen makes the socket that pages come through.
func (t *Target) Listen(None, *None) (err error) {
	if t.listener, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err := unix.Bind(t.listener, &unix.SockaddrUnix{Name: socket}); err != nil {
		return err
	}
	return unix.Listen(t.listener, 1)
}

// Accept takes the source's connection to it, as a descriptor that children inherit.
func (t *Target) Accept(None, *None) error {
	pages, _, err := unix.Accept4(t.listener, 0)
	if err != nil {
		return err
	}
	if err := os.Mkdir(rounds, 0o700); err != nil {
		return err
	}
	t.server, err = phaul.MakePhaulServer(phaul.Config{Memfd: pages, Wdir: rounds})
	return err
}

// StartIter has CRIU take the pages of one round.
func (t *Target) StartIter(None, *None) error { return t.server.StartIter() }

// StopIter ends the round.
func (t *Target) StopIter(None, *None) error { return t.server.StopIter() }

// Restore rebuilds the tree from the pages and from what the final dump wrote beside them, and says when it ran.
func (t *Target) Restore(address string, at *int64) error {
	last := t.server.LastImagesDir()
	written, err := filepath.Glob(final + "/*.img")
	if err != nil {
		return err
	}
	for _, name := range written {
		if err := os.Link(name, filepath.Join(last, filepath.Base(name))); err != nil {
			return err
		}
	}
	dir, err := os.Open(last)
	if err != nil {
		return err
	}
	defer dir.Close()
	if address != "" {
		if said, err := exec.Command("ip", "address", "add", address+"/24", "dev", "eth0").CombinedOutput(); err != nil {
			return fmt.Errorf("add the address: %w: %s", err, said)
		}
	}
	ignore := criurpc.CriuCgMode_IGNORE
	err = t.server.GetCriu().Restore(&criurpc.CriuOpts{
		ImagesDirFd: proto.Int32(int32(dir.Fd())), LogLevel: proto.Int32(4), LogFile: proto.String("restore.log"),
		TcpEstablished: proto.Bool(true), ManageCgroups: proto.Bool(true), ManageCgroupsMode: &ignore,
	}, nil)
	*at = time.Now().UnixNano()
	if err != nil {
		return fmt.Errorf("restore: %w%s", err, complaints())
	}
	if address == "" {
		return nil
	}
	return exec.Command("arping", "-q", "-U", "-c", "1", "-I", "eth0", address).Run()
}

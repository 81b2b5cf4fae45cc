package main

import (
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/checkpoint-restore/go-criu/v8"
	"github.com/checkpoint-restore/go-criu/v8/phaul"
	criurpc "github.com/checkpoint-restore/go-criu/v8/rpc"
	"github.com/checkpoint-restore/go-criu/v8/stats"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// source moves a tree away. It is phaul's local side.
type source struct {
	criu.NoNotify
	target, ssh, log, address string

	peer     *rpc.Client // answers from when call returned until it is closed
	dumped   time.Time
	restored int64 // the target's clock, in nanoseconds
}

// pipe is a process's standard input and output as one stream.
type pipe struct {
	io.Reader
	io.WriteCloser
}

func (s *source) move(pid int32, out io.Writer) (err error) {
	serving, err := s.call()
	if err != nil {
		return fmt.Errorf("start phaul on %s: %w", s.target, err)
	}
	defer func() { err = errors.Join(err, s.peer.Close(), serving.Wait()) }() // it ends with its input
	pages, err := s.pagesToTarget()
	if err != nil {
		return fmt.Errorf("a socket for pages to %s: %w", s.target, err)
	}
	for _, dir := range []string{rounds, final} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	client, err := phaul.MakePhaulClient(s, remote{s.peer}, phaul.Config{Pid: pid, Memfd: pages, Wdir: rounds})
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := client.Migrate(); err != nil {
		return fmt.Errorf("migrate: %w%s", err, complaints())
	}
	fmt.Fprintf(out, "begun %d\ndumped %d\nrestored %d\n", begun.UnixNano(), s.dumped.UnixNano(), s.restored)
	return sayRounds(out)
}

// call starts the target's part.
func (s *source) call() (*exec.Cmd, error) {
	serving := s.remotely(program, "-serve")
	serving.Stderr = os.Stderr
	in, err := serving.StdinPipe()
	if err != nil {
		return nil, err
	}
	from, err := serving.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.peer = rpc.NewClient(pipe{from, in})
	return serving, serving.Start()
}

// remotely is a command on the target; as ssh does it, its arguments are joined and split again by a shell there.
func (s *source) remotely(argv ...string) *exec.Cmd {
	return exec.Command("ssh", append([]string{"-S", s.ssh, "root@" + s.target}, argv...)...) //nolint:gosec // a benchmark's own words
}

// pagesToTarget is a stream to the target's socket, as a descriptor that children inherit: CRIU takes it by number.
func (s *source) pagesToTarget() (int, error) {
	if err := s.peer.Call("Target.Listen", None{}, &None{}); err != nil {
		return 0, err
	}
	forward := exec.Command("ssh", "-S", s.ssh, "-O", "forward", "-L", socket+":"+socket, "root@"+s.target)
	if said, err := forward.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("forward %s: %w: %s", socket, err, said)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return 0, err
	}
	return fd, s.peer.Call("Target.Accept", None{}, &None{})
}

// DumpCopyRestore is the last step: the tree stands still from here on, and is dead when this returns nil.
func (s *source) DumpCopyRestore(c *criu.Criu, cfg phaul.Config, last string) error {
	dir, err := os.Open(final)
	if err != nil {
		return err
	}
	defer dir.Close()
	ignore := criurpc.CriuCgMode_IGNORE
	nftables := criurpc.CriuNetworkLockMethod_NFTABLES
	err = c.Dump(&criurpc.CriuOpts{
		Pid: proto.Int32(cfg.Pid), ImagesDirFd: proto.Int32(int32(dir.Fd())), LogLevel: proto.Int32(4), LogFile: proto.String("log"),
		TrackMem: proto.Bool(true), ParentImg: proto.String(last), Ps: &criurpc.CriuPageServerInfo{Fd: proto.Int32(int32(cfg.Memfd))},
		TcpEstablished: proto.Bool(true), NetworkLock: &nftables, ManageCgroups: proto.Bool(true), ManageCgroupsMode: &ignore,
	}, s)
	s.dumped = time.Now()
	return err
}

// PostDump copies what the dump wrote beside the pages, and has the target restore, while CRIU holds the tree.
func (s *source) PostDump() error {
	copies := fmt.Sprintf("set -eo pipefail; tar -C / -cf - %s %s | zstd -1 -q -c | ssh -S %s root@%s 'zstd -d -q -c | tar -C / -xf -'",
		strings.TrimPrefix(final, "/"), strings.TrimPrefix(s.log, "/"), s.ssh, s.target)
	if s.address != "" {
		copies = fmt.Sprintf("ip address del %s/24 dev eth0; %s", s.address, copies)
	}
	if said, err := exec.Command("bash", "-c", copies).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the images: %w: %s", err, said)
	}
	return s.peer.Call("Target.Restore", s.address, &s.restored)
}

// remote is phaul's other side.
type remote struct{ peer *rpc.Client }

func (r remote) StartIter() error { return r.peer.Call("Target.StartIter", None{}, &None{}) }
func (r remote) StopIter() error  { return r.peer.Call("Target.StopIter", None{}, &None{}) }

// sayRounds says what CRIU counted of each.
func sayRounds(out io.Writer) error {
	for n := 0; ; n++ {
		dir, err := os.Open(fmt.Sprintf("%s/%d", rounds, n))
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		s, err := stats.CriuGetDumpStats(dir)
		dir.Close()
		if err != nil {
			return fmt.Errorf("read CRIU's figures of round %d: %w", n+1, err)
		}
		fmt.Fprintf(out, "round %d\n", s.GetPagesWritten())
	}
}

// complaints are the errors in CRIU's logs below the images.
func complaints() (all string) {
	logs, _ := filepath.Glob(images + "/*/*log")
	deeper, _ := filepath.Glob(images + "/*/*/*log")
	for _, name := range append(logs, deeper...) {
		text, _ := os.ReadFile(name)
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "Error") {
				all += "\n" + name + ": " + strings.TrimSpace(line)
			}
		}
	}
	return all
}

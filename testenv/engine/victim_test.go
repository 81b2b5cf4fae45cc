package engine_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A victim is this binary as a tree of three processes: a parent and two children, each with threads that write private and
// shared anonymous memory, joined in a ring of pipes and by TCP connections. What each thread has done it counts in its own
// memory and in a file that is mapped shared; a copy with stale or lost memory finds that the two differ.
const (
	victimEnv    = "DROVER_ENGINETEST_VICTIM" // "parent" or a child's index
	countersEnv  = "DROVER_ENGINETEST_COUNTERS"
	bigEnv       = "DROVER_ENGINETEST_MEGABYTES" // of memory beside, in the parent
	victimKids   = 2
	victimThread = 3
	victimPages  = 64
	victimPace   = 200 * time.Microsecond
)

// counters is a page of the shared file: one process's.
type counters struct {
	Pid    uint64
	Wrong  uint64 // pages, messages or counts that were not what they must be
	Ready  uint64
	Rounds uint64 // of the ring
	Heard  uint64 // messages, over all connections
	Works  [victimThread]uint64
}

const countersSize = 4096

// slot is process i's page of the mapped file.
func slot(file []byte, i int) *counters {
	return (*counters)(unsafe.Pointer(&file[i*countersSize]))
}

// mapCounters maps the file of a tree, making it if it is not there.
func mapCounters(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const size = (victimKids + 1) * countersSize
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// victim is the life of one process of the tree; it never returns.
func victim(role string) {
	file, err := mapCounters(os.Getenv(countersEnv))
	if err != nil {
		fmt.Fprintln(os.Stderr, "victim:", err)
		os.Exit(1)
	}
	me := 0
	in, out := os.NewFile(3, "in"), os.NewFile(4, "out")
	var conns []net.Conn
	if role == "parent" {
		in, out, conns = family(file)
	} else {
		me, _ = strconv.Atoi(role)
		f := os.NewFile(5, "tcp")
		c, err := net.FileConn(f)
		if err != nil {
			os.Exit(1)
		}
		f.Close()
		conns = []net.Conn{c}
	}
	c := slot(file, me)
	c.Pid = uint64(os.Getpid())
	for i := range victimThread {
		flags := unix.MAP_PRIVATE
		if i == 1 {
			flags = unix.MAP_SHARED
		}
		go work(c, i, flags)
	}
	for _, conn := range conns {
		go talk(c, conn)
	}
	if mb, _ := strconv.Atoi(os.Getenv(bigEnv)); mb > 0 && role == "parent" {
		fill(mb)
	}
	atomic.StoreUint64(&c.Ready, 1)
	ring(c, me, in, out)
}

// family starts the children and returns the parent's ends of the ring and of the TCP connections.
func family(file []byte) (in, out *os.File, conns []net.Conn) {
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "victim:", err)
			os.Exit(1)
		}
	}
	firstIn, out, err := os.Pipe()
	check(err)
	in = firstIn
	for i := 1; i <= victimKids; i++ {
		nextIn, nextOut, err := os.Pipe()
		check(err)
		ours, theirs := tcpPair(check)
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), victimEnv+"="+strconv.Itoa(i))
		cmd.ExtraFiles = []*os.File{in, nextOut, theirs}
		check(cmd.Start())
		in.Close()
		nextOut.Close()
		theirs.Close()
		in, conns = nextIn, append(conns, ours)
		go cmd.Wait()
	}
	return in, out, conns
}

// tcpPair is an established TCP connection over loopback.
func tcpPair(check func(error)) (net.Conn, *os.File) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	check(err)
	defer l.Close()
	var d net.Dialer
	d.SetMultipathTCP(false)
	a, err := d.Dial("tcp4", l.Addr().String())
	check(err)
	b, err := l.Accept()
	check(err)
	f, err := b.(*net.TCPConn).File()
	check(err)
	b.Close()
	return a, f
}

// talk sends numbers over a connection and checks those that come back. Both ends do; a lost or repeated byte shows.
func talk(c *counters, conn net.Conn) {
	var said, heard uint64
	b := make([]byte, 8)
	for {
		said++
		binary.LittleEndian.PutUint64(b, said)
		if _, err := conn.Write(b); err != nil {
			atomic.AddUint64(&c.Wrong, 1)
			return
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			atomic.AddUint64(&c.Wrong, 1)
			return
		}
		atomic.AddUint64(&c.Heard, 1)
		if heard++; binary.LittleEndian.Uint64(b) != heard {
			atomic.AddUint64(&c.Wrong, 1)
		}
		time.Sleep(victimPace)
	}
}

// ring passes a token on, for ever.
func ring(c *counters, me int, in, out *os.File) {
	b := make([]byte, 8)
	if me == 0 {
		out.Write(b)
	}
	for {
		if _, err := io.ReadFull(in, b); err != nil {
			os.Exit(0) // a neighbour died, and so does the tree
		}
		atomic.AddUint64(&c.Rounds, 1)
		time.Sleep(victimPace)
		out.Write(b)
	}
}

// work writes one page after the other on a thread of its own and looks again at what it wrote.
func work(c *counters, i, flags int) {
	runtime.LockOSThread()
	mem, err := unix.Mmap(-1, 0, victimPages*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|flags)
	if err != nil {
		os.Exit(1)
	}
	var own uint64 // in private memory: must stay what the shared file says
	for {
		if atomic.LoadUint64(&c.Works[i]) != own {
			atomic.AddUint64(&c.Wrong, 1)
		}
		own++
		page := func(n uint64) []byte { return mem[n%victimPages*4096:][:4096] }
		for o := 0; o < 4096; o += 512 {
			binary.LittleEndian.PutUint64(page(own)[o:], own)
		}
		if oldest := own + 1; own >= victimPages { // the page that will be written next was written victimPages ago
			for o := 0; o < 4096; o += 512 {
				if binary.LittleEndian.Uint64(page(oldest)[o:]) != oldest-victimPages {
					atomic.AddUint64(&c.Wrong, 1)
				}
			}
		}
		atomic.StoreUint64(&c.Works[i], own)
		time.Sleep(victimPace)
	}
}

// fill takes memory that no two pages of are alike.
func fill(megabytes int) {
	mem, err := unix.Mmap(-1, 0, megabytes<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
	if err != nil {
		os.Exit(1)
	}
	x := uint64(88172645463325252)
	for o := 0; o < len(mem); o += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(mem[o:], x)
	}
}

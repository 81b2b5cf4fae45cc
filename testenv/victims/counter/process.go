package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// process is one process of the tree: its threads and its children.
type process struct {
	options
	threads  []*thread
	children []*child
	pid      int
	parent   int
}

// child is a process below: beats go down its pipe, reports come up its socket.
type child struct {
	down *os.File
	up   *json.Decoder
}

// A child finds its ends at these descriptors.
const (
	downFd = 3
	upFd   = 4
)

func startProcess(o options) (*process, error) {
	p := &process{options: o, pid: os.Getpid(), parent: os.Getppid()}
	for i := range o.threads {
		t, err := startThread(uint64(o.index)<<12|uint64(i), o)
		if err != nil {
			return nil, err
		}
		p.threads = append(p.threads, t)
	}
	for i := o.index*o.fanOut + 1; i <= (o.index+1)*o.fanOut && i < o.processes; i++ {
		c, err := o.spawn(i)
		if err != nil {
			return nil, fmt.Errorf("start child %d: %w", i, err)
		}
		p.children = append(p.children, c)
	}
	return p, nil
}

func (o options) spawn(index int) (*child, error) {
	downOut, downIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer downOut.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	upIn := os.NewFile(uintptr(pair[0]), "up")
	defer upIn.Close()
	cmd := exec.Command("/proc/self/exe",
		"-index", strconv.Itoa(index), "-processes", strconv.Itoa(o.processes), "-fan-out", strconv.Itoa(o.fanOut),
		"-threads", strconv.Itoa(o.threads), "-pages", strconv.Itoa(o.pages), "-pause", o.pause.String())
	cmd.Args[0] = "counter"
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{downOut, upIn} // downFd, upFd
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = cmd.Wait() }() // its end shows as the end of its socket
	return &child{down: downIn, up: json.NewDecoder(os.NewFile(uintptr(pair[1]), "up"))}, nil
}

// answer is a child's work: each beat that comes down goes on below, and the subtree's report goes up. It ends with its parent.
func (p *process) answer() error {
	down, up := os.NewFile(downFd, "down"), json.NewEncoder(os.NewFile(upFd, "up"))
	beats := json.NewDecoder(down)
	for expected := uint64(1); ; expected++ {
		var n uint64
		if err := beats.Decode(&n); err != nil {
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("read a beat: %w", err)
		}
		r, err := p.beat(n)
		if err != nil {
			return err
		}
		if n != expected {
			r.blame(fmt.Errorf("beat %d came, want %d", n, expected))
			expected = n
		}
		if err := up.Encode(r); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
}

// beat sends the beat down, gathers the reports of the tree below and adds this process's own.
func (p *process) beat(n uint64) (Report, error) {
	r := Report{Beat: n, Processes: 1, Threads: len(p.threads)}
	for i, c := range p.children {
		if _, err := fmt.Fprintln(c.down, n); err != nil {
			return r, fmt.Errorf("send beat %d to child %d: %w", n, i, err)
		}
	}
	for i, c := range p.children {
		var below Report
		if err := c.up.Decode(&below); err != nil {
			return r, fmt.Errorf("report of child %d: %w", i, err)
		}
		if below.Beat != n {
			r.blame(fmt.Errorf("child %d answered beat %d, want %d", i, below.Beat, n))
		}
		r.add(below)
	}
	for _, t := range p.threads {
		r.add(t.report())
	}
	if pid := os.Getpid(); pid != p.pid {
		r.blame(fmt.Errorf("pid %d has become %d", p.pid, pid))
	}
	if parent := os.Getppid(); p.index > 0 && parent != p.parent {
		r.blame(fmt.Errorf("process %d: parent %d has become %d", p.pid, p.parent, parent))
	}
	return r, nil
}

func (r *Report) add(below Report) {
	r.Processes += below.Processes
	r.Threads += below.Threads
	r.Steps += below.Steps
	r.Faults += below.Faults
	if r.Fault == "" {
		r.Fault = below.Fault
	}
}

func (r *Report) blame(err error) { r.add(Report{Faults: 1, Fault: err.Error()}) }

// writeStatus overwrites the file in place: it is one open file all the time, as a database's is.
func writeStatus(file *os.File, r Report) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(fmt.Appendf(nil, "%-512s\n", line), 0)
	return err
}

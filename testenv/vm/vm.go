package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"drover/internal/errs"
)

// Machine is a running virtual machine. Its methods may be called from several goroutines; it does one thing at a time.
type Machine struct {
	dir  string
	qemu *exec.Cmd
	done chan struct{}

	mu   sync.Mutex
	port net.Conn
	in   *json.Decoder
}

// Request is what goes into the machine through its port, as JSON.
type Request struct {
	Argv []string    // a command to run, or
	Path string      // a file to write
	Mode os.FileMode // of the file
	Data []byte      // of the file
}

// Answer is what comes back.
type Answer struct {
	Out, Err string // of the command
	Failed   string // why it failed, "" if it did not
}

// Boot starts a machine with that much memory and returns when it answers. The caller closes it. Build output goes to log.
func Boot(ctx context.Context, log io.Writer, megabytes int) (*Machine, error) {
	p, err := build(ctx, log)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "drover-vm-") // short: the path of a unix socket may have 107 bytes
	if err != nil {
		return nil, errs.New(errs.Failed, "make a machine's folder: %w", err)
	}
	m := &Machine{dir: dir, done: make(chan struct{})}
	if err := m.start(ctx, p, megabytes); err != nil {
		return nil, errors.Join(errs.New(errs.Failed, "boot a virtual machine: %w\n%s", err, m.lastWords()), m.Close())
	}
	return m, nil
}

func (m *Machine) console() string { return filepath.Join(m.dir, "console") }

// lastWords is the end of what came on the console: a kernel that fails says why there.
func (m *Machine) lastWords() string {
	text, _ := os.ReadFile(m.console())
	return string(text[max(0, len(text)-8000):])
}

func (m *Machine) start(ctx context.Context, p parts, megabytes int) error {
	socket := filepath.Join(m.dir, "port")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	// cx16 is left out because the emulation of cmpxchg16b has corrupted guests; huge pages, because one dirty byte would make 512
	// pages dirty. It has one processor because guests with two have crashed under load.
	m.qemu = exec.Command("qemu-system-x86_64",
		"-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max,-cx16", "-smp", "1", "-m", fmt.Sprint(megabytes),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "file:"+m.console(),
		"-kernel", p.kernel, "-initrd", p.initramfs,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off transparent_hugepage=never",
		"-drive", "file="+p.disk+",format=raw,if=virtio,snapshot=on,cache=unsafe",
		"-device", "virtio-serial", "-chardev", "socket,id=port,path="+socket, "-device", "virtserialport,chardev=port,name=drover")
	var complaint bytes.Buffer
	m.qemu.Stderr = &complaint
	if err := m.qemu.Start(); err != nil {
		m.qemu = nil
		return err
	}
	go func() {
		_ = m.qemu.Wait() // its complaint says more
		close(m.done)
		listener.Close()
	}()
	if m.port, err = listener.Accept(); err != nil {
		return fmt.Errorf("qemu ended: %s", strings.TrimSpace(complaint.String()))
	}
	m.in = json.NewDecoder(m.port)
	return m.greet(ctx)
}

// greet returns when the guest has said that it is there.
func (m *Machine) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // ready in 4 to 10 s on a machine that is not busy
	defer cancel()
	stop := context.AfterFunc(ctx, func() { m.port.Close() })
	defer stop()
	var hello Answer
	if err := m.in.Decode(&hello); err != nil {
		return fmt.Errorf("it does not answer: %w", errors.Join(ctx.Err(), err))
	}
	return nil
}

// Run runs a command in the machine and returns its standard output. A context that ends is the end of the machine too: what
// still runs in it cannot be stopped otherwise.
func (m *Machine) Run(ctx context.Context, argv ...string) (string, error) {
	a, err := m.ask(ctx, Request{Argv: argv})
	if err == nil && a.Failed != "" {
		err = errs.New(errs.Failed, "%s in the virtual machine: %s: %s", argv[0], a.Failed, strings.TrimSpace(a.Err))
	}
	return a.Out, err
}

// Install copies a file of the machine outside, executable.
func (m *Machine) Install(ctx context.Context, file, at string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return errs.New(errs.NotFound, "install in the virtual machine: %w", err)
	}
	a, err := m.ask(ctx, Request{Path: at, Mode: 0o755, Data: data})
	if err == nil && a.Failed != "" {
		err = errs.New(errs.Failed, "install %s in the virtual machine: %s", at, a.Failed)
	}
	return err
}

func (m *Machine) ask(ctx context.Context, r Request) (a Answer, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { m.port.Close() })
	defer stop()
	if err = json.NewEncoder(m.port).Encode(r); err == nil {
		err = m.in.Decode(&a)
	}
	if err != nil {
		return a, errs.New(errs.Unavailable, "the virtual machine does not answer: %w\n%s", errors.Join(ctx.Err(), err), m.lastWords())
	}
	return a, nil
}

// Close ends the machine and removes what it wrote.
func (m *Machine) Close() error {
	if m.qemu != nil {
		_ = m.qemu.Process.Kill() // it may have ended
		<-m.done
	}
	if m.port != nil {
		m.port.Close()
	}
	if err := os.RemoveAll(m.dir); err != nil {
		return errs.New(errs.Failed, "remove a machine's folder: %w", err)
	}
	return nil
}

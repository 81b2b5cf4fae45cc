package criu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/internal/proc"
	"drover/engine/lazy"
	"drover/internal/errs"
)

// lazyPages says why memory cannot be left to drover here, nil if it can.
func (s *swrk) lazyPages(ctx context.Context) error {
	resp, err := s.talk(ctx, &rpc.CriuReq{Type: rpc.CriuReqType_FEATURE_CHECK.Enum(), KeepOpen: ptr(true), Features: &rpc.CriuFeatures{LazyPages: ptr(true)}}, goOn)
	if err := lazy.Available(); err != nil {
		return err // which says more than CRIU does
	}
	if err != nil {
		return errors.New("CRIU could not be asked whether it restores lazily: " + s.whyNoAnswer(resp, err))
	}
	if !resp.GetSuccess() || !resp.GetFeatures().GetLazyPages() {
		return errors.New("CRIU says that it cannot restore lazily")
	}
	return nil
}

// mayLazy refuses what CRIU would only find out in the middle.
func mayLazy(what string) error {
	if err := lazy.Available(); err != nil {
		return errs.New(errs.Refused, "%s: %w: %w", what, engine.ErrNotLazy, err).WithNext("ask without Lazy: Features.LazyPages says what an engine can")
	}
	return nil
}

// startLazy starts CRIU for a dump that leaves memory out. Where CRIU is not shown that memory, nothing of it remains for CRIU to leave out,
// and the dump is a plain one. Asked to be lazy, it would copy 16 bytes for each page of address space in the freeze, memory or not
// (__parasite_dump_pages_seized in criu/mem.c): 1.2 GiB for 300 GiB that are only reserved.
func (d *dump) startLazy(req engine.DumpRequest, prepare []func() error) (usePages func(*rpc.CriuOpts), err error) {
	if err := mayLazy(fmt.Sprintf("dump pid %d", d.tree.Pid)); err != nil {
		return nil, err
	}
	if d.left = newUnseen(d.tree); d.left != nil {
		prepare = append(prepare, d.left.prepare)
	}
	usePages = func(*rpc.CriuOpts) {}
	if d.left != nil && !slices.ContainsFunc(proc.OfTree(d.tree), hasLocked) {
		if d.s, err = startFrom(prepare, forked{}, d.engine.path, req.Images); err != nil {
			err = d.engine.startFailed(err)
		}
	} else {
		usePages, err = d.startServed(req, prepare)
	}
	if err != nil {
		if d.left != nil {
			err = errors.Join(err, d.left.Close())
		}
		return nil, err
	}
	pid := d.s.cmd.Process.Pid
	if d.left != nil {
		d.left.serve(pid)
		d.s.beside = append(d.s.beside, d.left)
	}
	if err := raiseLimit(pid); err != nil {
		d.engine.log.Debug("CRIU may lack descriptors", "error", err)
	}
	return usePages, nil
}

// startServed starts CRIU for a dump that it is shown memory of and leaves it out itself. Such a dump ends in a page server of CRIU's own
// (cr_lazy_mem_dump in criu/cr-dump.c), after the verdict and whatever it is: it would hand out what was left out, and waits to be told
// that nobody wants more. drover reads the tree itself and wants none, so that the word which ends the server lies in its socket from
// the start. The socket is inherited, and no port is opened; CRIU takes it (ps-socket) from its configuration alone, which it reads
// after the request.
func (d *dump) startServed(req engine.DumpRequest, prepare []func() error) (usePages func(*rpc.CriuOpts), err error) {
	if err := mayLeave(d.tree, req.Options, d.left != nil); err != nil {
		return nil, err
	}
	what := fmt.Sprintf("dump pid %d", d.tree.Pid)
	ours, theirs, err := endedServer()
	if err != nil {
		return nil, errs.New(errs.Failed, "%s: make a socket for CRIU's page server: %w", what, err)
	}
	defer theirs.Close()
	conf, err := configuration(fmt.Sprintf("ps-socket %d\n", firstFD))
	if err != nil {
		ours.Close()
		return nil, errs.New(errs.Failed, "%s: make a configuration for CRIU: %w", what, err)
	}
	defer conf.Close()
	if d.s, err = startFrom(prepare, forked{}, d.engine.path, req.Images, theirs, conf); err != nil {
		ours.Close()
		return nil, d.engine.startFailed(err)
	}
	d.s.beside = append(d.s.beside, ours) // the server answers, and its answer must have somewhere to go
	return func(opts *rpc.CriuOpts) {
		opts.LazyPages = ptr(true)
		opts.ConfigFile = ptr(fmt.Sprintf("/proc/self/fd/%d", firstFD+1))
	}, nil
}

const (
	psClose   = 0x1023 // PS_IOV_CLOSE in criu/page-xfer.c
	psMessage = 32     // struct page_server_iov of CRIU 4.2
)

// endedServer is a connection to CRIU's page server on which all has been said already.
func endedServer() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "page server"), os.NewFile(uintptr(fds[1]), "page server")
	word := make([]byte, psMessage)
	binary.NativeEndian.PutUint32(word, psClose)
	if _, err := ours.Write(word); err != nil {
		return nil, nil, errors.Join(err, ours.Close(), theirs.Close())
	}
	return ours, theirs, nil
}

// configuration is a file of CRIU's options, in memory.
func configuration(text string) (*os.File, error) {
	fd, err := unix.MemfdCreate("criu.conf", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "criu.conf")
	if _, err := f.WriteString(text); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

package criu

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/internal/proc"
	"drover/internal/errs"
)

// In a lazy dump CRIU keeps all memory that it is shown in pipes until the verdict (criu/page-pipe.c), and so two descriptors for every
// few MiB.
const (
	pipePages = 1024 // in a pipe: PIPE_MAX_SIZE, rounded up as the kernel does; less where CAP_SYS_RESOURCE is missing
	// fdSetSize is the first number of a descriptor that libnftables cannot wait for: it uses select(2), and CRIU dies of it. Each
	// connection of a tree in CRIU's own network namespace is locked through it, amid the dump.
	fdSetSize = 1024
	otherFDs  = 64 // of CRIU's own, about
)

// mayLeave refuses the lazy dump of a tree that CRIU has not the descriptors for. unseen says that it is shown no memory but that of
// processes which have locked some.
func mayLeave(t engine.Tree, o engine.Options, unseen bool) error {
	var pages []uint64
	for _, pid := range proc.OfTree(t) {
		if unseen && !hasLocked(pid) {
			continue
		}
		pages = append(pages, anonymousPages(pid))
	}
	unlimited := mayExceedLimits()
	limit, why := descriptors(unlimited), "it may have no more than %d"
	if o.TCPEstablished && netnsOf(t.Pid) == "" && limit > fdSetSize {
		limit, why = fdSetSize, "it cannot lock the connections of a tree in the host's network namespace with more than %d"
	}
	if need := pipeDescriptors(pages, pipeCapacity(unlimited)); need > limit {
		return errs.New(errs.Refused, "dump pid %d: to leave its memory to drover, CRIU needs about %d descriptors, and "+why+": %w", t.Pid, need, limit, engine.ErrNotLazy).
			WithNext("ask without Lazy")
	}
	return nil
}

// pipeDescriptors is how many descriptors CRIU needs for processes with so many pages each; a tenth more than now, since they may
// grow until they are frozen.
func pipeDescriptors(pages []uint64, capacity uint64) uint64 {
	need := uint64(otherFDs)
	for _, n := range pages {
		need += 2 * ((n+n/10)/capacity + 2) // memory left out and other memory have pipes of their own
	}
	return need
}

// pipeCapacity is how many pages CRIU gets into a pipe.
func pipeCapacity(unlimited bool) uint64 {
	if unlimited {
		return pipePages
	}
	return min(pipePages, max(1, readNumber("/proc/sys/fs/pipe-max-size")/4096))
}

// raiseLimit lets CRIU's process have as many descriptors as it may: it tries for more, and without CAP_SYS_RESOURCE is left with
// the soft limit, to which Go resets what it starts.
func raiseLimit(pid int) error {
	var r unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &r); err != nil {
		return err
	}
	r.Cur = r.Max
	return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &r, nil)
}

// descriptors is how many CRIU may have once its limit has been raised.
func descriptors(unlimited bool) uint64 {
	if unlimited {
		return readNumber("/proc/sys/fs/nr_open")
	}
	var r unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &r) // it cannot fail with these arguments
	return r.Max
}

func readNumber(path string) uint64 {
	b, _ := os.ReadFile(path)
	n, _ := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	return n
}

// anonymousPages is how many pages a process has that are no file's, resident or swapped; 0 if it has gone.
func anonymousPages(pid int) (pages uint64) {
	for _, name := range []string{"RssAnon", "VmSwap"} {
		kib, _ := statusNumber(pid, name)
		pages += kib / 4
	}
	return pages
}

// mayExceedLimits says whether this process, and so CRIU, has CAP_SYS_RESOURCE.
func mayExceedLimits() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[0].Effective>>unix.CAP_SYS_RESOURCE&1 == 1
}

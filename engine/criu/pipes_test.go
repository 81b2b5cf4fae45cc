package criu

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"drover/engine"
)

func TestDescriptorsGrowWithMemory(t *testing.T) {
	const gib = 1 << 18 // in pages
	for _, c := range []struct {
		pages           []uint64
		capacity, limit uint64
		fits            bool
	}{
		{[]uint64{100, 100}, pipePages, fdSetSize, true},
		{[]uint64{gib}, pipePages, fdSetSize, true},
		{[]uint64{gib, gib}, pipePages, fdSetSize, false},
		{[]uint64{gib / 4}, 256, fdSetSize, true},
		{[]uint64{gib / 2}, 256, fdSetSize, false},
		{[]uint64{512 * gib}, pipePages, 1 << 20, true},
	} {
		if need := pipeDescriptors(c.pages, c.capacity); (need <= c.limit) != c.fits {
			t.Errorf("%v pages in pipes of %d need %d descriptors, there are %d", c.pages, c.capacity, need, c.limit)
		}
	}
}

func TestATreeWithTooMuchMemoryIsNotDumpedLazily(t *testing.T) {
	mem, err := unix.Mmap(-1, 0, 64<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if n := anonymousPages(os.Getpid()); n < uint64(len(mem))/4096 {
		t.Errorf("this process has %d anonymous pages", n)
	}
	self := engine.Tree{Pid: os.Getpid()}
	if err := mayLeave(self, engine.Options{TCPEstablished: true}, false); err != nil {
		t.Errorf("64 MiB: %v", err)
	}
}

func TestCRIUMayHaveAllTheDescriptorsThereAre(t *testing.T) {
	s := impostor(t, "read never <&3")
	pid := s.cmd.Process.Pid
	var r unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &r); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: r.Max}, nil); err != nil {
		t.Fatal(err)
	}
	if err := raiseLimit(pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &r); err != nil || r.Cur != r.Max || r.Cur <= 100 {
		t.Errorf("the limit is %d of %d, %v", r.Cur, r.Max, err)
	}
}

package lazy

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine/image"
)

// TestTheEndMayComeWhileTheTreeIsBusy: the tree drops and asks for memory in the instant when the last page is in place.
func TestTheEndMayComeWhileTheTreeIsBusy(t *testing.T) {
	for range 20 {
		b := newBed(t, 64)
		b.ready()
		var stop atomic.Bool
		var busy sync.WaitGroup
		done := make(chan error, 1)
		go func() { _, err := b.fill(); done <- err }()
		for b.relay.Release() != nil {
			runtime.Gosched()
		}
		for g := range 3 {
			busy.Go(func() {
				for !stop.Load() {
					p := b.mem[(3+g)*image.PageSize:][:image.PageSize]
					_ = unix.Madvise(p, unix.MADV_DONTNEED)
					b.touch(3 + g)
				}
			})
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(10 * time.Second):
			buf := make([]byte, 1<<20)
			t.Logf("%s", buf[:runtime.Stack(buf, true)])
			t.Fatal("Fill hangs")
		}
		stop.Store(true)
		busy.Wait()
		b.filler.Close()
	}
}

const treeC = `
#define _GNU_SOURCE
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <pthread.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>
#define BASE ((char*)0x100000000000ul)
static long n; static atomic_long next_; static atomic_long bad; static atomic_int stop;
static void *walk(void *x) {
  for (;;) { long i = atomic_fetch_add(&next_, 1); if (i >= n || stop) return 0;
    volatile uint64_t *p = (uint64_t*)(BASE + (n-1-i)*4096);
    if (*p != n-1-i+1) { atomic_fetch_add(&bad,1); dprintf(1,"thread: page %ld is %lu\n", n-1-i, (unsigned long)*p);} } }
int main(int argc, char **argv) {
  n = atol(argv[3]);
  char *m = mmap(BASE, n*4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED, -1, 0);
  if (m != BASE) { perror("mmap"); return 2; }
  madvise(m, n*4096, MADV_NOHUGEPAGE);
  int fd = syscall(SYS_userfaultfd, O_CLOEXEC|O_NONBLOCK);
  struct uffdio_api api = {.api=UFFD_API,.features=UFFD_FEATURE_EVENT_FORK|UFFD_FEATURE_EVENT_REMAP|UFFD_FEATURE_EVENT_REMOVE|UFFD_FEATURE_EVENT_UNMAP};
  if (ioctl(fd, UFFDIO_API, &api)) { perror("api"); return 2; }
  struct uffdio_register r = {.range={(unsigned long)m,n*4096},.mode=UFFDIO_REGISTER_MODE_MISSING};
  if (ioctl(fd, UFFDIO_REGISTER, &r)) { perror("register"); return 2; }
  int s = socket(AF_UNIX, SOCK_STREAM, 0); struct sockaddr_un a={.sun_family=AF_UNIX}; strcpy(a.sun_path, argv[1]);
  if (connect(s,(void*)&a,sizeof a)) { perror("connect"); return 2; }
  int32_t pid=1; write(s,&pid,4);
  char c=0, ctl[CMSG_SPACE(4)]={0}; struct iovec io={&c,1}; struct msghdr h={.msg_iov=&io,.msg_iovlen=1,.msg_control=ctl,.msg_controllen=sizeof ctl};
  struct cmsghdr *cm=CMSG_FIRSTHDR(&h); cm->cmsg_level=SOL_SOCKET; cm->cmsg_type=SCM_RIGHTS; cm->cmsg_len=CMSG_LEN(4); memcpy(CMSG_DATA(cm),&fd,4);
  if (sendmsg(s,&h,0)<0) { perror("sendmsg"); return 2; }
  close(fd);
  read(0,&c,1); // released
  if (!strcmp(argv[2],"fork")) {
    pthread_t t[16]; for (int i=0;i<16;i++) pthread_create(&t[i],0,walk,0);
    long forks=0;
    while (next_ < n && !bad) {
      pid_t p = fork();
      if (!p) { long at=next_; // all that may have been asked for just before the fork
        for (long i = at; i > at-40; i--) { if (i<0||i>=n) continue; volatile uint64_t *q=(uint64_t*)(BASE+(n-1-i)*4096);
          if (*q != n-1-i+1) { dprintf(1,"child: page %ld is %lu\n", n-1-i, (unsigned long)*q); _exit(1);} }
        _exit(0); }
      forks++; int st; waitpid(p,&st,0); if (st) { bad++; break; }
    }
    stop=1; for (int i=0;i<16;i++) pthread_join(t[i],0);
    printf("forks %ld bad %ld\n", forks, (long)bad); fflush(stdout);
    return bad != 0;
  }
  if (!strcmp(argv[2],"unmap")) {
    for (long k=0;k+64<=n;k+=64) { unsigned char v; char *p=BASE+k*4096;
      for (;;) { v=0; mincore(p,4096,&v); if (v&1) break; if (mincore(BASE+(n-1)*4096,4096,&v)==0 && (v&1)) return 0; }
      munmap(p,64*4096); }
    printf("unmapped\n"); return 0;
  }
  return 3;
}
`

const treeBase = 0x100000000000

// made makes pages as they are asked for, each a run of its own.
type made struct{ n int }

func (m made) Runs(_, from, to uint64) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		page := make([]byte, image.PageSize)
		for a := from; a < to; a += image.PageSize {
			binary.LittleEndian.PutUint64(page, (a-treeBase)/image.PageSize+1)
			if !yield(Run{Addr: a, Data: page}) {
				return
			}
		}
	}
}

func runTree(t *testing.T, mode string, n int, progress func(uint64, uint64)) (out string, killed int32, filled, err error) {
	dirname := t.TempDir()
	src, bin := filepath.Join(dirname, "tree.c"), filepath.Join(dirname, "tree")
	must(t, os.WriteFile(src, []byte(treeC), 0o600))
	if out, err := exec.Command("gcc", "-O1", "-pthread", "-w", "-o", bin, src).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	images := filepath.Join(dirname, "images")
	must(t, os.Mkdir(images, 0o700))
	dir, err := os.Open(images)
	must(t, err)
	defer dir.Close()
	w, err := image.NewPagemapWriter(images, image.Space{Kind: image.Process, ID: pid}, 1)
	must(t, err)
	must(t, w.Hole(treeBase, image.PELazy, uint64(n)))
	must(t, w.Close())
	mm := binary.LittleEndian.AppendUint32(nil, 0x54564319)
	mm = binary.LittleEndian.AppendUint32(mm, 0x57492820)
	must(t, os.WriteFile(filepath.Join(images, "mm-1.img"), binary.LittleEndian.AppendUint32(mm, 0), 0o600))
	var kills atomic.Int32
	cmd := exec.Command(bin, within(dir, criuSocket), mode, fmt.Sprint(n))
	cmd.Args[1] = filepath.Join(images, criuSocket)
	kill := func() error { kills.Add(1); cmd.Process.Kill(); return nil }
	f, err := Listen(images, Config{Memory: Known(made{n}), Kill: kill, Eager: true})
	must(t, err)
	r, err := NewRelay(dir, kill)
	must(t, err)
	must(t, r.Rebuilt())
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	stdin, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	go func() { _, err := f.Fill(ctx, progress); done <- err }()
	for r.Release() != nil {
		<-time.After(time.Millisecond)
	}
	if c, err := net.Dial("unix", "/nowhere"); err == nil {
		c.Close()
	}
	stdin.Write([]byte("g"))
	stop := time.AfterFunc(40*time.Second, func() { t.Log("the tree hangs"); cmd.Process.Kill() })
	err = cmd.Wait()
	stop.Stop()
	select {
	case filled = <-done:
		f.Close()
		t.Logf("reason: %v", f.err)
	case <-time.After(20 * time.Second):
		buf := make([]byte, 1<<18)
		t.Logf("%s", buf[:runtime.Stack(buf, true)])
		t.Error("Fill hangs")
	}
	return said.String(), kills.Load(), filled, err
}

func TestThreadsMayFaultWhileOneForks(t *testing.T) {
	out, killed, filled, err := runTree(t, "fork", 60000, func(uint64, uint64) { <-time.After(20 * time.Millisecond) })
	t.Logf("%s %v; filled: %v; killed %d", out, err, filled, killed)
	if err != nil {
		t.Error("wrong pages")
	}
}

func TestATreeMayUnmapWhatIsJustBeingFilled(t *testing.T) {
	out, killed, filled, err := runTree(t, "unmap", 64*4000, nil)
	t.Logf("%s %v; filled: %v; killed %d", out, err, filled, killed)
	if killed > 0 {
		t.Error("the tree was killed")
	}
}

// TestAMoveMayShrink: mremap(FIXED) that shrinks.
func TestAMoveMayShrink(t *testing.T) {
	const chunk = chunkBytes / image.PageSize
	b, done := filling(t, 100*chunk)
	b.move(98*chunk, 60*chunk, 20, 8)
	err := <-done
	t.Logf("filled: %v, killed %d", err, b.killed.Load())
	b.say(restoreFinished)
	b.filler.Close()
	for i := 60 * chunk; i < 60*chunk+20; i++ {
		want := b.memory.all[i]
		if i < 60*chunk+8 {
			want = b.memory.all[98*chunk+i-60*chunk]
		}
		if got := b.mem[i*image.PageSize:][:8]; string(got) != string(want[:8]) {
			t.Errorf("page %d (%d of the destination) begins with %x, want %x", i, i-60*chunk, got, want[:8])
		}
	}
}

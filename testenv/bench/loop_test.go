package bench

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"

	"drover/testenv/host"
	"drover/testenv/victims/vital"
)

// piece is what the bare loop takes at once: as much as a tracker hands over.
const piece = 256 * vital.PageSize

// bareLoop is how many bytes a second all processors together read of a process of the host, give a digest (GMAC, as docs/adr/0003
// has it) a page, and compress with s2. A first round does this and more.
func bareLoop(b *testing.B, h *host.Host, pid int) float64 {
	b.Helper()
	areas, err := writable(h, pid)
	if err != nil {
		b.Fatal(err)
	}
	memory, err := os.Open(h.Path(fmt.Sprintf("/proc/%d/mem", pid)))
	if err != nil {
		b.Fatal(err)
	}
	defer memory.Close()
	pieces := make(chan [2]uint64)
	var n atomic.Int64
	var workers sync.WaitGroup
	failed := make(chan error, runtime.NumCPU())
	began := time.Now()
	for range runtime.NumCPU() {
		workers.Go(func() { failed <- work(memory, pieces, &n) })
	}
	for _, a := range areas {
		for at := a[0]; at < a[1]; at += piece {
			pieces <- [2]uint64{at, min(at+piece, a[1])}
		}
	}
	close(pieces)
	workers.Wait()
	took := time.Since(began)
	for range runtime.NumCPU() {
		if err := <-failed; err != nil {
			b.Fatal(err)
		}
	}
	return float64(n.Load()) / took.Seconds()
}

func work(memory *os.File, pieces <-chan [2]uint64, n *atomic.Int64) error {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return err
	}
	mac, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	nonce, sum := make([]byte, mac.NonceSize()), make([]byte, 0, mac.Overhead())
	buf, out := make([]byte, piece), make([]byte, s2.MaxEncodedLen(piece))
	for p := range pieces {
		data := buf[:p[1]-p[0]]
		if _, err := memory.ReadAt(data, int64(p[0])); err != nil && !errors.Is(err, io.EOF) {
			continue // unmapped meanwhile
		}
		for at := 0; at < len(data); at += vital.PageSize {
			sum = mac.Seal(sum[:0], nonce, nil, data[at:at+vital.PageSize])
		}
		s2.Encode(out, data)
		n.Add(int64(len(data)))
	}
	return nil
}

// writable are the areas of a process that it can write to, which is where its data is.
func writable(h *host.Host, pid int) (areas [][2]uint64, err error) {
	maps, err := os.Open(h.Path(fmt.Sprintf("/proc/%d/maps", pid)))
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var a [2]uint64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &a[0], &a[1], &mode); err != nil {
			return nil, fmt.Errorf("maps of process %d: %q: %w", pid, lines.Text(), err)
		}
		if strings.HasPrefix(mode, "rw") {
			areas = append(areas, a)
		}
	}
	return areas, nil
}

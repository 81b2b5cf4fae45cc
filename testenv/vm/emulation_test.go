package vm_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/chacha20poly1305"

	"drover/engine/image"
)

// BenchmarkEmulation says how fast this machine does what a move mostly consists of, and how fast a virtual one does: the latter
// does not take the same part longer for everything, which is to be known when methods are compared in it.
func BenchmarkEmulation(b *testing.B) {
	if os.Getenv(insideEnv) != "" {
		work(b)
		return
	}
	b.Run("here", work)
	m := boot(b, 1024)
	at := installTests(b, m, ".")
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	out, err := m.Run(ctx, "env", insideEnv+"=1", at, "-test.run", "^$", "-test.bench", "^BenchmarkEmulation$", "-test.benchtime", "200ms")
	if err != nil {
		b.Fatalf("in the machine: %v\n%s", err, out)
	}
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, "BenchmarkEmulation/"); ok {
			fmt.Print("BenchmarkEmulation/there/" + rest)
		}
	}
}

// work measures each kind of work on the same data: pages that are noise in part, as a dirtier's are.
func work(b *testing.B) {
	data := make([]byte, 4<<20)
	for i := 0; i < len(data); i += 64 {
		data[i], data[i+1] = byte(rand.Uint32()), byte(rand.Uint32())
	}
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	chacha, err := chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	if err != nil {
		b.Fatal(err)
	}
	fast, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		b.Fatal(err)
	}
	nonce, out := make([]byte, gcm.NonceSize()), make([]byte, 2*len(data))
	const packet = 32 << 10 // of SSH
	for _, kind := range []struct {
		name string
		do   func()
	}{
		{"digest of each page (GMAC)", func() { inPieces(data, image.PageSize, func(p []byte) { gcm.Seal(out[:0], nonce, nil, p) }) }},
		{"SSH's AES-128-GCM", func() { inPieces(data, packet, func(p []byte) { gcm.Seal(out[:0], nonce, p, nil) }) }},
		{"SSH's ChaCha20-Poly1305", func() { inPieces(data, packet, func(p []byte) { chacha.Seal(out[:0], nonce, p, nil) }) }},
		{"s2", func() { s2.Encode(out, data) }},
		{"zstd", func() { fast.EncodeAll(data, out[:0]) }},
		{"copy", func() { copy(out, data) }},
	} {
		b.Run(kind.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				kind.do()
			}
		})
	}
}

func inPieces(data []byte, size int, f func([]byte)) {
	for i := 0; i < len(data); i += size {
		f(data[i : i+size])
	}
}

package transfer

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

// BenchmarkDigest is what a page's digest costs, beside SHA-256's.
func BenchmarkDigest(b *testing.B) {
	page := make([]byte, PageSize)
	d, err := newDigester(newKey())
	if err != nil {
		b.Fatal(err)
	}
	for name, f := range map[string]func(){"gmac": func() { d.of(page) }, "sha256": func() { sha256.Sum256(page) }} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(PageSize)
			for b.Loop() {
				f()
			}
		})
	}
}

func TestADigestDependsOnThePageAndOnTheKey(t *testing.T) {
	page, other := make([]byte, PageSize), make([]byte, PageSize)
	page[0], other[PageSize-1] = 1, 1
	d, err := newDigester(newKey())
	if err != nil {
		t.Fatal(err)
	}
	another, err := newDigester(newKey())
	if err != nil {
		t.Fatal(err)
	}
	again := bytes.Clone(page)
	if d.of(page) != d.of(again) || d.of(page) == d.of(other) || d.of(page) == another.of(page) || d.page(zeros[:PageSize]) != zeroDigest {
		t.Error("a digest is not what it should be")
	}
	if _, err := newDigester([]byte("short")); err == nil {
		t.Error("a short key was taken")
	}
}

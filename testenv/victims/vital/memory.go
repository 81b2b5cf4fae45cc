package vital

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PageSize is that of the machines drover runs on.
const PageSize = 4096

// Pages is memory in which every page proves that it is the right one and of the right time: it holds a mark made of who wrote
// it, which page it is and how often it was written.
type Pages struct {
	owner  uint64
	memory []byte
	writes []uint32 // how often each page was written; lies in other pages than the marks
}

// NewPages maps n pages of private anonymous memory and writes each once. Owner tells apart the Pages of a tree.
func NewPages(n int, owner uint64) (*Pages, error) {
	memory, err := unix.Mmap(-1, 0, n*PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d pages: %w", n, err)
	}
	p := &Pages{owner: owner, memory: memory, writes: make([]uint32, n)}
	for i := range n {
		p.Write(i)
	}
	return p, nil
}

// Len is the number of pages.
func (p *Pages) Len() int { return len(p.writes) }

// Write gives the page a new mark, and new contents on the whole of it.
func (p *Pages) Write(i int) {
	p.writes[i]++
	page := p.memory[i*PageSize : (i+1)*PageSize]
	x := p.mark(i)
	for at := 0; at < PageSize; at += 8 {
		if at%64 == 0 { // one word of noise, seven that compress
			x = mix(x)
		}
		binary.LittleEndian.PutUint64(page[at:], x)
	}
	binary.LittleEndian.PutUint64(page, p.mark(i))
	binary.LittleEndian.PutUint64(page[PageSize-8:], p.mark(i))
}

// Check says what is wrong with the page, nil if nothing.
func (p *Pages) Check(i int) error {
	page := p.memory[i*PageSize : (i+1)*PageSize]
	first, last := binary.LittleEndian.Uint64(page), binary.LittleEndian.Uint64(page[PageSize-8:])
	if want := p.mark(i); first != want || last != want {
		return fmt.Errorf("page %d of %#x, written %d times: its marks are %#x and %#x, want %#x", i, p.owner, p.writes[i], first, last, want)
	}
	return nil
}

func (p *Pages) mark(i int) uint64 { return mix(p.owner<<32 ^ uint64(i)<<48 ^ uint64(p.writes[i])) }

// mix is the finalizer of splitmix64: neighbours get unlike results.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Size is a number of bytes as a flag: "4096", "64K", "200M", "1G".
type Size int64

// Set reads the flag.
func (s *Size) Set(text string) error {
	unit := int64(1)
	number := text
	for suffix, factor := range map[string]int64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
		if before, ok := strings.CutSuffix(text, suffix); ok {
			number, unit = before, factor
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("size %q: want a number with K, M, G or nothing behind it", text)
	}
	*s = Size(n * unit)
	return nil
}

func (s *Size) String() string { return strconv.FormatInt(int64(*s), 10) }

// Pages is the size in whole pages.
func (s Size) Pages() int { return int((int64(s) + PageSize - 1) / PageSize) }

package image

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"drover/engine"
)

// writeMM writes an mm image that has just these mappings.
func writeMM(t *testing.T, dir string, mappings ...mapping) {
	t.Helper()
	var mm []byte
	for _, m := range mappings {
		var vma []byte
		for num, v := range map[protowire.Number]uint64{1: m.Start, 2: m.End, 6: m.flags, 7: m.status, 9: m.advice} {
			vma = protowire.AppendVarint(protowire.AppendTag(vma, num, protowire.VarintType), v)
		}
		mm = protowire.AppendBytes(protowire.AppendTag(mm, 14, protowire.BytesType), vma)
	}
	b := binary.LittleEndian.AppendUint32(nil, magicCommon)
	b = binary.LittleEndian.AppendUint32(b, magicMM)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(mm)))
	if err := os.WriteFile(filepath.Join(dir, "mm-7.img"), append(b, mm...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func page(n uint64) uint64 { return n * PageSize }

func pages(from, to uint64) Range { return Range{page(from), page(to)} }

const anonymous, ofFile = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, unix.MAP_PRIVATE

var (
	heap      = mapping{Range: pages(10, 20), flags: anonymous, status: vmaRegular | vmaAnonPrivate}
	library   = mapping{Range: pages(20, 30), flags: ofFile, status: vmaRegular | vmaFilePrivate}
	locked    = mapping{Range: pages(40, 50), flags: anonymous | unix.MAP_LOCKED, status: vmaRegular | vmaAnonPrivate}
	droppable = mapping{Range: pages(60, 70), flags: unix.MAP_ANONYMOUS | unix.MAP_DROPPABLE, status: vmaRegular | vmaAnonPrivate}
	stack     = mapping{Range: pages(80, 90), flags: anonymous | unix.MAP_GROWSDOWN, status: vmaRegular | vmaAnonPrivate}
)

func TestPagesLeftOutAreNotedInThePagemap(t *testing.T) {
	for _, c := range []struct {
		name   string
		left   []Range
		want   []Entry
		refuse bool
	}{
		{"in order, around what the dump has", []Range{pages(80, 82), pages(10, 14), pages(13, 20)},
			[]Entry{{page(10), 5, PELazy}, {page(15), 1, PEPresent}, {page(16), 4, PELazy}, {page(22), 2, PEPresent}, {page(80), 2, PELazy}}, false},
		{"none", nil, []Entry{{page(15), 1, PEPresent}, {page(22), 2, PEPresent}}, false},
		{"not where there is no mapping any more, nor memory that the kernel may drop", []Range{pages(30, 32), pages(62, 63)},
			[]Entry{{page(15), 1, PEPresent}, {page(22), 2, PEPresent}}, false},
		{"never those of a file's mapping", []Range{pages(19, 21)}, nil, true},
		{"never those that are locked", []Range{pages(45, 46)}, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			writeMM(t, dir, heap, library, locked, droppable, stack)
			w, err := NewPagemapWriter(dir, Space{Process, 7}, 3)
			if err != nil {
				t.Fatal(err)
			}
			one := make([]byte, PageSize)
			if err := errors.Join(w.Run(page(15), PEPresent|PELazy, one), w.Run(page(22), PEPresent, append(one, one...)), w.Close()); err != nil {
				t.Fatal(err)
			}
			err = AddLazy(dir, 7, c.left)
			if c.refuse {
				if !errors.Is(err, engine.ErrBadImage) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			id, entries, err := ReadPagemap(dir, Space{Process, 7})
			if err != nil || id != 3 || !slices.Equal(entries, c.want) {
				t.Errorf("pages %d, %v, %v; want %v", id, entries, err, c.want)
			}
		})
	}
}

func TestPartingLosesNoPage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) (all []Range) {
			for range rapid.IntRange(0, 6).Draw(t, name) {
				from := rapid.Uint64Range(0, 40).Draw(t, "from")
				all = append(all, Range{from, from + rapid.Uint64Range(1, 9).Draw(t, "long")})
			}
			return joined(all)
		}
		all, others := draw("all"), draw("others")
		within, without := parted(all, others)
		has := func(rs []Range, at uint64) bool {
			return slices.ContainsFunc(rs, func(r Range) bool { return r.Start <= at && at < r.End })
		}
		for at := range uint64(60) {
			in, other := has(all, at), has(others, at)
			if has(within, at) != (in && other) || has(without, at) != (in && !other) {
				t.Fatalf("%d of %v and %v is within %v, without %v", at, all, others, within, without)
			}
		}
	})
}

// Linux allows a process 65,530 mappings, and one with tens of thousands was dumped and then refused by every target.
func TestAProcessMayHaveEveryMappingThatLinuxAllows(t *testing.T) {
	dir, all := t.TempDir(), []mapping(nil)
	for i := range uint64(65530) {
		all = append(all, mapping{Range: Range{0x7f0000000000 + i*2*PageSize, 0x7f0000000000 + (i*2+1)*PageSize}, flags: 0x22, status: vmaRegular | vmaAnonPrivate, advice: 1 << 20})
	}
	writeMM(t, dir, all...)
	most := uint32(0)
	if err := eachRecordOf(dir, "mm-7.img", magicMM, maxMM, func(b []byte) error { most = uint32(len(b)); return nil }); err != nil || most <= maxRecord {
		t.Fatalf("a record of %d bytes, %v", most, err)
	}
	for kind, magic := range perProcess {
		if kind != "mm" {
			b := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, magicCommon), magic)
			if err := os.WriteFile(filepath.Join(dir, kind+"-7.img"), append(b, 0, 0, 0, 0), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, PagemapName(Space{Process, 7})), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkProcess(dir, 7); err != nil {
		t.Error(err)
	}
}

package sessiontest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/track"
	"drover/worker/tree"
)

// Tracker is the tracker of a tree of this world, for session.Config: "model", or "softdirty", which fails in the middle of its first round and falls
// back on the model.
func Tracker(_ context.Context, name string, l tree.Lent, _ string) (track.Tracker, error) {
	mine, ok := l.(lent)
	if !ok {
		return nil, errors.New("not a tree of this world")
	}
	if err := mine.step("track"); err != nil {
		return nil, err
	}
	model := func(name string) track.Tracker {
		return &tracker{name: name, lent: mine, seen: map[image.Space]map[uint64][]byte{}}
	}
	switch name {
	case "", "model":
		return model("model"), nil
	case "softdirty":
		return track.NewFalling([]string{"softdirty", "model"}, model, nil), nil
	}
	return nil, fmt.Errorf("there is no tracker %q", name)
}

type tracker struct {
	name string
	lent lent
	seen map[image.Space]map[uint64][]byte
}

func (t *tracker) Name() string   { return t.name }
func (t *tracker) Parent() string { return "" }
func (t *tracker) Close() error   { return t.lent.step("detach") }

func (t *tracker) Round(ctx context.Context, emit func(image.Space, uint64, []byte) error) (track.RoundStats, error) {
	st := track.RoundStats{Tracker: t.name}
	begun := time.Now()
	if err := t.lent.step("round"); err != nil {
		return st, err
	}
	if t.lent.copy().State() == Dead {
		return st, engine.ErrGone
	}
	now := t.lent.copy().Memory()
	for s, pages := range now {
		st.Processes++
		for _, addr := range slices.Sorted(maps.Keys(pages)) {
			st.Scanned++
			if err := ctx.Err(); err != nil {
				return st, err
			}
			if bytes.Equal(t.seen[s][addr], pages[addr]) {
				continue
			}
			if st.Emitted++; t.name == "softdirty" && st.Emitted == 20 {
				return st, errors.New("it broke")
			}
			if err := emit(s, addr, pages[addr]); err != nil {
				return st, err
			}
		}
	}
	t.seen, st.Took = now, time.Since(begun)
	return st, nil
}

// readPagemap reads one space as drover's PagemapWriter wrote it.
func readPagemap(dir, name string) (image.Space, map[uint64][]byte, error) {
	var s image.Space
	base := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), "pagemap-"), ".img")
	s.Kind = image.Process
	if rest, ok := strings.CutPrefix(base, "shmem-"); ok {
		s.Kind, base = image.Shmem, rest
	}
	if _, err := fmt.Sscan(base, &s.ID); err != nil {
		return s, nil, err
	}
	raw, err := os.ReadFile(name)
	if err != nil || len(raw) < 8 {
		return s, nil, errors.Join(err, engine.ErrBadImage)
	}
	raw = raw[8:]
	var file []byte
	out := map[uint64][]byte{}
	for first := true; len(raw) >= 4; first = false {
		n := binary.LittleEndian.Uint32(raw)
		fields := varints(raw[4 : 4+n])
		raw = raw[4+n:]
		if first {
			if file, err = os.ReadFile(filepath.Join(dir, image.PagesName(uint32(fields[1])))); err != nil {
				return s, nil, err
			}
			continue
		}
		for i := range fields[5] {
			if uint32(fields[4])&image.PEPresent == 0 { // a Filler's
				continue
			}
			if len(file) < image.PageSize {
				return s, nil, engine.ErrBadImage
			}
			out[fields[1]+i*image.PageSize], file = file[:image.PageSize], file[image.PageSize:]
		}
	}
	return s, out, nil
}

// varints decodes a protobuf message of nothing but varint fields.
func varints(b []byte) map[int]uint64 {
	out := map[int]uint64{}
	for len(b) > 1 {
		v, n := binary.Uvarint(b[1:])
		out[int(b[0]>>3)] = v
		b = b[1+n:]
	}
	return out
}

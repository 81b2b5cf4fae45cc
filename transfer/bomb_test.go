package transfer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// TestACompressedBombIsRefused: a frame is unpacked to what its header says, which is bounded, whatever its payload would become.
func TestACompressedBombIsRefused(t *testing.T) {
	const size = 256 << 20
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, size)
	bombs := map[Codec][]byte{Zstd: enc.EncodeAll(zeros, nil), S2: s2.Encode(nil, zeros)}
	var stream bytes.Buffer // one that does not say how large it will be
	w, err := zstd.NewWriter(&stream)
	if err != nil {
		t.Fatal(err)
	}
	for range size >> 20 {
		w.Write(zeros[:1<<20])
	}
	w.Close()
	u := newUnpacker()
	defer u.close()
	for what, bomb := range map[string]struct {
		codec   Codec
		payload []byte
	}{"zstd": {Zstd, bombs[Zstd]}, "zstd of unknown size": {Zstd, stream.Bytes()}, "s2": {S2, bombs[S2]}} {
		row, _ := rowOf(fData)
		payload := bomb.payload[:min(len(bomb.payload), row.Max)] // s2's is itself larger than a frame may be
		frame := seal(append(make([]byte, headSize), payload...), fData, bomb.codec, row.Max)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f, err := readFrame(bytes.NewReader(frame), false)
		if err == nil {
			_, err = u.unpack(f)
		}
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
			t.Errorf("%s: it took %d MiB to refuse it", what, took>>20)
		}
		binary.LittleEndian.PutUint32(frame[8:], size)
		if _, err := readFrame(bytes.NewReader(number(frame, 0)), false); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s, as large as it is: %v", what, err)
		}
	}
}

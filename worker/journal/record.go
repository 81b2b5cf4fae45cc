package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
)

// Contents are what a journal held when it was opened.
type Contents struct {
	Records []Record
	Torn    int // bytes of a last record that a crash cut off, already removed
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode is a record as it stands in a journal: one line.
func Encode(r Record) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	line := fmt.Appendf(nil, "%08x ", crc32.Checksum(body, castagnoli))
	return append(append(line, body...), '\n'), nil
}

func decode(line []byte) (r Record, err error) {
	sum, body, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return r, fmt.Errorf("no checksum")
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(body, castagnoli) {
		return r, fmt.Errorf("its checksum is wrong")
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("its checksum is right but it does not parse: %w", err)
	}
	return r, nil
}

// Parse reads a journal's bytes. Only what follows the last good record may be bad, and only if it is a single line: one
// append was under way when the crash came.
func Parse(raw []byte) (Contents, error) {
	var got Contents
	before := uint64(0)
	for at, n := 0, 1; at < len(raw); n++ {
		end := bytes.IndexByte(raw[at:], '\n')
		if end < 0 {
			got.Torn = len(raw) - at
			return got, nil
		}
		r, err := decode(raw[at : at+end])
		last := at+end+1 == len(raw)
		switch {
		case err != nil && last:
			got.Torn = len(raw) - at
			return got, nil
		case err != nil:
			return got, fmt.Errorf("record %d at byte %d is damaged: %w", n, at, err)
		}
		if r.Seq != before+1 {
			return got, fmt.Errorf("record %d at byte %d has number %d after %d: a record is missing", n, at, r.Seq, before)
		}
		before = r.Seq
		got.Records = append(got.Records, r)
		at += end + 1
	}
	return got, nil
}

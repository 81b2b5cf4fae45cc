package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"

	"drover/engine"
)

// More of CRIU's magic numbers (criu/include/magic.h).
const (
	magicService   = 0x55105940
	magicInventory = 0x58313116
	magicPstree    = 0x50273030
	magicCore      = 0x55053847
)

// maxRecord bounds one record of an image read here; CRIU's own are below 100 KiB.
const maxRecord = 1 << 20

// bad is an engine.ErrBadImage that says what is wrong with which file.
func bad(name, format string, args ...any) error {
	return fmt.Errorf("image %s: %s: %w", name, fmt.Sprintf(format, args...), engine.ErrBadImage)
}

// eachRecord opens dir/name, checks its magic numbers and hands its length-prefixed records to f, each valid during the call.
func eachRecord(dir, name string, magic uint32, f func(record []byte) error) error {
	return eachRecordOf(dir, name, magic, maxRecord, f)
}

// eachRecordOf is eachRecord with a bound of its own on a record.
func eachRecordOf(dir, name string, magic, most uint32, f func(record []byte) error) error {
	file, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return bad(name, "it is missing")
	}
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	defer file.Close()
	return decode(bufio.NewReaderSize(file, 64<<10), name, magic, most, f)
}

// decode is eachRecordOf on an open image.
func decode(r io.Reader, name string, magic, most uint32, f func(record []byte) error) error {
	first, err := word(r)
	if err == nil && (first == magicCommon || first == magicService) && magic != magicInventory { // the inventory alone has one magic
		first, err = word(r)
	}
	if err != nil || first != magic {
		return bad(name, "it begins like no image of CRIU 4.2 of that name")
	}
	var buf []byte
	for {
		n, err := word(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return bad(name, "it is torn")
		}
		if n > most {
			return bad(name, "it has a record of %d bytes", n)
		}
		if uint32(cap(buf)) < n {
			buf = make([]byte, n)
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return bad(name, "it is torn")
		}
		if err := f(buf[:n]); err != nil {
			return err
		}
	}
}

// word reads a little-endian number of 32 bits; io.EOF means that there was none at all.
func word(r io.Reader) (uint32, error) {
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b[:]), nil
}

// fields are a protobuf message's varint and bytes fields by number; of repeated ones all are kept.
type fields struct {
	numbers map[protowire.Number][]uint64
	bytes   map[protowire.Number][][]byte
}

// parse takes a message apart. What it does not know it skips.
func parse(b []byte) (fields, bool) {
	f := fields{map[protowire.Number][]uint64{}, map[protowire.Number][][]byte{}}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return f, false
		}
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(b); n >= 0 {
				f.numbers[num] = append(f.numbers[num], v)
			}
		case protowire.BytesType:
			var v []byte
			if v, n = protowire.ConsumeBytes(b); n >= 0 {
				f.bytes[num] = append(f.bytes[num], v)
			}
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return f, false
		}
		b = b[n:]
	}
	return f, true
}

// one is the only value of a field.
func (f fields) one(num protowire.Number) (uint64, bool) {
	v := f.numbers[num]
	if len(v) == 0 {
		return 0, false
	}
	return v[len(v)-1], true
}

// message is the only value of a field that is a message itself.
func (f fields) message(num protowire.Number) (fields, bool) {
	v := f.bytes[num]
	if len(v) == 0 {
		return fields{}, false
	}
	return parse(v[len(v)-1])
}

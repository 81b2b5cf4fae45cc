package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
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

// fields are a protobuf message's varint and bytes fields, in its order: an image of many mappings has as many messages, which are read in
// the freeze.
type fields []field

type field struct {
	num    protowire.Number
	number uint64
	bytes  []byte // nil of a varint
}

// parse takes a message apart. What it does not know it skips.
func parse(b []byte) (fields, bool) { return parseInto(nil, b) }

// parseInto is parse that uses the memory of fields that are needed no more.
func parseInto(all fields, b []byte) (fields, bool) {
	all = all[:0]
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return all, false
		}
		b = b[n:]
		f := field{num: num}
		switch typ {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(b)
			all = append(all, f)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
			all = append(all, f)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return all, false
		}
		b = b[n:]
	}
	return all, true
}

// numbers are the values of a varint field, which may be repeated.
func (f fields) numbers(num protowire.Number) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for _, one := range f {
			if one.num == num && one.bytes == nil && !yield(one.number) {
				return
			}
		}
	}
}

// strings are the values of a field of bytes (text, a message), which may be repeated.
func (f fields) strings(num protowire.Number) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for _, one := range f {
			if one.num == num && one.bytes != nil && !yield(one.bytes) {
				return
			}
		}
	}
}

// one is the only value of a field.
func (f fields) one(num protowire.Number) (v uint64, has bool) {
	for n := range f.numbers(num) {
		v, has = n, true
	}
	return v, has
}

// message is the only value of a field that is a message itself.
func (f fields) message(num protowire.Number) (fields, bool) {
	var last []byte
	for b := range f.strings(num) {
		last = b
	}
	if last == nil {
		return nil, false
	}
	return parse(last)
}

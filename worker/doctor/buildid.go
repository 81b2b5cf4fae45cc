package doctor

import (
	"debug/elf"
	"encoding/hex"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// buildID is the build-id of a mapped file, "" if it is no ELF file or has none. Each file is read once.
func (l *look) buildID(link string, st unix.Stat_t) string {
	id := inode{st.Dev, st.Ino}
	known, ok := l.identified[id]
	if !ok {
		known = readBuildID(link)
		l.identified[id] = known
	}
	return known
}

// readBuildID finds the GNU build-id note by the program headers, as CRIU does. The file may be hostile: little of it is read
// and it must be a regular one.
func readBuildID(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := f.ReadAt(magic, 0); err != nil || string(magic) != elf.ELFMAG {
		return ""
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return ""
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		const enough = 64 << 10
		notes, err := io.ReadAll(io.LimitReader(p.Open(), enough))
		if err != nil {
			continue
		}
		if id := buildIDIn(notes, e); id != "" {
			return id
		}
	}
	return ""
}

// buildIDIn finds the note with owner GNU and type 3 in a segment of notes: sizes of name and content, type, name, content,
// each padded to 4 bytes.
func buildIDIn(notes []byte, e *elf.File) string {
	const gnuBuildID = 3
	pad := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
	for len(notes) >= 12 {
		nameSize, size, kind := e.ByteOrder.Uint32(notes), e.ByteOrder.Uint32(notes[4:]), e.ByteOrder.Uint32(notes[8:])
		notes = notes[12:]
		if pad(nameSize)+pad(size) > uint64(len(notes)) {
			return ""
		}
		content := notes[pad(nameSize) : pad(nameSize)+uint64(size)]
		if kind == gnuBuildID && string(notes[:nameSize]) == "GNU\x00" {
			return hex.EncodeToString(content)
		}
		notes = notes[pad(nameSize)+pad(size):]
	}
	return ""
}

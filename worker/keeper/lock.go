package keeper

import (
	"encoding/binary"
	"errors"
	"io"
	"os"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// lockName is the name of the nftables table by which a dump has locked its tree's connections: "CRIU-" and the run id of its
// inventory, cut where CRIU's buffer ends (criu/netfilter.c: "inet CRIU-…" in 32 bytes). A successful dump leaves the table,
// and other dumps of this host have theirs beside it. "" if it cannot be told.
func lockName(images *os.File) (string, error) {
	const maxInventory = 1 << 20
	fd, err := unix.Openat(int(images.Fd()), "inventory.img", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), "inventory.img")
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxInventory))
	if err != nil {
		return "", err
	}
	const head = 8 // a magic number and the entry's length: this image alone has no second one
	if len(b) < head || uint64(len(b)-head) < uint64(binary.LittleEndian.Uint32(b[4:])) {
		return "", errors.New("inventory.img is torn")
	}
	var e inventory.InventoryEntry
	if err := proto.Unmarshal(b[head:head+int(binary.LittleEndian.Uint32(b[4:]))], &e); err != nil {
		return "", err
	}
	if e.GetDumpCriuRunId() == "" {
		return "", nil
	}
	const longest = 31 - len("inet ")
	name := "CRIU-" + e.GetDumpCriuRunId()
	return name[:min(len(name), longest)], nil
}

package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"drover/internal/errs"
)

// logFile is the store's name in the record's directory.
const logFile = "raft.db"

// begunMark stands beside the record's directory once a record was begun there: a directory that is empty afterwards has been lost.
func begunMark(dir string) string { return filepath.Clean(dir) + ".begun" }

// verify reads all that a node would start from, every entry and every snapshot, and refuses what is torn, changed, or not there. A node
// that went on with less than it had acknowledged could vote a verdict away.
func verify(dir string, snapshots *snapshots) error {
	file := filepath.Join(dir, logFile)
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(begunMark(dir)); err == nil {
			return damaged(dir, file, errors.New("it is gone, and this coordinator has had a record before: started without it, it would have forgotten what it voted for"))
		}
		return nil
	}
	first, last, err := verifyStore(file)
	if err != nil {
		return damaged(dir, file, err)
	}
	newest, name, err := snapshots.verify()
	if err != nil {
		return damaged(dir, filepath.Join(dir, "snapshots", name), err)
	}
	if first > newest+1 {
		return damaged(dir, filepath.Join(dir, "snapshots"), fmt.Errorf("the log holds the entries from %d to %d, and no snapshot those up to %d", first, last, first-1))
	}
	return nil
}

// damaged says which file cannot be loaded and how the node gets its record again.
func damaged(dir, file string, err error) error {
	return errs.New(errs.Failed, "the record is damaged and was not loaded: %s: %w", file, err).
		WithNext("take this coordinator out (drover cluster remove, by way of another one), remove %s with all that lies beside it, and join again with a new token: the others have the record", dir)
}

// verifyStore holds the file to its checksums, the log to its bounds, and says what they are: 0 and 0 if it is empty.
func verifyStore(file string) (first, last uint64, err error) {
	if err := verifyPages(file); err != nil {
		return 0, 0, err
	}
	db, err := openFile(file)
	if err != nil {
		return 0, 0, err
	}
	err = guarded(func() error {
		return db.View(func(tx *bbolt.Tx) (err error) {
			first, last, err = verifyBuckets(tx)
			return err
		})
	})
	return first, last, errors.Join(err, db.Close())
}

// guarded runs f on a file whose pages may be damaged. What leads from page to page has no checksum: there bbolt panics, or reads beyond the
// file.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errPages, r)
		}
	}()
	return f()
}

var errPages = errors.New("its pages do not hang together")

// openFile opens a bbolt file to read it. It may be damaged.
func openFile(path string) (db *bbolt.DB, err error) {
	err = guarded(func() (err error) { db, err = bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true}); return err })
	return db, err
}

// renew copies what has been verified into a file of its own that takes the old one's place: of the old one, the list of free pages would be
// used too, which has no checksum either, and which only a write would find wrong.
func renew(path string) error {
	old, err := openFile(path)
	if err != nil {
		return err
	}
	fresh := path + ".new"
	err = errors.Join(copyTo(fresh, old), old.Close())
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	return syncDir(filepath.Dir(path))
}

func copyTo(path string, old *bbolt.DB) error {
	if err := os.RemoveAll(path); err != nil { // what a crash left
		return err
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	err = old.View(func(from *bbolt.Tx) error {
		return db.Update(func(to *bbolt.Tx) error {
			for _, name := range [][]byte{logBucket, stableBucket} {
				b, err := to.CreateBucket(name)
				if err == nil {
					err = from.Bucket(name).ForEach(b.Put)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	return errors.Join(err, db.Close())
}

func verifyBuckets(tx *bbolt.Tx) (first, last uint64, err error) {
	log, stable := tx.Bucket(logBucket), tx.Bucket(stableBucket)
	if log == nil || stable == nil {
		return 0, 0, errors.New("it has no log: another version of drover has written it, or another program")
	}
	err = stable.ForEach(func(k, raw []byte) error {
		if _, err := unsealed(k, raw); err != nil {
			return fmt.Errorf("its %q: %w", k, err)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	err = log.ForEach(func(k, raw []byte) error {
		if len(k) != 8 {
			return fmt.Errorf("an entry has a key of %d bytes", len(k))
		}
		index := binary.BigEndian.Uint64(k)
		if last != 0 && index != last+1 {
			return fmt.Errorf("entry %d follows entry %d", index, last)
		}
		if last = index; first == 0 {
			first = index
		}
		body, err := unsealed(k, raw)
		if err == nil {
			err = decodeEntry(index, body, new(raft.Log))
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	return first, last, verifyBounds(stable.Get(boundsKey), first, last)
}

func verifyBounds(raw []byte, first, last uint64) error {
	var from, to uint64
	if raw != nil {
		v, err := unsealed(boundsKey, raw)
		if err != nil || len(v) != 16 {
			return fmt.Errorf("the bounds of its log: %w", errDamaged)
		}
		from, to = binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:])
	}
	if from != first || to != last {
		return fmt.Errorf("it holds the entries from %d to %d, and should hold those from %d to %d", first, last, from, to)
	}
	return nil
}

// A bbolt file begins with two pages that take turns in describing it; each is a page head of 16 bytes and then this, in the machine's order.
const (
	metaAt       = 16
	metaPageSize = metaAt + 8
	metaHigh     = metaAt + 40 // the first page that has never been used
	metaSum      = metaAt + 56 // FNV-1a over what is before it
	metaEnd      = metaSum + 8
)

// verifyPages looks at the file before it is mapped. bbolt goes back to the older of the two descriptions if one is damaged, and would have
// forgotten the last transaction; and it reads beyond the end of a file that was cut off.
func verifyPages(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := int64(os.Getpagesize())
	for page := range int64(2) {
		b := make([]byte, metaEnd)
		if _, err := f.ReadAt(b, page*size); err != nil {
			return fmt.Errorf("it was cut off after %d bytes", info.Size())
		}
		h := fnv.New64a()
		h.Write(b[metaAt:metaSum])
		switch high := binary.NativeEndian.Uint64(b[metaHigh:]); {
		case h.Sum64() != binary.NativeEndian.Uint64(b[metaSum:]):
			return fmt.Errorf("its page %d: %w", page, errDamaged)
		case int64(binary.NativeEndian.Uint32(b[metaPageSize:])) != size:
			return fmt.Errorf("its pages have %d bytes, this machine's %d", binary.NativeEndian.Uint32(b[metaPageSize:]), size)
		case high > uint64(info.Size()/size):
			return fmt.Errorf("it was cut off: it has %d bytes of at least %d", info.Size(), high*uint64(size))
		}
	}
	return nil
}

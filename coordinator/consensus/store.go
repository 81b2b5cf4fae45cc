package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// store is Raft's log and what a node must not forget (its term, its vote), in one file. Every value carries a checksum over its key and
// itself, and the log's bounds are written in the transaction that moves them: a byte that has changed anywhere, and an entry that is
// missing at either end, are found when the file is opened (verify.go) and, for what changes later, when it is read.
//
// It is a raft.LogStore without gaps and a raft.StableStore. Its methods may be called from several goroutines.
type store struct {
	db   *bbolt.DB
	path string
}

var (
	logBucket    = []byte("log")    // index, big endian → entry
	stableBucket = []byte("stable") // key → value
	boundsKey    = []byte("bounds") // in stableBucket: the log's first and last index, absent while it is empty
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
	errDamaged   = errors.New("its checksum is wrong")
	errKey       = errors.New("not found") // the text by which Raft knows it
)

// openStore opens the file, making it if there is none. It must have been verified and renewed.
func openStore(path string) (*store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err1 := tx.CreateBucketIfNotExists(logBucket)
		_, err2 := tx.CreateBucketIfNotExists(stableBucket)
		return errors.Join(err1, err2)
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &store{db, path}, nil
}

func (s *store) Close() error { return s.db.Close() }

// IsMonotonic says that the log has no gaps: Raft then empties it before it goes on after a snapshot from elsewhere.
func (s *store) IsMonotonic() bool { return true }

// sealed puts a checksum before a value, open takes it off.
func sealed(key, value []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	return append(binary.BigEndian.AppendUint32(nil, sum), value...)
}

func unsealed(key, raw []byte) ([]byte, error) {
	if len(raw) < 4 {
		return nil, errDamaged
	}
	value := raw[4:]
	if binary.BigEndian.Uint32(raw) != crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value) {
		return nil, errDamaged
	}
	return value, nil
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// encodeEntry is an entry without its index, which is its key: term, kind, when it was appended, the extensions' length, them, the data.
func encodeEntry(l *raft.Log) []byte {
	b := binary.BigEndian.AppendUint64(nil, l.Term)
	b = append(b, byte(l.Type))
	at := int64(0)
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	return append(append(b, l.Extensions...), l.Data...)
}

const entryHead = 8 + 1 + 8 + 4

func decodeEntry(index uint64, b []byte, l *raft.Log) error {
	if len(b) < entryHead || uint64(len(b)-entryHead) < uint64(binary.BigEndian.Uint32(b[17:])) {
		return fmt.Errorf("it has %d bytes, too few", len(b))
	}
	extensions := binary.BigEndian.Uint32(b[17:])
	*l = raft.Log{Index: index, Term: binary.BigEndian.Uint64(b), Type: raft.LogType(b[8])}
	if at := int64(binary.BigEndian.Uint64(b[9:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	rest := append([]byte(nil), b[entryHead:]...) // b is the file's
	l.Extensions, l.Data = rest[:extensions:extensions], rest[extensions:]
	if extensions == 0 {
		l.Extensions = nil
	}
	return nil
}

func (s *store) bound(last bool) (index uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(logBucket).Cursor()
		key, _ := c.First()
		if last {
			key, _ = c.Last()
		}
		if key != nil {
			index = binary.BigEndian.Uint64(key)
		}
		return nil
	})
	return index, err
}

// FirstIndex implements raft.LogStore.
func (s *store) FirstIndex() (uint64, error) { return s.bound(false) }

// LastIndex implements raft.LogStore.
func (s *store) LastIndex() (uint64, error) { return s.bound(true) }

// GetLog implements raft.LogStore.
func (s *store) GetLog(index uint64, l *raft.Log) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		key := indexKey(index)
		raw := tx.Bucket(logBucket).Get(key)
		if raw == nil {
			return raft.ErrLogNotFound
		}
		body, err := unsealed(key, raw)
		if err == nil {
			err = decodeEntry(index, body, l)
		}
		if err != nil {
			return fmt.Errorf("entry %d of the log %s is damaged: %w", index, s.path, err)
		}
		return nil
	})
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. It returns when they are on the disk.
func (s *store) StoreLogs(logs []*raft.Log) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if err := closeGap(tx, logs); err != nil {
			return err
		}
		b := tx.Bucket(logBucket)
		for _, l := range logs {
			key := indexKey(l.Index)
			if err := b.Put(key, sealed(key, encodeEntry(l))); err != nil {
				return err
			}
		}
		return writeBounds(tx)
	})
}

// closeGap empties a log that the new entries do not follow: Raft has taken a snapshot from elsewhere, which stands for all before them,
// and was stopped before it had emptied the log for it. Without that snapshot the next start misses what is before them (verify.go).
func closeGap(tx *bbolt.Tx, logs []*raft.Log) error {
	last, _ := tx.Bucket(logBucket).Cursor().Last()
	if last == nil || len(logs) == 0 || logs[0].Index <= binary.BigEndian.Uint64(last)+1 {
		return nil
	}
	if err := tx.DeleteBucket(logBucket); err != nil {
		return err
	}
	_, err := tx.CreateBucket(logBucket)
	return err
}

// DeleteRange implements raft.LogStore.
func (s *store) DeleteRange(first, last uint64) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(logBucket)
		c := b.Cursor()
		var keys [][]byte // a cursor loses its place when it deletes
		for k, _ := c.Seek(indexKey(first)); k != nil && binary.BigEndian.Uint64(k) <= last; k, _ = c.Next() {
			keys = append(keys, append([]byte(nil), k...))
		}
		for _, k := range keys {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		return writeBounds(tx)
	})
}

// writeBounds notes where the log begins and ends, in the transaction that has moved it.
func writeBounds(tx *bbolt.Tx) error {
	c := tx.Bucket(logBucket).Cursor()
	first, _ := c.First()
	last, _ := c.Last()
	if first == nil {
		return tx.Bucket(stableBucket).Delete(boundsKey)
	}
	return tx.Bucket(stableBucket).Put(boundsKey, sealed(boundsKey, append(append([]byte(nil), first...), last...)))
}

// Set implements raft.StableStore.
func (s *store) Set(key, value []byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(stableBucket).Put(key, sealed(key, value)) })
}

// Get implements raft.StableStore.
func (s *store) Get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		raw := tx.Bucket(stableBucket).Get(key)
		if raw == nil {
			return errKey
		}
		v, err := unsealed(key, raw)
		value = append([]byte{}, v...)
		return err
	})
	return value, err
}

// SetUint64 implements raft.StableStore.
func (s *store) SetUint64(key []byte, value uint64) error { return s.Set(key, indexKey(value)) }

// GetUint64 implements raft.StableStore.
func (s *store) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err == nil && len(v) != 8 {
		err = fmt.Errorf("%s has %d bytes, not 8", key, len(v))
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

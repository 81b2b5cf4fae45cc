package consensus

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"drover/coordinator/record"
)

// snapshots are Raft's own on files, each with a checksum over its description too: that says which entries it stands for and who the members
// are, and Raft's checksum covers only the state. A snapshot without one was not finished.
type snapshots struct {
	*raft.FileSnapshotStore
	dir string
}

const (
	metaFile = "meta.json" // Raft's name
	sumFile  = "meta.sha256"
)

func openSnapshots(dir string, keep int, log hclog.Logger) (*snapshots, error) {
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, keep, log)
	if err != nil {
		return nil, err
	}
	return &snapshots{files, filepath.Join(dir, "snapshots")}, nil
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, configured uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(v, index, term, c, configured, t)
	if err != nil {
		return nil, err
	}
	return &sealingSink{sink, filepath.Join(s.dir, sink.ID())}, nil
}

// sealingSink seals a snapshot when it is whole.
type sealingSink struct {
	raft.SnapshotSink
	dir string
}

// Close implements raft.SnapshotSink. Raft drops the entries that the snapshot stands for only after it.
func (s *sealingSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	sum, err := sumOf(filepath.Join(s.dir, metaFile))
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(s.dir, sumFile), []byte(sum))
}

func sumOf(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]) + "\n", nil
}

// writeSynced returns when the file and its name are on the disk.
func writeSynced(file string, content []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// verify reads every snapshot and says up to which entry the newest stands. One that was not finished is removed; one that is damaged is an
// error even if an older one is whole, since nobody knows what else that disk has lost.
func (s *snapshots) verify() (newest uint64, name string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, "", err
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		dir := filepath.Join(s.dir, e.Name())
		want, err := os.ReadFile(filepath.Join(dir, sumFile))
		if errors.Is(err, os.ErrNotExist) {
			if err := os.RemoveAll(dir); err != nil {
				return 0, e.Name(), err
			}
			continue
		}
		is, err1 := sumOf(filepath.Join(dir, metaFile))
		if err := errors.Join(err, err1); err != nil {
			return 0, e.Name(), err
		}
		if is != string(want) {
			return 0, e.Name(), fmt.Errorf("its %s: %w", metaFile, errDamaged)
		}
		index, err := s.read(e.Name())
		if err != nil {
			return 0, e.Name(), err
		}
		newest = max(newest, index)
	}
	return newest, "", nil
}

// read loads a snapshot as a start would.
func (s *snapshots) read(id string) (index uint64, err error) {
	meta, r, err := s.Open(id)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if meta.ID != id {
		return 0, fmt.Errorf("its %s is of %q", metaFile, meta.ID)
	}
	if _, err := record.Load(r); err != nil {
		return 0, err
	}
	return meta.Index, nil
}

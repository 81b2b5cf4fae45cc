package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"

	"drover/internal/errs"
)

// SnapshotVersion is the form of snapshots that this version of drover writes. It reads this one and older ones.
const SnapshotVersion = 1

// header is a snapshot's first line; the state's JSON follows.
type header struct {
	Version int    `json:"version"`
	Bytes   int    `json:"bytes"`
	SHA256  string `json:"sha256"`
}

// Save writes the record as a snapshot.
func (s *State) Save(w io.Writer) error {
	body, err := json.Marshal(s)
	if err != nil {
		return errs.New(errs.Failed, "encode the record: %w", err)
	}
	sum := sha256.Sum256(body)
	if err := json.NewEncoder(w).Encode(header{SnapshotVersion, len(body), hex.EncodeToString(sum[:])}); err != nil {
		return errs.New(errs.Failed, "write snapshot: %w", err)
	}
	if _, err := w.Write(body); err != nil {
		return errs.New(errs.Failed, "write snapshot: %w", err)
	}
	return nil
}

// Load reads a snapshot. One that is torn, changed or from a newer drover is refused.
func Load(r io.Reader) (*State, error) {
	all, err := io.ReadAll(r)
	if err != nil {
		return nil, errs.New(errs.Failed, "read snapshot: %w", err)
	}
	first, body, ok := bytes.Cut(all, []byte("\n"))
	var h header
	if !ok || json.Unmarshal(first, &h) != nil || h.Version < 1 {
		return nil, errs.New(errs.Failed, "this is no snapshot of drover's record")
	}
	if h.Version > SnapshotVersion {
		return nil, errs.New(errs.Failed, "the snapshot has form %d, this drover reads up to %d", h.Version, SnapshotVersion).WithNext("start the newer drover")
	}
	sum := sha256.Sum256(body)
	if len(body) != h.Bytes || hex.EncodeToString(sum[:]) != h.SHA256 {
		return nil, errs.New(errs.Failed, "the snapshot is damaged: %d bytes instead of %d, or other content", len(body), h.Bytes).
			WithNext("remove this coordinator's data directory and join it again: the others have the record")
	}
	s := New()
	if err := json.Unmarshal(body, s); err != nil {
		return nil, errs.New(errs.Failed, "decode snapshot: %w", err)
	}
	s.fill()
	return s, nil
}

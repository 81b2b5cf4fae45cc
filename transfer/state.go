package transfer

import (
	"encoding/binary"
	"encoding/json"

	"drover/internal/errs"
)

const version = 5

// hello opens a connection.
type hello struct {
	Version   int    `json:"version"`
	Migration string `json:"migration"`
	Epoch     uint64 `json:"epoch"`
	Resume    bool   `json:"resume,omitempty"` // go on with a stream that has begun, over one more connection or a new one
	Lane      int    `json:"lane,omitempty"`   // which of a stream's connections it is, from 0
	Key       []byte `json:"key"`              // of the pages' digests, the stream's own
}

const stateSize = 8 + 4 + 4 + 1 + 32

// state is what the target says of itself.
type state struct {
	applied uint64 // source's frames applied, HELLO not counted
	rounds  uint32 // ended
	slots   uint32 // that the sender may use: numbers 1 to slots
	staged  bool
	root    [32]byte // once staged
}

func (s state) encode() []byte {
	b := make([]byte, 0, stateSize)
	b = binary.LittleEndian.AppendUint64(b, s.applied)
	b = binary.LittleEndian.AppendUint32(b, s.rounds)
	b = binary.LittleEndian.AppendUint32(b, s.slots)
	if s.staged {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return append(b, s.root[:]...)
}

func decodeState(b []byte) (s state, err error) {
	if len(b) != stateSize {
		return s, protocol("STATE of %d bytes", len(b))
	}
	s.applied = binary.LittleEndian.Uint64(b)
	s.rounds = binary.LittleEndian.Uint32(b[8:])
	s.slots = binary.LittleEndian.Uint32(b[12:])
	s.staged = b[16] == 1
	copy(s.root[:], b[17:])
	return s, nil
}

// failure is why the target gives up.
type failure struct {
	Kind  string `json:"kind"`
	Error string `json:"error"`
	Next  string `json:"next,omitempty"`
}

func encodeFailure(err error) []byte {
	f := failure{errs.KindOf(err).String(), clip(err.Error()), clip(errs.NextOf(err))}
	b, _ := json.Marshal(f)
	return b
}

func clip(s string) string { return s[:min(len(s), 500)] }

func decodeFailure(b []byte) error {
	var f failure
	if json.Unmarshal(b, &f) != nil || f.Error == "" {
		return protocol("FAIL that says nothing")
	}
	return &errs.Error{Kind: errs.KindNamed(f.Kind), Msg: "target: " + clip(f.Error), Next: clip(f.Next), Err: silentPeer{}}
}

// silentPeer lets errors.Is find ErrPeer without printing it.
type silentPeer struct{}

func (silentPeer) Error() string { return "" }
func (silentPeer) Unwrap() error { return ErrPeer }

package transfer

import (
	"bufio"
	"encoding/binary"
	"io"
)

// hollow answers a sender as a target does and does nothing with what it gets, so that only the sender costs anything. It
// acknowledges each time that lag bytes have come. It returns when the connection ends or all is staged.
func hollow(rw io.ReadWriteCloser, lag int) error {
	defer rw.Close()
	r := bufio.NewReaderSize(rw, 64<<10)
	st := state{slots: 1 << 22}
	if _, err := readFrame(r, false); err != nil { // HELLO
		return err
	}
	if err := writeState(rw, st); err != nil {
		return err
	}
	if _, err := rw.Write(plainFrame(fHave, have{}.encode())); err != nil {
		return err
	}
	for come := 0; !st.staged; {
		head, err := r.Peek(headSize)
		if err != nil {
			return err
		}
		kind, size := FrameType(head[0]), int(binary.LittleEndian.Uint32(head[4:]))
		if kind == fEnd {
			st.staged = true
			end, err := r.Peek(headSize + size)
			if err != nil {
				return err
			}
			copy(st.root[:], end[headSize:])
		}
		if _, err := r.Discard(headSize + size); err != nil {
			return err
		}
		st.applied++
		if kind == fRound {
			st.rounds++
		}
		if come += headSize + size; come >= lag || kind == fRound || kind == fEnd {
			come = 0
			if err := writeState(rw, st); err != nil {
				return err
			}
		}
	}
	return nil
}

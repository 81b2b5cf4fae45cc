package inject

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// What crosses the socket (SOCK_SEQPACKET, JSON, one packet a message): a request with the process's pidfd beside it, then its answer;
// before that, if a userfaultfd was made, the same with it. Both ends are one program.
type (
	request struct {
		Pid   int  `json:"pid"`
		Close *int `json:"close,omitempty"` // this descriptor of the process; nil: a userfaultfd is to be made
	}
	answer struct {
		Number  int           `json:"number"`
		Stopped time.Duration `json:"stopped_ns"`
		Error   string        `json:"error,omitempty"`
		Is      []int         `json:"is,omitempty"` // which of known the error is
	}
)

const (
	maxMessage = 8 << 10 // bytes
	maxError   = 1 << 10 // of them, before they are quoted
)

// known are the errors that whoever asks may look for.
var known = []error{ErrMachine, ErrForeign, ErrSeccomp, ErrTrapped, ErrStuck, ErrEntry, unix.ESRCH, fs.ErrNotExist, ErrTaken}

func (a *answer) fail(err error) {
	a.Error = err.Error()
	a.Error = a.Error[:min(len(a.Error), maxError)]
	for i, k := range known {
		if errors.Is(err, k) {
			a.Is = append(a.Is, i)
		}
	}
}

func (a *answer) err() error {
	if a.Error == "" {
		return nil
	}
	e := &told{message: a.Error}
	for _, i := range a.Is {
		if i >= 0 && i < len(known) {
			e.is = append(e.is, known[i])
		}
	}
	return e
}

// told is an error that another process had.
type told struct {
	message string
	is      []error
}

func (e *told) Error() string   { return e.message }
func (e *told) Unwrap() []error { return e.is }

// send writes one message, with a descriptor beside it unless that is negative.
func send(c *net.UnixConn, v any, fd int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	_, _, err = c.WriteMsgUnix(b, rights, nil)
	return err
}

// receive reads one message. The descriptor beside it, -1 if there is none, is the caller's; io.EOF means that nobody is there any more.
func receive(c *net.UnixConn, v any) (fd int, err error) {
	b, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return -1, err
	}
	if fd, err = rightIn(oob[:oobn]); err != nil {
		return -1, err
	}
	switch {
	case n == 0:
		err = io.EOF
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = fmt.Errorf("a message of more than %d bytes", maxMessage)
	default:
		err = json.Unmarshal(b[:n], v)
	}
	if err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	return fd, err
}

// rightIn is the descriptor beside a message, -1 if there is none.
func rightIn(oob []byte) (fd int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, err
	}
	fd = -1
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // something else
		}
		for _, got := range fds {
			if fd >= 0 {
				unix.Close(got) // nobody sends two
				continue
			}
			fd = got
		}
	}
	return fd, nil
}

package transfer

import "errors"

// What a stream fails with, wrapped by errors that say where. All of them end the stream and close its connection.
var (
	// ErrProtocol: the peer sent what the protocol does not allow.
	ErrProtocol = errors.New("the peer does not keep to the page stream's protocol")
	// ErrTooLarge: the peer sent or announced more than is allowed.
	ErrTooLarge = errors.New("more than the limit")
	// ErrCorrupt: what arrived is not what was sent.
	ErrCorrupt = errors.New("data was damaged on the way")
	// ErrDigest: all has arrived, and yet the target's digest is not the source's.
	ErrDigest = errors.New("the target's digest is not the source's")
	// ErrVersion: the peer speaks another version of the protocol.
	ErrVersion = errors.New("another version of the page stream")
	// ErrSlots: the target has no slot left for a new page.
	ErrSlots = errors.New("the target's page store is full")
	// ErrNeverOffered: MapHole names a page that was never offered.
	ErrNeverOffered = errors.New("the page was never offered")
	// ErrMisuse: a sender's method was called when or with what it may not be, or addresses do not ascend.
	ErrMisuse = errors.New("the page stream does not allow this")
	// ErrPeer: the target has given up and said why.
	ErrPeer = errors.New("the target gave up")
	// ErrLost: the connection broke off.
	ErrLost = errors.New("the connection was lost")
	// ErrClosed: the stream was closed by this side.
	ErrClosed = errors.New("the stream is closed")
)

package engine

import "errors"

// What engines fail with; all may be wrapped.
var (
	ErrGone        = errors.New("the tree is gone")
	ErrBusy        = errors.New("the tree is already being dumped")
	ErrDecided     = errors.New("the hold has been ended the other way")
	ErrLost        = errors.New("the engine's process died while it held the tree")
	ErrNoTracking  = errors.New("the kernel has no soft-dirty tracking")
	ErrBadImage    = errors.New("the images are torn or foreign")
	ErrUnsupported = errors.New("the tree uses something that cannot be dumped")
	ErrMoment      = errors.New("the tree cannot be dumped at this moment") // in the next it may
	ErrNotLazy     = errors.New("the memory cannot be left out")
	ErrConflict    = errors.New("something on this host is in the way") // pid, port, file, address
)

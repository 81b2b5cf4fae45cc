package workloads

import "context"

// undo is what takes back what has been done so far, newest first.
type undo []func(context.Context) error

func (u *undo) add(f func(context.Context) error) { *u = append(*u, f) }

// keep makes what has been done stay.
func (u *undo) keep() { *u = nil }

// run takes back what was not kept. It is for defer: the caller's context may have ended by then.
func (u *undo) run(ctx context.Context, h *Host) {
	ctx = context.WithoutCancel(ctx)
	for i := len(*u) - 1; i >= 0; i-- {
		if err := (*u)[i](ctx); err != nil {
			h.log.Error("could not take back a step", "error", err)
		}
	}
}

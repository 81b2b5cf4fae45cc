package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	coordinatorapi "drover/coordinator/api"
	"drover/internal/errs"
)

// coordinators calls any coordinator that answers, the last one that did first.
type coordinators struct {
	addresses []string
	client    func(address string) coordinatorapi.Coordinator

	mu   sync.Mutex
	last int // index of the one that answered last
}

func newCoordinators(addresses []string, client func(string) coordinatorapi.Coordinator) *coordinators {
	return &coordinators{addresses: addresses, client: client}
}

// call calls f with one coordinator after the other until one answers; an answer may be an error too. errs.Unavailable with
// all reasons if none does.
func (c *coordinators) call(ctx context.Context, f func(coordinatorapi.Coordinator) error) error {
	c.mu.Lock()
	first := c.last
	c.mu.Unlock()
	var all []error
	for i := range c.addresses {
		n := (first + i) % len(c.addresses)
		err := f(c.client(c.addresses[n]))
		if !silent(err) {
			c.mu.Lock()
			c.last = n
			c.mu.Unlock()
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		all = append(all, fmt.Errorf("%s: %w", c.addresses[n], err))
	}
	return errs.New(errs.Unavailable, "no coordinator answers: %w", errors.Join(all...)).WithNext("see that a majority of the coordinators runs and can be reached from here")
}

// silent says whether err is no answer: another coordinator may have one.
func silent(err error) bool {
	k := errs.KindOf(err)
	return err != nil && (k == errs.Unavailable || k == errs.Timeout || k == errs.Aborted)
}

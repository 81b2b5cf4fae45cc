package transfer

import "context"

// stage lets several goroutines work on items that are handed on in the order they came. One goroutine puts, any number
// work, one calls each; all of them end with ctx.
type stage[T any] struct {
	jobs  chan *ticket[T]
	queue chan *ticket[T]
}

type ticket[T any] struct {
	item T
	done chan struct{}
}

// newStage makes a stage that holds depth items besides those being worked on.
func newStage[T any](depth int) *stage[T] {
	return &stage[T]{jobs: make(chan *ticket[T], depth), queue: make(chan *ticket[T], depth)}
}

func (s *stage[T]) put(ctx context.Context, item T) error {
	t := &ticket[T]{item, make(chan struct{})}
	for _, c := range []chan *ticket[T]{s.queue, s.jobs} {
		select {
		case c <- t:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// work does f for items until ctx is done.
func (s *stage[T]) work(ctx context.Context, f func(T)) {
	for {
		select {
		case t := <-s.jobs:
			f(t.item)
			close(t.done)
		case <-ctx.Done():
			return
		}
	}
}

// each hands on what has been worked on, until f fails or ctx is done.
func (s *stage[T]) each(ctx context.Context, f func(T) error) error {
	for {
		select {
		case t := <-s.queue:
			select {
			case <-t.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := f(t.item); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

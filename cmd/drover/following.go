package main

import (
	"bufio"
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
)

// follow shows a migration until its end and returns how it ended, as an error if it did not succeed.
func (a *app) follow(ctx context.Context, c *cluster, m api.Migration) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &following{app: a, cluster: c, last: m, interrupts: signals, aborted: make(chan error, 1), answers: make(chan string, 1)}
	return f.run(ctx)
}

// following is a migration that somebody watches and may abort.
type following struct {
	*app
	cluster    *cluster
	last       api.Migration
	interrupts <-chan os.Signal
	asked      bool        // to abort, by the first ctrl-C
	aborting   bool        // the cluster has been asked to and has not answered
	aborted    chan error  // what the cluster said to that
	answers    chan string // what the person typed
}

func (f *following) run(ctx context.Context) error {
	events, ended := watchMigration(ctx, f.cluster, f.last.ID)
	for {
		select {
		case e := <-events:
			if e.note != "" {
				f.say("%s", e.note)
				continue
			}
			f.last = e.value
			if err := f.update(migrationProgress(e.value)); err != nil {
				return err
			}
		case err := <-ended:
			if err != nil {
				return err
			}
			f.awaitAnswer()
			return f.end()
		case <-f.interrupts:
			if f.asked {
				f.answered()
				return errs.New(errs.Failed, "stopped watching: %s goes on in the cluster", f.last.ID).WithNext("drover watch %s", f.last.ID)
			}
			f.asked = true
			f.offerAbort(ctx)
		case answer := <-f.answers:
			f.answered()
			f.asked = false
			if answer = strings.ToLower(strings.TrimSpace(answer)); answer == "y" || answer == "yes" {
				f.abort(ctx)
			}
		case err := <-f.aborted:
			f.heard(err)
		}
	}
}

// heard says what came of the abort.
func (f *following) heard(err error) {
	f.aborting = false
	if err != nil {
		f.say("it cannot be aborted: %s", oneLine(err.Error()))
	}
}

// answerTime is how long a migration that is over waits for the answer to an abort that crossed its end.
const answerTime = 5 * time.Second

// awaitAnswer hears what came of an abort that was asked for: why it did not happen may come after the end.
func (f *following) awaitAnswer() {
	if !f.aborting {
		return
	}
	select {
	case err := <-f.aborted:
		f.heard(err)
	case <-f.interrupts:
	case <-time.After(answerTime):
	}
}

// offerAbort asks the person who watches; if nobody does, ctrl-C is the answer.
func (f *following) offerAbort(ctx context.Context) {
	if !f.asks || f.json {
		f.abort(ctx)
		return
	}
	f.question("\nabort, and leave " + f.last.Workload + " on " + f.last.Source + "? [y/N] (ctrl-C again: stop watching, it goes on) ")
	go func() {
		line, _ := bufio.NewReader(f.in).ReadString('\n')
		f.answers <- line
	}()
}

// abort asks for a rollback; how it ends is then seen as any other end.
func (f *following) abort(ctx context.Context) {
	f.asked, f.aborting = true, true
	f.say("aborting: %s is rolled back to %s; ctrl-C again stops watching", f.last.Workload, f.last.Source)
	go func() {
		_, err := f.cluster.AbortMigration(ctx, f.last.ID, "interrupted by the operator")
		f.aborted <- err
	}()
}

func (f *following) end() error {
	if err := f.conclude(migrationView(f.last)); err != nil {
		return err
	}
	return outcome(f.last)
}

// outcome is nil for a migration that has moved its workload.
func outcome(m api.Migration) error {
	if m.Phase != migration.RolledBack {
		return nil
	}
	how := "was not moved to " + m.Target
	if m.Verdict == migration.Reclaim {
		how = "was taken back from " + m.Target
	}
	next := m.Next
	if next == "" {
		next = m.Workload + " is on " + m.Source + " as before; drover show " + string(m.ID) + " tells the whole story"
	}
	reason := m.Reason
	if reason == "" {
		reason = "no reason was recorded"
	}
	return errs.New(errs.Aborted, "%s %s: %s", m.Workload, how, reason).WithNext("%s", next)
}

// event is something a watcher has seen: a value, or a note about the watching itself.
type event[T any] struct {
	value T
	note  string
}

func watchMigration(ctx context.Context, c *cluster, id migration.ID) (<-chan event[api.Migration], <-chan error) {
	return watch(ctx, c, func(ctx context.Context, from api.Coordinator, f func(api.Migration) error) error {
		return from.WatchMigration(ctx, id, f)
	}, func(m api.Migration) bool { return m.Phase.Final() })
}

func watchPlan(ctx context.Context, c *cluster, name string) (<-chan event[api.Plan], <-chan error) {
	return watch(ctx, c, func(ctx context.Context, from api.Coordinator, f func(api.Plan) error) error {
		return from.WatchPlan(ctx, name, f)
	}, planEnded)
}

// findAgain bounds how long a watcher looks for a coordinator that knows a leader, after it lost one.
const findAgain = time.Minute

// watch watches until over, through changes of leader.
func watch[T any](ctx context.Context, c *cluster, look func(context.Context, api.Coordinator, func(T) error) error, over func(T) bool) (<-chan event[T], <-chan error) {
	events, ended := make(chan event[T]), make(chan error, 1)
	send := func(e event[T]) error {
		select {
		case events <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	go func() { ended <- watchAll(ctx, c, look, over, send) }()
	return events, ended
}

func watchAll[T any](ctx context.Context, c *cluster, look func(context.Context, api.Coordinator, func(T) error) error, over func(T) bool, send func(event[T]) error) error {
	from, lost := c.Coordinator, time.Time{}
	for {
		done := false
		err := look(ctx, from, func(v T) error {
			lost, done = time.Time{}, over(v)
			return send(event[T]{value: v})
		})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && done:
			return nil
		case err != nil && errs.KindOf(err) != errs.Unavailable:
			return err
		case lost.IsZero():
			lost = time.Now()
			if err := send(event[T]{note: "lost the coordinator; what is under way goes on, asking the others"}); err != nil {
				return err
			}
		case time.Since(lost) > findAgain:
			return errs.New(errs.Unavailable, "no coordinator that knows a leader was found for %s: %w", findAgain, err)
		}
		if found, err := c.again(ctx); err == nil {
			from = found
		} else if errs.KindOf(err) != errs.Unavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

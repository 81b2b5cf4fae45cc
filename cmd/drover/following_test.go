package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
)

// watched is a migration on a terminal, with a person who can be asked.
type watched struct {
	*fake
	ctrlC   chan os.Signal
	types   keyboard
	out     *lockedBuffer
	outcome chan error
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	lines chan string
	buf   bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.lines <- string(p)
	return len(p), nil
}

// keyboard is what the person types on.
type keyboard struct{ io.Writer }

func (k keyboard) answer(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(k, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

// until reads what is printed until it says so.
func (b *lockedBuffer) until(t *testing.T, say string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case piece := <-b.lines:
			b.buf.WriteString(piece)
			if strings.Contains(b.buf.String(), say) {
				return
			}
		case <-deadline:
			t.Fatalf("%q was not said, but %q", say, b.buf.String())
		}
	}
}

func watching(t *testing.T, workload string) watched {
	in, types := io.Pipe()
	w := watched{fake: newFake(t.TempDir()), ctrlC: make(chan os.Signal), types: keyboard{types}, out: &lockedBuffer{lines: make(chan string, 100)}, outcome: make(chan error, 1)}
	m, err := w.Migrate(t.Context(), api.MigrateRequest{Workload: workload, To: "beta"})
	if err != nil {
		t.Fatal(err)
	}
	a := &app{in: in, out: w.out, err: w.out, asks: true, printer: &textPrinter{out: w.out, err: w.out, terminal: true}}
	f := &following{app: a, cluster: &cluster{Coordinator: w.fake}, last: m, interrupts: w.ctrlC, aborted: make(chan error, 1), answers: make(chan string, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		types.Close()
		cancel()
	})
	go func() { w.outcome <- f.run(ctx) }()
	w.out.until(t, "COPYING")
	return w
}

func (w watched) ends(t *testing.T) error {
	t.Helper()
	for {
		select {
		case err := <-w.outcome:
			return err
		case piece := <-w.out.lines:
			w.out.buf.WriteString(piece)
		case <-time.After(10 * time.Second):
			t.Fatal("it does not end")
		}
	}
}

func TestCtrlCOffersAnAbort(t *testing.T) {
	w := watching(t, "slow")
	w.ctrlC <- os.Interrupt
	w.out.until(t, "abort, and leave slow on alpha? [y/N]")
	w.types.answer(t, "y")
	if err := w.ends(t); errs.KindOf(err) != errs.Aborted {
		t.Errorf("got %v", err)
	}
}

func TestTheOfferCanBeDeclined(t *testing.T) {
	w := watching(t, "late")
	w.ctrlC <- os.Interrupt
	w.out.until(t, "[y/N]")
	w.types.answer(t, "")
	close(w.fake.aborted) // how this one goes on to its end; an abort would close it a second time and panic
	if err := w.ends(t); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestASecondCtrlCLeavesItToTheCluster(t *testing.T) {
	w := watching(t, "slow")
	w.ctrlC <- os.Interrupt
	w.out.until(t, "[y/N]")
	w.ctrlC <- os.Interrupt
	err := w.ends(t)
	if errs.KindOf(err) != errs.Failed || !strings.Contains(err.Error(), "goes on in the cluster") || errs.NextOf(err) != "drover watch m1-slow" {
		t.Errorf("got %v, next %q", err, errs.NextOf(err))
	}
	if m, _ := w.Migration(t.Context(), "m1-slow"); m.Phase != migration.Copying {
		t.Errorf("it is %s", m.Phase)
	}
}

// broken is a coordinator that loses every watcher after one look.
type broken struct {
	*fake
	looks int
}

func (b *broken) WatchMigration(ctx context.Context, id migration.ID, tell func(api.Migration) error) error {
	b.looks++
	if err := tell(api.Migration{ID: id, Phase: migration.Copying}); err != nil {
		return err
	}
	return errs.New(errs.Unavailable, "connection lost")
}

func TestWatchingSurvivesALostCoordinator(t *testing.T) {
	well := newFake(t.TempDir())
	m, err := well.Migrate(t.Context(), api.MigrateRequest{Workload: "web", To: "beta"})
	if err != nil {
		t.Fatal(err)
	}
	first := &broken{fake: well}
	c := &cluster{Coordinator: first, addresses: []string{"b"}, reach: func(string) api.Coordinator { return well }}
	events, ended := watchMigration(t.Context(), c, m.ID)
	var notes int
	var last api.Migration
	for {
		select {
		case e := <-events:
			if e.note != "" {
				notes++
			} else {
				last = e.value
			}
			continue
		case err := <-ended:
			if err != nil || last.Phase != migration.Done || notes != 1 || first.looks != 1 {
				t.Errorf("ended with %v in %s after %d notes and %d looks", err, last.Phase, notes, first.looks)
			}
		}
		return
	}
}

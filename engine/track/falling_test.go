package track

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"drover/engine"
	"drover/engine/image"
)

// brittle is a tracker whose rounds hand over one page and then fail as it is told to.
type brittle struct {
	name   string
	fails  error
	closed int
}

func (b *brittle) Name() string   { return b.name }
func (b *brittle) Parent() string { return "" }
func (b *brittle) Close() error   { b.closed++; return nil }

func (b *brittle) Round(_ context.Context, emit func(image.Space, uint64, []byte) error) (RoundStats, error) {
	if err := emit(image.Space{}, 0x1000, make([]byte, image.PageSize)); err != nil {
		return RoundStats{}, err
	}
	return RoundStats{Tracker: b.name, Emitted: 1}, b.fails
}

type exactly struct{ *brittle }

func (exactly) Changed(context.Context) (*Changes, error) { return nil, errors.New("not asked") }

func TestATrackerThatFailsIsFollowedByTheNext(t *testing.T) {
	all := map[string]*brittle{"wp": {name: "wp"}, "softdirty": {name: "softdirty", fails: errors.New("no memory")}, "hash": {name: "hash"}}
	made := []string{}
	tr := NewFalling([]string{"wp", "softdirty", "hash"}, func(name string) Tracker {
		made = append(made, name)
		if name == "wp" {
			return exactly{all[name]}
		}
		return all[name]
	}, nil)
	round := func() RoundStats {
		t.Helper()
		st, err := tr.Round(t.Context(), take)
		if err != nil || st.Tracker != tr.Name() {
			t.Fatalf("%+v, %v", st, err)
		}
		return st
	}
	if _, exact := AsExact(tr); round().Fallback != "" || tr.Name() != "wp" || !exact {
		t.Errorf("before anything fails it is %s", tr.Name())
	}
	all["wp"].fails = errors.New("it broke")
	st := round()
	if _, exact := AsExact(tr); exact || st.Tracker != "hash" || !strings.Contains(st.Fallback, "wp failed, softdirty began anew: it broke; softdirty failed, hash began anew: no memory") {
		t.Errorf("%+v", st)
	}
	if again := round(); again.Fallback != st.Fallback {
		t.Errorf("later rounds say %q", again.Fallback)
	}
	all["hash"].fails = errors.New("and this is the last")
	if _, err := tr.Round(t.Context(), take); !errors.Is(err, all["hash"].fails) {
		t.Errorf("with nobody left: %v", err)
	}
	if err := tr.Close(); err != nil || all["wp"].closed != 1 || all["softdirty"].closed != 1 || all["hash"].closed != 1 {
		t.Errorf("%v; closed %d, %d and %d times", err, all["wp"].closed, all["softdirty"].closed, all["hash"].closed)
	}
	if !slices.Equal(made, []string{"wp", "softdirty", "hash"}) {
		t.Errorf("made %v", made)
	}
}

func TestNoOtherTrackerIsTriedForWhatIsNotTheTrackersFault(t *testing.T) {
	full := errors.New("full")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		what  string
		ctx   context.Context
		emit  func(image.Space, uint64, []byte) error
		fails error
		want  error
	}{
		{"the receiver fails", t.Context(), func(image.Space, uint64, []byte) error { return full }, nil, full},
		{"the tree ends", t.Context(), take, fmt.Errorf("pid 1: %w", engine.ErrGone), engine.ErrGone},
		{"the tree cannot be dumped", t.Context(), take, fmt.Errorf("pid 1: %w", engine.ErrUnsupported), engine.ErrUnsupported},
		{"it is called off", cancelled, take, context.Canceled, context.Canceled},
	} {
		tr := NewFalling([]string{"wp", "hash"}, func(name string) Tracker { return &brittle{name: name, fails: c.fails} }, nil)
		if _, err := tr.Round(c.ctx, c.emit); !errors.Is(err, c.want) || tr.Name() != "wp" {
			t.Errorf("%s: %v, and now it is %s", c.what, err, tr.Name())
		}
	}
}

func take(image.Space, uint64, []byte) error { return nil }

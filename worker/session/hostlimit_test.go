package session_test

import (
	"testing"

	"drover/internal/errs"
	"drover/internal/migration"
)

// TestAHostsLimitHoldsFromTheFirstByte: the host need not have heard of it before.
func TestAHostsLimitHoldsFromTheFirstByte(t *testing.T) {
	p := newPair(t)
	if _, err := p.target.Open(t.Context(), p.request(migration.Target)); err != nil {
		t.Fatal(err)
	}
	req, limit := p.request(migration.Source), int64(-1)
	req.HostLimit = &limit
	if _, err := p.source.Open(t.Context(), req); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a limit below zero: %v", err)
	}
	limit = 50e3
	st, err := p.source.Open(t.Context(), req)
	if err != nil || st.Progress.Limit != limit {
		t.Errorf("it may send %d bytes a second: %v", st.Progress.Limit, err)
	}
	p.decide(p.source, migration.Abort)
	p.decide(p.target, migration.Abort)
	p.livesOnlyOn("alpha")
}

package witness

import (
	"context"
	"strings"
	"testing"
	"time"
)

// traceOf makes a trace: each word is a host and a count.
func traceOf(t *testing.T, words ...string) *Trace {
	t.Helper()
	seen := &Trace{}
	for _, w := range words {
		b, err := Parse(w[:1] + " " + w[1:] + " " + w[1:])
		if err != nil {
			t.Fatal(err)
		}
		seen.See(b)
	}
	return seen
}

func TestATraceIsJudgedByWhoWasToRunTheTree(t *testing.T) {
	there := []Tenure{{Host: "a"}, {Host: "b"}}
	reclaimed := []Tenure{{Host: "a"}, {Host: "b"}, {Host: "a", Reclaimed: true}}
	for _, c := range []struct {
		what    string
		seen    *Trace
		tenures []Tenure
		wrong   string
	}{
		{"it stays", traceOf(t, "a1", "a2", "a5"), there[:1], ""},
		{"it moves", traceOf(t, "a1", "a2", "b3", "b4"), there, ""},
		{"it moves unseen", traceOf(t, "b3", "b4"), there, ""},
		{"nothing seen of the target", traceOf(t, "a1", "a2"), there, ""},
		{"it is reclaimed and has not run there", traceOf(t, "a1", "a2", "a3"), reclaimed, ""},
		{"it is reclaimed and has run there", traceOf(t, "a1", "a2", "b3", "b4", "a3", "a4"), reclaimed, ""},
		{"there and back", traceOf(t, "a1", "b2", "a3"), append(there, there[0]), ""},
		{"nothing at all", traceOf(t), there, "nothing was seen"},
		{"two run", traceOf(t, "a1", "b2", "a2", "b3"), there, "out of turn"},
		{"the source runs on", traceOf(t, "a1", "a2", "b3", "a3"), there, "out of turn"},
		{"both run although reclaimed", traceOf(t, "a1", "b2", "a2", "b3"), reclaimed, "out of turn"},
		{"the target runs without a verdict", traceOf(t, "a1", "b2"), there[:1], "out of turn"},
		{"the target has an old copy", traceOf(t, "a1", "a5", "b4"), there, "went back"},
		{"twice on one host", traceOf(t, "a1", "a2", "a2", "a3"), there[:1], "went back"},
	} {
		err := c.seen.Judge(c.tenures...)
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v; want %q", c.what, err, c.wrong)
		}
	}
}

func TestATraceTellsWhatWasDoneToTheTree(t *testing.T) {
	seen := traceOf(t, "a1", "a2")
	seen.Note("kill -9 of the worker")
	seen.See(Beat{Host: "a", Count: 2})
	err := seen.Judge(Tenure{Host: "a"})
	if err == nil || !strings.Contains(err.Error(), "kill -9 of the worker") {
		t.Error(err)
	}
}

func TestATraceKnowsSilence(t *testing.T) {
	seen, begun := &Trace{}, time.Now()
	alive := make(chan error, 1)
	go func() { alive <- seen.Alive(t.Context(), "a", begun) }()
	seen.See(Beat{Host: "a", Count: 1, Seen: begun.Add(1)})
	if err := <-alive; err != nil {
		t.Error(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := seen.Alive(over, "b", begun); err == nil {
		t.Error("b passes for alive")
	}
}

package rpc

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"drover/internal/errs"
)

// canned answers every request with the same.
type canned struct {
	status int
	body   string
}

func (c canned) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: c.status, Body: io.NopCloser(strings.NewReader(c.body)), Header: http.Header{}}, nil
}

// FuzzReplies: whatever a peer answers, a call ends with a value or an error of a kind, and a stream that does not say that it has ended
// has not.
func FuzzReplies(f *testing.F) {
	f.Add(200, `{"value":{"a":1}}`+"\n"+`{"beat":true}`+"\n"+`{"end":true}`)
	f.Add(403, `{"error":"no","kind":"forbidden","next":"ask"}`)
	f.Add(500, "<html>")
	f.Fuzz(func(t *testing.T, status int, body string) {
		c := &http.Client{Transport: canned{200 + (status%400+400)%400, body}}
		var out map[string]any
		if err := Call(context.Background(), c, "GET", "/", nil, &out); err != nil && errs.KindOf(err).String() == "" {
			t.Errorf("an error of no kind: %v", err)
		}
		n := 0
		err := Stream(context.Background(), c, "GET", "/", nil, func(map[string]any) error { n++; return nil })
		if err == nil && !strings.Contains(strings.ToLower(body), "end") { // encoding/json takes keys of any case
			t.Errorf("a stream of %d values ended by itself", n)
		}
	})
}

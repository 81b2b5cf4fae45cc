package rpc

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"drover/internal/errs"
)

func serve(t *testing.T, mux *http.ServeMux) *http.Client {
	t.Helper()
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}}}
}

func TestErrorKeepsKindAndNextStepAcrossTheWire(t *testing.T) {
	mux := http.NewServeMux()
	Handle(mux, "POST /x", func(*http.Request, None) (None, error) {
		return None{}, errs.New(errs.Refused, "port 6379 is taken on beta").WithNext("stop it")
	})
	err := Call(t.Context(), serve(t, mux), "POST", "/x", nil, nil)
	if errs.KindOf(err) != errs.Refused || errs.NextOf(err) != "stop it" || err.Error() != "port 6379 is taken on beta" {
		t.Errorf("got %v (%v, %q)", err, errs.KindOf(err), errs.NextOf(err))
	}
}

func TestStreamEndsWithItsError(t *testing.T) {
	mux := http.NewServeMux()
	HandleStream(mux, "GET /s", func(_ *http.Request, _ None, send func(int) error) error {
		for i := range 3 {
			if err := send(i); err != nil {
				return err
			}
		}
		return errs.New(errs.Timeout, "too slow")
	})
	var got []int
	err := Stream(t.Context(), serve(t, mux), "GET", "/s", nil, func(i int) error { got = append(got, i); return nil })
	if len(got) != 3 || errs.KindOf(err) != errs.Timeout {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	mux := http.NewServeMux()
	Handle(mux, "POST /x", func(*http.Request, struct{ A int }) (None, error) { return None{}, nil })
	err := Call(t.Context(), serve(t, mux), "POST", "/x", map[string]int{"b": 1}, nil)
	if errs.KindOf(err) != errs.Invalid {
		t.Errorf("got %v", err)
	}
}

// endless is a JSON text that has no end.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	if e.read == 0 {
		copy(p, `{"value":"`)
	}
	e.read += len(p)
	return len(p), nil
}
func (*endless) Close() error { return nil }

type answering struct{ io.ReadCloser }

func (a answering) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: a.ReadCloser}, nil
}

func TestAValueWithoutAnEndIsNotWaitedFor(t *testing.T) {
	for what, ask := range map[string]func(c *http.Client) error{
		"a reply": func(c *http.Client) error { var out any; return Call(t.Context(), c, "GET", "/", nil, &out) },
		"a stream": func(c *http.Client) error {
			return Stream(t.Context(), c, "GET", "/", nil, func(any) error { return nil })
		},
	} {
		e := &endless{}
		if err := ask(&http.Client{Transport: answering{e}}); err == nil {
			t.Errorf("%s came to an end", what)
		}
		if e.read > 3*MaxBody {
			t.Errorf("%s: %d bytes were read", what, e.read)
		}
	}
}

// Package rpc is JSON over HTTP as drover's two APIs use it: one request, one reply or a stream of them, and errors that
// keep their kind and their next step. HTTP runs over an SSH channel; the host in a URL means nothing.
package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"drover/internal/errs"
)

const (
	// MaxBody bounds a request's or reply's JSON, in bytes: an inventory of 10,000 files with long paths fits several times.
	MaxBody = 16 << 20
	base    = "http://drover"
)

// wireError is an error as it stands in a reply.
type wireError struct {
	Error string `json:"error"`
	Kind  string `json:"kind"`
	Next  string `json:"next,omitempty"`
}

// line is one line of a stream: a value, or the error or plain end that closes it.
type line struct {
	Value json.RawMessage `json:"value,omitempty"`
	Err   *wireError      `json:"err,omitempty"`
	End   bool            `json:"end,omitempty"`
	Beat  bool            `json:"beat,omitempty"` // nothing has happened; the peer lives
}

// Call sends in as JSON and decodes the reply into out; either may be nil. A reply that is an error comes back as errs.Error;
// a peer that cannot be reached is errs.Unavailable.
func Call(ctx context.Context, c *http.Client, method, path string, in, out any) error {
	resp, err := do(ctx, c, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, MaxBody))
		return err
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, MaxBody)).Decode(out); err != nil {
		return transport(ctx, err)
	}
	return nil
}

// Copy sends in as JSON and copies the reply's body to w as it comes.
func Copy(ctx context.Context, c *http.Client, method, path string, in any, w io.Writer) error {
	resp, err := do(ctx, c, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return transport(ctx, err)
	}
	return nil
}

// Stream sends in as JSON and calls f with every value that comes, until the peer ends the stream (nil), fails (its error),
// breaks off (errs.Unavailable) or f fails (f's error).
func Stream[T any](ctx context.Context, c *http.Client, method, path string, in any, f func(T) error) error {
	resp, err := do(ctx, c, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := &bounded{Reader: resp.Body}
	dec := json.NewDecoder(body)
	for {
		body.left = MaxBody // for each value: the whole may go on for ever
		var l line
		if err := dec.Decode(&l); err != nil {
			return transport(ctx, err)
		}
		switch {
		case l.Err != nil:
			return l.Err.err()
		case l.End:
			return nil
		case l.Beat:
			continue
		}
		var v T
		if err := json.Unmarshal(l.Value, &v); err != nil {
			return errs.New(errs.Failed, "read %s: %w", path, err)
		}
		if err := f(v); err != nil {
			return err
		}
	}
}

// bounded is a reader that gives no more than left bytes until it is set again.
type bounded struct {
	io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errs.New(errs.Failed, "the peer sent one value of more than %d bytes", MaxBody)
	}
	n, err := b.Reader.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func do(ctx context.Context, c *http.Client, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, errs.New(errs.Invalid, "encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, transport(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	var we wireError
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if json.Unmarshal(b, &we) != nil || we.Error == "" {
		return nil, errs.New(errs.Failed, "%s %s: %s", method, path, resp.Status)
	}
	return nil, we.err()
}

// transport says that the peer, not the request, is at fault, unless the caller's own ctx ended the call.
func transport(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var e *errs.Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return errs.New(errs.Unavailable, "connection lost: %w", err)
}

func (w *wireError) err() error {
	return &errs.Error{Kind: errs.KindNamed(w.Kind), Msg: w.Error, Next: w.Next}
}

func toWire(err error) *wireError {
	return &wireError{Error: err.Error(), Kind: errs.KindOf(err).String(), Next: errs.NextOf(err)}
}

// WriteError answers a request with err.
func WriteError(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(errs.KindOf(err).HTTPStatus())
	_ = json.NewEncoder(w).Encode(toWire(err)) // who hung up hears nothing
}

// None is the request or reply of a call that has none.
type None struct{}

// Handle answers pattern ("POST /v1/x/{id}") with f's reply. The request's body is bounded by MaxBody and unknown fields are
// refused; an empty body is In's zero value.
func Handle[In, Out any](mux *http.ServeMux, pattern string, f func(r *http.Request, in In) (Out, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		in, err := read[In](w, r)
		if err != nil {
			WriteError(w, err)
			return
		}
		out, err := f(r, in)
		if err != nil {
			WriteError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // who hung up hears nothing
	})
}

// HandleStream answers pattern with every value f sends, flushed at once, and with a sign of life each second between them.
// send may be called from one goroutine at a time and fails once the client is gone.
func HandleStream[In, T any](mux *http.ServeMux, pattern string, f func(r *http.Request, in In, send func(T) error) error) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		in, err := read[In](w, r)
		if err != nil {
			WriteError(w, err)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		lines := make(chan line)
		done := make(chan error, 1)
		go func() {
			done <- f(r.WithContext(ctx), in, func(v T) error {
				b, err := json.Marshal(v)
				if err != nil {
					return err
				}
				select {
				case lines <- line{Value: b}:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		}()
		write := func(l line) bool {
			if json.NewEncoder(w).Encode(l) != nil {
				return false
			}
			return http.NewResponseController(w).Flush() == nil
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		beat := time.NewTicker(time.Second)
		defer beat.Stop()
		for {
			var ok bool
			select {
			case l := <-lines:
				ok = write(l)
			case <-beat.C:
				ok = write(line{Beat: true})
			case err := <-done:
				if err != nil {
					write(line{Err: toWire(err)})
				} else {
					write(line{End: true})
				}
				return
			}
			if !ok {
				cancel()
				<-done //nolint:errcheck // nobody is left to tell
				return
			}
		}
	})
}

func read[In any](w http.ResponseWriter, r *http.Request) (in In, err error) {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil && !errors.Is(err, io.EOF) {
		return in, errs.New(errs.Invalid, "request to %s: %w", r.URL.Path, err).WithNext("run the same release of drover at both ends; coordinators are upgraded first")
	}
	return in, nil
}

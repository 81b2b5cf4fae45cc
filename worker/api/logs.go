package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"drover/internal/errs"
	"drover/internal/rpc"
	"drover/internal/workload"
)

// serveLogs answers with the output itself, flushed as it comes. An error before the first byte is an error reply; after it
// only breaking the connection can tell the client that what it has is not all.
func serveLogs(rw http.ResponseWriter, r *http.Request, w Worker) {
	name := r.PathValue("name")
	if err := workload.ValidName("workload", name); err != nil {
		rpc.WriteError(rw, err)
		return
	}
	var opts LogOptions
	dec := json.NewDecoder(http.MaxBytesReader(rw, r.Body, rpc.MaxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&opts); err != nil && !errors.Is(err, io.EOF) {
		rpc.WriteError(rw, errs.New(errs.Invalid, "request for the output of %s: %w", name, err))
		return
	}
	out := &flushed{w: rw}
	if err := w.Logs(r.Context(), name, opts, out); err != nil {
		if !out.begun {
			rpc.WriteError(rw, err)
			return
		}
		panic(http.ErrAbortHandler) //nolint:forbidigo // net/http's way to cut an answer off, so that it does not look whole
	}
}

// flushed sends every write on its way at once: a follower waits for each line.
type flushed struct {
	w     http.ResponseWriter
	begun bool
}

func (f *flushed) Write(p []byte) (int, error) {
	f.begun = true
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(f.w).Flush()
}

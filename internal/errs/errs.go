// Package errs holds drover's error type: every error a person sees says what failed, on which thing, why, and what to do next.
package errs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Kind says what sort of failure an error is. Kinds map to exit codes and HTTP status codes; a kind's number is its exit
// code and never changes.
type Kind int

const (
	Failed      Kind = 1 // the operation was tried and did not work; anything unclassified
	Invalid     Kind = 2 // the request makes no sense: bad flag, bad name, impossible value
	NotFound    Kind = 3 // a named workload, host, migration, plan or file does not exist
	Conflict    Kind = 4 // the state forbids it now: already migrating, older epoch, name taken
	Refused     Kind = 5 // a check said no: doctor's NO-GO, not enough memory, policy
	Unavailable Kind = 6 // a host, leader or majority cannot be reached
	Timeout     Kind = 7 // a deadline passed
	Aborted     Kind = 8 // a migration was tried and rolled back; the source runs on
	Forbidden   Kind = 9 // the caller's key or role may not do this
)

var kinds = map[Kind]struct {
	name   string
	status int
}{
	Failed:      {"failed", http.StatusInternalServerError},
	Invalid:     {"invalid", http.StatusBadRequest},
	NotFound:    {"not-found", http.StatusNotFound},
	Conflict:    {"conflict", http.StatusConflict},
	Refused:     {"refused", http.StatusUnprocessableEntity},
	Unavailable: {"unavailable", http.StatusServiceUnavailable},
	Timeout:     {"timeout", http.StatusGatewayTimeout},
	Aborted:     {"aborted", http.StatusFailedDependency},
	Forbidden:   {"forbidden", http.StatusForbidden},
}

// String is the kind's name as it stands in JSON.
func (k Kind) String() string {
	if d, ok := kinds[k]; ok {
		return d.name
	}
	return kinds[Failed].name
}

// ExitCode is the code a command exits with for an error of this kind.
func (k Kind) ExitCode() int {
	if _, ok := kinds[k]; ok {
		return int(k)
	}
	return int(Failed)
}

// HTTPStatus is the status an API answers with.
func (k Kind) HTTPStatus() int {
	if d, ok := kinds[k]; ok {
		return d.status
	}
	return kinds[Failed].status
}

// KindNamed is the kind with that JSON name, Failed if there is none.
func KindNamed(name string) Kind {
	for k, d := range kinds {
		if d.name == name {
			return k
		}
	}
	return Failed
}

// Error is a failure of one kind with an optional next step for the person who reads it.
type Error struct {
	Kind Kind
	Msg  string // what failed and why, names included; no trailing full stop
	Next string // what to do about it, "" if there is nothing to say
	Err  error  // the cause, if Msg does not already contain it
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Msg
	}
	cause := e.Err.Error()
	if cause == "" || e.Msg == "" {
		return e.Msg + cause
	}
	return e.Msg + ": " + cause
}

func (e *Error) Unwrap() error { return e.Err }

// New is an error of the kind; format and args as for fmt.Errorf, %w included, also several.
func New(k Kind, format string, args ...any) *Error {
	w := fmt.Errorf(format, args...)
	e := &Error{Kind: k, Msg: w.Error(), Next: NextOf(w)}
	switch w.(type) { //nolint:errorlint // it asks whether w wraps, not what
	case interface{ Unwrap() error }, interface{ Unwrap() []error }:
		e.Err = silent{w}
	}
	return e
}

// silent keeps a cause for errors.Is without printing it a second time.
type silent struct{ error }

func (s silent) Error() string { return "" }
func (s silent) Unwrap() error { return s.error }

// WithNext adds the next step.
func (e *Error) WithNext(format string, args ...any) *Error {
	e.Next = fmt.Sprintf(format, args...)
	return e
}

// KindOf is the kind of the first Error in err's chain; contexts' own errors count as Timeout and Aborted; otherwise Failed.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Aborted
	}
	return Failed
}

// NextOf is the first next step in err's chain, or "".
func NextOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Next != "" {
			return e.Next
		}
		err = e.Err
	}
	return ""
}

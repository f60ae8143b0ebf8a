// Package fault is the one place where errors are sorted into classes, and where a class becomes an HTTP
// status or an exit code. An error says operation and object, in lower case, and wraps what caused it:
//
//	return fault.Wrap(fault.Unavailable, err, "mount volume %s/%s", driver, name)
//
// Unknown is special: the effect may or may not have happened (a timeout, a lost reply). Whoever gets it
// must find out before acting again; it is never the same as a failure.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Class says what kind of failure an error is.
type Class string

// The classes, as they appear in the `code` of /v1 answers.
const (
	Invalid     Class = "invalid"     // the input is wrong; repeating it will not help
	NotFound    Class = "not-found"   // the object does not exist
	Exists      Class = "exists"      // an object of that name exists already
	Conflict    Class = "conflict"    // the object's state, or another's claim on it, forbids it now
	Denied      Class = "denied"      // the caller may not
	Unavailable Class = "unavailable" // a service that is needed cannot be reached or refuses now; nothing was done
	Unknown     Class = "unknown"     // it may or may not have been done
	Internal    Class = "internal"    // a bug, or something nobody foresaw
)

// Detail points at the part of the input that is wrong, in Marathon's form.
type Detail struct {
	Path   string   `json:"path"`
	Errors []string `json:"errors"`
}

// Error is an error with a class. Build it with New, Wrap or WithDetails.
type Error struct {
	Class   Class
	Text    string // operation and object
	Details []Detail
	Err     error // what caused it, may be nil
}

// Error gives the text, then the cause.
func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Text
	case e.Text == "":
		return e.Err.Error()
	}
	return e.Text + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// New returns an error of a class. The text says operation and object, lower case.
func New(c Class, format string, args ...any) error {
	return &Error{Class: c, Text: fmt.Sprintf(format, args...)}
}

// Wrap puts a class and a text before a cause; a nil cause gives nil.
func Wrap(c Class, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Class: c, Text: fmt.Sprintf(format, args...), Err: err}
}

// Op puts a text before a cause and keeps the cause's class; a nil cause gives nil.
func Op(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Class: ClassOf(err), Text: fmt.Sprintf(format, args...), Err: err}
}

// WithDetails is New with the paths that are wrong.
func WithDetails(c Class, text string, details ...Detail) error {
	return &Error{Class: c, Text: text, Details: details}
}

// ClassOf gives the class of the outermost classified error in the chain. A context's end is Unknown: what was
// under way may still happen. Any other error is Internal; nil is "".
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Unknown
	}
	return Internal
}

// Is tells whether err is of class c.
func Is(err error, c Class) bool { return err != nil && ClassOf(err) == c }

// DetailsOf gives the details of the first error in the chain that has some.
func DetailsOf(err error) []Detail {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return nil
		}
		if len(e.Details) > 0 {
			return e.Details
		}
		err = e.Err
	}
	return nil
}

var status = map[Class]int{
	Invalid:     http.StatusUnprocessableEntity,
	NotFound:    http.StatusNotFound,
	Exists:      http.StatusConflict,
	Conflict:    http.StatusConflict,
	Denied:      http.StatusForbidden,
	Unavailable: http.StatusServiceUnavailable,
	Unknown:     http.StatusGatewayTimeout,
	Internal:    http.StatusInternalServerError,
}

// HTTPStatus maps a class to the status of an HTTP answer.
func HTTPStatus(c Class) int {
	if s, ok := status[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// FromHTTPStatus is the way back, for clients whose answer carried no code.
func FromHTTPStatus(s int) Class {
	switch {
	case s == http.StatusNotFound:
		return NotFound
	case s == http.StatusConflict:
		return Conflict
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		return Denied
	case s == http.StatusBadGateway || s == http.StatusServiceUnavailable || s == http.StatusTooManyRequests:
		return Unavailable
	case s == http.StatusGatewayTimeout:
		return Unknown
	case s >= 400 && s < 500:
		return Invalid
	}
	return Internal
}

// Exit codes of the holdfast command. (dvdcli keeps the old ones: 0 and 1.)
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitConflict    = 4
	ExitUnavailable = 5
	ExitUnknown     = 6 // unknown, or still waiting
)

// ExitCode maps a class to the exit code of a command. Invalid input to a server is a failure; ExitUsage is
// for command lines that cannot be read, which their parser decides.
func ExitCode(c Class) int {
	switch c {
	case "":
		return ExitOK
	case NotFound:
		return ExitNotFound
	case Exists, Conflict:
		return ExitConflict
	case Unavailable:
		return ExitUnavailable
	case Unknown:
		return ExitUnknown
	}
	return ExitFailed
}

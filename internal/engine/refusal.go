package engine

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/volute-io/volute"
)

// ErrClosed is what a command gets when its session has gone meanwhile.
var ErrClosed = errors.New("connection closed")

// refusal is a *volute.Error or *volute.Disconnect together with the rule that
// caused it. The client sees the former, the log both.
type refusal struct {
	told error
	why  string
}

func (r *refusal) Error() string { return r.told.Error() + " (" + r.why + ")" }
func (r *refusal) Unwrap() error { return r.told }

// refuse says told to the client and why to the log.
func refuse(told error, why string, args ...any) error {
	return &refusal{told: told, why: fmt.Sprintf(why, args...)}
}

// answered is an error together with the backend that it came from.
type answered struct {
	backend string
	err     error
	logged  bool
}

func (a *answered) Error() string { return a.backend + ": " + a.err.Error() }
func (a *answered) Unwrap() error { return a.err }

// verdict is how a failed command ends: exactly one of e and d is set.
type verdict struct {
	e   *volute.Error
	d   *volute.Disconnect
	why string
	by  string // the backend that said so; "" = a rule of this server

	logged bool // the log knows why already
}

// judge turns any error into a verdict. What is neither an Error nor a
// Disconnect is a failure of ours or of a backend: temporary for the client.
func judge(err error) verdict {
	var v verdict
	var r *refusal
	if errors.As(err, &r) {
		v.why = r.why
	}
	said := err
	var a *answered
	if errors.As(err, &a) {
		v.by, v.logged, said = a.backend, a.logged, a.err
	}
	if errors.As(err, &v.d) {
		return v.because(said, v.d)
	}
	if errors.As(err, &v.e) {
		return v.because(said, v.e)
	}
	v.e, v.why = volute.ErrInternal, err.Error()
	return v
}

// because fills in why, if no rule of this server did: what said says beyond what
// the client is told.
func (v verdict) because(said, told error) verdict {
	switch {
	case v.why != "":
	case said.Error() != told.Error():
		v.why = said.Error()
	default:
		v.why = "the application said so"
	}
	return v
}

// attrs are what the log says of the verdict.
func (v verdict) attrs(code uint32, told string) []any {
	args := []any{"code", code, "told", told, "reason", v.why}
	if v.by != "" {
		args = append(args, "backend", v.by)
	}
	return args
}

// dev returns copies of the verdict's words that tell the client why.
func (v verdict) dev() verdict {
	if v.why == "" {
		return v
	}
	if v.e != nil {
		v.e = &volute.Error{Code: v.e.Code, Message: v.e.Message + ": " + v.why, Temporary: v.e.Temporary}
	}
	if v.d != nil {
		v.d = &volute.Disconnect{Code: v.d.Code, Reason: v.d.Reason + ": " + v.why}
	}
	return v
}

// legalDisconnect keeps close codes legal: browsers take others for 1006 and the
// SDK would reconnect in a loop. A reason that is JSON is not taken for a reason
// by the SDK, but for {reason, reconnect}.
func legalDisconnect(d volute.Disconnect) volute.Disconnect {
	if d.Code < 3000 || d.Code > 4999 {
		d = volute.Disconnect{Code: 4500, Reason: fmt.Sprintf("%d: %s", d.Code, d.Reason)}
	}
	if d.Reason == "" {
		// The SDK looks at the code only if there is a reason.
		d.Reason = "disconnect"
	}
	if json.Valid([]byte(d.Reason)) {
		d.Reason = "reason: " + d.Reason
	}
	return d
}

package volute

import (
	"errors"
	"fmt"
)

// Error is told to the client as the answer to its command; the connection
// lives on. Codes below 100 and Temporary errors are retried by the SDKs.
// Applications use codes 400–1999.
type Error struct {
	Code      uint32
	Message   string
	Temporary bool
}

func (e *Error) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Message) }

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	var t *Error
	return errors.As(target, &t) && t.Code == e.Code
}

// Errors of the client protocol and the server API.
var (
	ErrInternal              = &Error{Code: 100, Message: "internal server error", Temporary: true}
	ErrUnauthorized          = &Error{Code: 101, Message: "unauthorized"}
	ErrUnknownChannel        = &Error{Code: 102, Message: "unknown channel"}
	ErrPermissionDenied      = &Error{Code: 103, Message: "permission denied"}
	ErrMethodNotFound        = &Error{Code: 104, Message: "method not found"}
	ErrAlreadySubscribed     = &Error{Code: 105, Message: "already subscribed"}
	ErrLimitExceeded         = &Error{Code: 106, Message: "limit exceeded"}
	ErrBadRequest            = &Error{Code: 107, Message: "bad request"}
	ErrNotAvailable          = &Error{Code: 108, Message: "not available"}
	ErrTokenExpired          = &Error{Code: 109, Message: "token expired"}
	ErrExpired               = &Error{Code: 110, Message: "expired"}
	ErrTooManyRequests       = &Error{Code: 111, Message: "too many requests", Temporary: true}
	ErrUnrecoverablePosition = &Error{Code: 112, Message: "unrecoverable position"}
	ErrConcurrentPagination  = &Error{Code: 113, Message: "concurrent pagination", Temporary: true}
)

// Disconnect ends a client's connection, telling it why. Codes 3500–3999 and
// 4500–4999 tell the SDK not to come back, others to reconnect. Applications
// use 4000–4999; what lies outside 3000–4999 goes out as 4500 with the
// original code in the reason.
type Disconnect struct {
	Code   uint32
	Reason string
}

func (d *Disconnect) Error() string { return fmt.Sprintf("disconnect %d: %s", d.Code, d.Reason) }

// Is reports whether target is a *Disconnect with the same code.
func (d *Disconnect) Is(target error) bool {
	var t *Disconnect
	return errors.As(target, &t) && t.Code == d.Code
}

// Reconnects reports whether the SDKs come back after this disconnect.
func (d *Disconnect) Reconnects() bool {
	return d.Code < 3500 || d.Code >= 4000 && d.Code < 4500 || d.Code >= 5000
}

// Disconnects of the client protocol.
var (
	DisconnectConnectionClosed      = &Disconnect{3000, "connection closed"}
	DisconnectShutdown              = &Disconnect{3001, "shutdown"}
	DisconnectServerError           = &Disconnect{3004, "internal server error"}
	DisconnectExpired               = &Disconnect{3005, "connection expired"}
	DisconnectSubExpired            = &Disconnect{3006, "subscription expired"}
	DisconnectSlow                  = &Disconnect{3008, "slow"}
	DisconnectWriteError            = &Disconnect{3009, "write error"}
	DisconnectInsufficientState     = &Disconnect{3010, "insufficient state"}
	DisconnectForceReconnect        = &Disconnect{3011, "force reconnect"}
	DisconnectNoPong                = &Disconnect{3012, "no pong"}
	DisconnectTooManyRequests       = &Disconnect{3013, "too many requests"}
	DisconnectStateInvalidated      = &Disconnect{3014, "state invalidated"}
	DisconnectInvalidToken          = &Disconnect{3500, "invalid token"}
	DisconnectBadRequest            = &Disconnect{3501, "bad request"}
	DisconnectStale                 = &Disconnect{3502, "stale"}
	DisconnectForceNoReconnect      = &Disconnect{3503, "force disconnect"}
	DisconnectConnectionLimit       = &Disconnect{3504, "connection limit"}
	DisconnectChannelLimit          = &Disconnect{3505, "channel limit"}
	DisconnectInappropriateProtocol = &Disconnect{3506, "inappropriate protocol"}
	DisconnectPermissionDenied      = &Disconnect{3507, "permission denied"}
	DisconnectNotAvailable          = &Disconnect{3508, "not available"}
	DisconnectTooManyErrors         = &Disconnect{3509, "too many errors"}
)

// Unsubscribe tells a client that the server ended one of its subscriptions.
// Codes from 2500 make the SDK subscribe again, lower ones do not.
type Unsubscribe struct {
	Code   uint32
	Reason string
}

// Unsubscribes of the client protocol.
var (
	UnsubscribeServer            = Unsubscribe{2000, "server unsubscribe"}
	UnsubscribeInsufficientState = Unsubscribe{2500, "insufficient state"}
	UnsubscribeExpired           = Unsubscribe{2501, "subscription expired"}
	UnsubscribeStateInvalidated  = Unsubscribe{2502, "state invalidated"}
)

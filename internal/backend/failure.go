package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// unreachable is a failure to get hold of a backend. Another one may be asked
// instead, if it has not seen the event or a second execution does no harm.
type unreachable struct {
	err    error
	unseen bool // the backend has certainly not seen the event
}

func (u *unreachable) Error() string   { return u.err.Error() }
func (u *unreachable) Unwrap() []error { return []error{volute.ErrUnreachable, u.err} }

// GRPCStatus is what a server in front tells when it passes the failure on.
func (u *unreachable) GRPCStatus() *status.Status {
	return status.New(codes.Unavailable, u.Error())
}

// late is a failure that came with the guard's own deadline.
type late struct {
	after time.Duration
	err   error
}

func (l *late) Error() string {
	if l.err == context.DeadlineExceeded {
		return fmt.Sprintf("no answer, deadline after %s", l.after)
	}
	return fmt.Sprintf("no answer, deadline after %s: %s", l.after, l.err)
}

// Unwrap tells a server in front that the deadline passed, and a Balance
// whether the backend was reached at all.
func (l *late) Unwrap() []error { return []error{context.DeadlineExceeded, l.err} }

// dialing says in words why a connection could not be opened, and whether it
// was that at all.
func dialing(err error) (string, bool) {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("host %q does not resolve; check the endpoint's spelling", dns.Name), true
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused; is the backend running?", true
	case errors.As(err, &op) && op.Op == "dial":
		return "cannot connect", true
	}
	return "", false
}

// tooLarge is the reason for refusing an answer of size bytes; size < 0 is
// "unknown, but more than the limit".
func tooLarge(size int64, limit int) error {
	if size < 0 {
		return fmt.Errorf("answer is larger than %d bytes", limit)
	}
	return fmt.Errorf("answer of %d bytes is larger than %d", size, limit)
}

// start quotes the beginning of an answer for an error text.
func start(body []byte) string {
	const most = 120
	s := strings.ToValidUTF8(string(body[:min(len(body), most)]), "")
	if len(body) > most {
		s += "…"
	}
	return fmt.Sprintf("%q", s)
}

// unsupported is the failure of a backend that cannot be asked this.
func unsupported(ev volute.Event) error {
	if ev.Stream != volute.StreamNone {
		return fmt.Errorf("subscription streams need a gRPC endpoint: %w", errors.ErrUnsupported)
	}
	return fmt.Errorf("the proxy protocol has no such event: %w", errors.ErrUnsupported)
}

// answered says of an answer that could not be read what would have been right.
// What the answer told the client, it lets through.
func answered(kind volute.Kind, err error) error {
	var e *volute.Error
	var d *volute.Disconnect
	if err == nil || errors.As(err, &e) || errors.As(err, &d) {
		return err
	}
	response := codec.NewResponse(kind)
	if response == nil {
		return err
	}
	fields := response.ProtoReflect().Descriptor().Fields()
	right := make([]string, fields.Len())
	for i := range right {
		right[i] = string(fields.Get(i).Name())
	}
	return fmt.Errorf("unreadable answer: %w; want a %s with one of: %s",
		err, response.ProtoReflect().Descriptor().Name(), strings.Join(right, ", "))
}

// Package api shows a volute.API to applications over gRPC, HTTP and goridge
// RPC. The three faces walk the table of operations of package codec; none of
// them knows a method by name, but for one quirk.
package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net/http"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/proto/apipb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// face is what the three have in common.
type face struct {
	name string // "grpc", "http" or "goridge", for logs
	api  volute.API
	log  *slog.Logger
}

// serve performs one operation. Failures, and why a call was refused, are logged
// here; the caller is told as much as the response says. The error is
// codec.ErrNotReady or nil.
func (f *face) serve(ctx context.Context, op *codec.Operation, req proto.Message) (proto.Message, error) {
	resp, err := op.Serve(ctx, f.api, req)
	if errors.Is(err, codec.ErrNotReady) {
		return nil, codec.ErrNotReady
	}
	switch {
	case errors.As(err, new(*volute.Error)):
		f.log.InfoContext(ctx, "api call refused", "face", f.name, "method", op.Name, "reason", err)
	case err != nil:
		f.log.ErrorContext(ctx, "api call failed", "face", f.name, "method", op.Name, "error", err)
	}
	return resp, nil
}

// errorOf returns the error inside of a response; nil if there is none.
func errorOf(resp proto.Message) *apipb.Error {
	if r, ok := resp.(interface{ GetError() *apipb.Error }); ok {
		return r.GetError()
	}
	return nil
}

// modeHeader asks for the error mode "transport" in one call, as gRPC metadata
// or as an HTTP header: errors become statuses of the transport.
const (
	modeHeader    = "x-centrifugo-error-mode"
	modeTransport = "transport"
)

// status is how an error code looks in the error mode "transport".
type status struct {
	http int
	grpc codes.Code
}

var statuses = map[uint32]status{
	volute.ErrUnknownChannel.Code:        {http.StatusNotFound, codes.NotFound},
	volute.ErrMethodNotFound.Code:        {http.StatusNotFound, codes.NotFound},
	volute.ErrBadRequest.Code:            {http.StatusBadRequest, codes.InvalidArgument},
	volute.ErrNotAvailable.Code:          {http.StatusBadRequest, codes.InvalidArgument},
	volute.ErrUnrecoverablePosition.Code: {http.StatusRequestedRangeNotSatisfiable, codes.OutOfRange},
	volute.ErrConcurrentPagination.Code:  {http.StatusConflict, codes.AlreadyExists},
}

func statusOf(code uint32) status {
	if s, ok := statuses[code]; ok {
		return s
	}
	return status{http.StatusInternalServerError, codes.Internal}
}

// key is the secret that callers must show. Its methods take the same time
// whatever they are given, so that nobody can guess it byte by byte.
type key [sha256.Size]byte

func newKey(s string) key { return sha256.Sum256([]byte(s)) }

func (k key) opens(shown string) bool {
	sum := sha256.Sum256([]byte(shown))
	return subtle.ConstantTimeCompare(k[:], sum[:]) == 1
}

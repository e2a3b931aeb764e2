package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/proto/apipb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	callTimeout = 10 * time.Second // of an API call whose ctx has no deadline
	maxAnswer   = 64 << 20         // bytes of an API answer; histories are long
)

// Client is the API of a server elsewhere. A call whose ctx has no deadline ends
// after ten seconds.
type Client struct {
	volute.API
	close func() error
}

// Close drops the client's connections.
func (c *Client) Close() error { return c.close() }

// DialGRPC returns a client of a server's gRPC API at host:port or
// grpc://host:port. key is the API key, "" if the server wants none. The
// connection is made by the first call, in plaintext unless the options have
// grpc.WithTransportCredentials.
func DialGRPC(endpoint, key string, o ...grpc.DialOption) (*Client, error) {
	conn, err := grpc.NewClient(strings.TrimPrefix(endpoint, "grpc://"), append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithDisableServiceConfig(),
	}, o...)...)
	if err != nil {
		return nil, fmt.Errorf("server API %q: want host:port: %w", endpoint, err)
	}
	call := func(ctx context.Context, op *codec.Operation, request proto.Message) (proto.Message, error) {
		if key != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "apikey "+key)
		}
		response := op.NewResponse()
		err := conn.Invoke(ctx, "/"+apipb.CentrifugoApi_ServiceDesc.ServiceName+"/"+op.Method, request, response)
		switch {
		case err == nil:
			return response, nil
		case status.Code(err) == codes.Unavailable:
			err = fmt.Errorf("%w: %w", codec.ErrNotReady, err)
		case status.Code(err) == codes.DeadlineExceeded:
			err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
		}
		return nil, fmt.Errorf("server API %s: %w", endpoint, err)
	}
	return &Client{codec.Client(bounded(call)), conn.Close}, nil
}

// NewHTTP returns a client of a server's HTTP API, e.g. at
// "http://127.0.0.1:8000/api". key is the API key.
func NewHTTP(endpoint, key string) (*Client, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("server API %q: want http://host:port/api", endpoint)
	}
	web := &http.Client{Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
	}}
	call := func(ctx context.Context, op *codec.Operation, request proto.Message) (proto.Message, error) {
		response, err := post(ctx, web, u.JoinPath(op.Name).String(), key, op, request)
		if err != nil {
			return nil, fmt.Errorf("server API %s: %w", u.Redacted(), err)
		}
		return response, nil
	}
	return &Client{codec.Client(bounded(call)), func() error { web.CloseIdleConnections(); return nil }}, nil
}

func post(ctx context.Context, web *http.Client, address, key string, op *codec.Operation, request proto.Message) (proto.Message, error) {
	body, err := codec.MarshalJSON(request)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("X-API-Key", key)
	}
	answer, err := web.Do(r)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the address is named already
		}
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case answer.StatusCode == http.StatusUnauthorized:
		return nil, fmt.Errorf("answered %s: the API key is wrong or missing", answer.Status)
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("answered %s: %.120q", answer.Status, text)
	case len(text) > maxAnswer:
		return nil, fmt.Errorf("answer is larger than %d bytes", maxAnswer)
	}
	response := op.NewResponse()
	if err := codec.UnmarshalJSON(text, response); err != nil {
		return nil, fmt.Errorf("unreadable answer %.120q: %w", text, err)
	}
	return response, nil
}

// bounded gives every call a deadline.
func bounded(call codec.Call) codec.Call {
	return func(ctx context.Context, op *codec.Operation, request proto.Message) (proto.Message, error) {
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, callTimeout)
			defer cancel()
		}
		return call(ctx, op, request)
	}
}

// noAPI is the API of an app that has none.
var noAPI = codec.Client(func(context.Context, *codec.Operation, proto.Message) (proto.Message, error) {
	return nil, errors.New("the app has no server API: run it inside a server, or give it a client with SetAPI")
})

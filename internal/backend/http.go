package backend

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
)

// StatusTransform says what an HTTP status other than 200 means for the client.
// One of Error and Disconnect is set.
type StatusTransform struct {
	Status     int
	Error      *volute.Error
	Disconnect *volute.Disconnect
}

// HTTPConfig configures an HTTP backend.
type HTTPConfig struct {
	// Endpoint is the URL that events are posted to. The application learns the
	// kind of event from it alone.
	Endpoint string
	Limits
	Forward    Forward           // Static is the static headers
	Transforms []StatusTransform // the first that matches counts; without one, a status other than 200 is a failure
	TLS        *tls.Config       // nil = the system's defaults
	Binary     bool              // payloads travel in the b64 fields
	Meta       bool              // tell the connection's meta
	MaxMessage int               // bytes of one answer; 0 = 16 MiB
	Logger     *slog.Logger
}

// HTTP is an application that answers events posted as JSON.
type HTTP struct {
	*Guard
	client     *http.Client
	url        string
	forward    Forward
	options    codec.Options
	transforms []StatusTransform
	max        int
}

// NewHTTP returns a backend that connects when the first event comes. The error
// tells what is wrong with the endpoint.
func NewHTTP(c HTTPConfig) (*HTTP, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("endpoint %q: want http://host/path or https://host/path", c.Endpoint)
	}
	for _, t := range c.Transforms {
		if (t.Error == nil) == (t.Disconnect == nil) {
			return nil, fmt.Errorf("endpoint %q: transform of status %d: want either an error or a disconnect", c.Endpoint, t.Status)
		}
	}
	h := &HTTP{
		client: &http.Client{
			Transport: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				TLSClientConfig:        c.TLS,
				ForceAttemptHTTP2:      true,
				TLSHandshakeTimeout:    10 * time.Second,
				MaxIdleConnsPerHost:    255,
				IdleConnTimeout:        90 * time.Second,
				MaxResponseHeaderBytes: 64 << 10,
			},
			// A redirected event would arrive as a GET without its body.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		url:        c.Endpoint,
		forward:    c.Forward.compile(),
		options:    codec.Options{Binary: c.Binary, Meta: c.Meta},
		transforms: c.Transforms,
		max:        c.MaxMessage,
	}
	if h.max == 0 {
		h.max = maxMessage
	}
	h.Guard = NewGuard(u.Redacted(), volute.BackendFunc(h.ask), c.Limits, c.Logger)
	return h, nil
}

// Close drops idle connections.
func (h *HTTP) Close() error {
	h.client.CloseIdleConnections()
	return nil
}

func (h *HTTP) ask(ctx context.Context, ev volute.Event) (volute.Reply, error) {
	request, response := codec.Request(ev, h.options), codec.NewResponse(ev.Kind)
	if request == nil || ev.Stream != volute.StreamNone {
		return nil, unsupported(ev)
	}
	body, err := codec.MarshalJSON(request)
	if err != nil {
		return nil, fmt.Errorf("event has no JSON form; set binary_encoding: %w", err)
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	post.Header.Set("Content-Type", "application/json")
	for name, values := range h.forward.headers(ev, fieldValue) {
		post.Header[http.CanonicalHeaderKey(name)] = values
	}
	post.Host = post.Header.Get("Host") // net/http takes it from there alone; "" = the endpoint's
	answer, err := h.client.Do(post)
	if err != nil {
		return nil, httpFailure(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := h.read(answer)
	if answer.StatusCode != http.StatusOK {
		return nil, h.status(answer, text)
	}
	if err != nil {
		return nil, err
	}
	if err := codec.UnmarshalJSON(text, response); err != nil {
		return nil, answered(ev.Kind, fmt.Errorf("%w; content type %q, it starts with %s",
			err, answer.Header.Get("Content-Type"), start(text)))
	}
	reply, err := codec.Reply(ev.Kind, response)
	return reply, answered(ev.Kind, err)
}

// read returns the body of an answer, or its start along with an error.
func (h *HTTP) read(answer *http.Response) ([]byte, error) {
	if answer.ContentLength > int64(h.max) {
		return nil, tooLarge(answer.ContentLength, h.max)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, int64(h.max)+1))
	switch {
	case err != nil:
		return body, fmt.Errorf("answer broke off after %d bytes: %w", len(body), err)
	case len(body) > h.max:
		return body, tooLarge(-1, h.max)
	}
	return body, nil
}

// status is the outcome of an answer whose status is not 200.
func (h *HTTP) status(answer *http.Response, body []byte) error {
	for _, t := range h.transforms {
		if t.Status == answer.StatusCode && t.Disconnect != nil {
			return t.Disconnect
		}
		if t.Status == answer.StatusCode {
			return t.Error
		}
	}
	var err error
	switch location := answer.Header.Get("Location"); {
	case location != "" && answer.StatusCode/100 == 3:
		err = fmt.Errorf("answered %s to %q; redirects are not followed, use the final address as endpoint", answer.Status, location)
	case len(body) == 0:
		err = fmt.Errorf(`answered %s without a body; want 200 and JSON like {"result":{}}`, answer.Status)
	default:
		err = fmt.Errorf("answered %s: %s; want 200", answer.Status, start(body))
	}
	switch answer.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return &unreachable{err: err}
	}
	return err
}

// httpFailure says in words why no answer came.
func httpFailure(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // the endpoint is named already
	}
	if reason, ok := dialing(err); ok {
		return &unreachable{fmt.Errorf("%s: %w", reason, err), true}
	}
	return err
}

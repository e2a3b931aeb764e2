package goridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// RemoteError is what the server says of a call that failed there.
type RemoteError struct {
	Method string
	Text   string
}

// Error returns the server's text.
func (e *RemoteError) Error() string { return e.Text }

// Client calls methods of a Server, one at a time. It is safe for concurrent
// use; calls wait for each other.
type Client struct {
	conn   net.Conn
	reader *Reader

	mu     sync.Mutex // held during a call
	seq    uint32
	broken error // the connection is out of step after this
}

// Dial connects to a Server at tcp://host:port or unix://path. maxPayload
// bounds the answers, in bytes.
func Dial(ctx context.Context, address string, maxPayload int) (*Client, error) {
	parsed, err := ParseAddress(address)
	if err != nil {
		return nil, err
	}
	conn, err := parsed.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("rpc server: %w", err)
	}
	return &Client{conn: conn, reader: NewReader(conn, maxPayload)}, nil
}

// Close ends the connection; a call that is out fails.
func (c *Client) Close() error { return c.conn.Close() }

// Call sends body in codec (JSON, Proto or Raw) to method and returns the
// answer's body. ctx should have a deadline. A *RemoteError is the server's
// answer; after any other error the Client is of no more use.
func (c *Client) Call(ctx context.Context, codec byte, method string, body []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, c.broken
	}
	answer, err := c.call(ctx, codec, method, body)
	var remote *RemoteError
	if err != nil && !errors.As(err, &remote) {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		err = fmt.Errorf("rpc call of %s: %w", method, err)
		c.broken = err
	}
	return answer, err
}

func (c *Client) call(ctx context.Context, codec byte, method string, body []byte) ([]byte, error) {
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.conn.SetDeadline(time.Unix(1, 0)) // fails reads and writes at once
		close(interrupted)
	})
	defer func() {
		if !stop() {
			<-interrupted
		}
	}()
	c.seq++
	frame := Append(nil, codec, 0, []uint32{c.seq, uint32(len(method))}, []byte(method), body)
	if _, err := c.conn.Write(frame); err != nil {
		return nil, err
	}
	var f Frame
	if err := c.reader.Read(&f); err != nil {
		return nil, err
	}
	if len(f.Options) != 2 || f.Options[0] != c.seq || int(f.Options[1]) != len(method) || len(f.Payload) < len(method) {
		return nil, fmt.Errorf("the answer's options are %d, want [%d %d]", f.Options, c.seq, len(method))
	}
	answer := f.Payload[len(method):]
	if f.Flags&Error != 0 {
		return nil, &RemoteError{Method: method, Text: string(answer)}
	}
	return answer, nil
}

package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/volute-io/volute/internal/goridge"
)

const (
	callTimeout  = 10 * time.Second
	resetTimeout = 5 * time.Minute // longer than any pool's own
)

// Control talks to a running server over its RPC address.
type Control struct {
	address string
	client  *goridge.Client
}

// Dial connects to the RPC address of a running server, tcp://host:port or
// unix://path.
func Dial(ctx context.Context, address string) (*Control, error) {
	if address == "" {
		return nil, errors.New("rpc.listen is empty: the server has no RPC address to ask; set it, or name one with --rpc")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client, err := goridge.Dial(ctx, address, maxRPC)
	if err != nil {
		return nil, fmt.Errorf("no server answers at %s: is it running? %w", address, err)
	}
	return &Control{address, client}, nil
}

// Close ends the connection.
func (c *Control) Close() error { return c.client.Close() }

func (c *Control) call(ctx context.Context, timeout time.Duration, method string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := c.client.Call(ctx, goridge.JSON, method, body)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return json.Unmarshal(answer, out)
}

// pools returns the names of all pools, unless some are named.
func (c *Control) pools(ctx context.Context, method string, named []string) ([]string, error) {
	if len(named) > 0 {
		return named, nil
	}
	var all []string
	err := c.call(ctx, callTimeout, method, true, &all)
	return all, err
}

// PrintWorkers writes a table of the worker processes of some pools, or of all.
func (c *Control) PrintWorkers(ctx context.Context, w io.Writer, pools ...string) error {
	pools, err := c.pools(ctx, "informer.List", pools)
	if err != nil {
		return err
	}
	for _, pool := range pools {
		looked, err := c.look(ctx, pool)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "Workers of [%s]:\n%s", pool, looked.table())
		if why := looked.stats.Trouble; why != "" {
			fmt.Fprintf(w, "Workers do not start: %s\n", why)
		}
	}
	return nil
}

// WatchWorkers writes the same again and again, with how busy each pool has been
// meanwhile, until ctx ends. It is meant for a terminal: it begins each time at its
// upper left corner.
func (c *Control) WatchWorkers(ctx context.Context, w io.Writer, every time.Duration, pools ...string) error {
	pools, err := c.pools(ctx, "informer.List", pools)
	if err != nil {
		return err
	}
	before := map[string]look{}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var page strings.Builder
		page.WriteString(home)
		for _, pool := range pools {
			now, err := c.look(ctx, pool)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(&page, "Workers of [%s]: %s%s\n%s", pool, now.since(before[pool]), clearLine,
				strings.ReplaceAll(now.table(), "\n", clearLine+"\n"))
			if why := now.stats.Trouble; why != "" {
				fmt.Fprintf(&page, "Workers do not start: %s%s\n", why, clearLine)
			}
			before[pool] = now
		}
		page.WriteString(clearBelow)
		if _, err := io.WriteString(w, page.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Stop asks the server to stop, and waits until it no longer answers, or ctx ends.
func (c *Control) Stop(ctx context.Context) error {
	var done bool
	if err := c.call(ctx, callTimeout, "rpc.Stop", true, &done); err != nil {
		return err
	}
	for {
		again, err := Dial(ctx, c.address)
		if err != nil {
			return ctx.Err()
		}
		_ = again.Close()
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server at %s was asked to stop and still runs: %w", c.address, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Reset replaces all worker processes of some pools, or of all, and says so.
func (c *Control) Reset(ctx context.Context, w io.Writer, pools ...string) error {
	pools, err := c.pools(ctx, "resetter.List", pools)
	if err != nil {
		return err
	}
	for _, pool := range pools {
		fmt.Fprintf(w, "resetting plugin: [%s]\n", pool)
		var done bool
		if err := c.call(ctx, resetTimeout, "resetter.Reset", pool, &done); err != nil {
			return err
		}
		fmt.Fprintf(w, "plugin reset: [%s]\n", pool)
	}
	return nil
}

package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
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
		var list struct {
			Workers []struct {
				PID     int     `json:"pid"`
				Jobs    int64   `json:"numExecs"`
				Created int64   `json:"created"` // Unix nanoseconds
				Memory  int64   `json:"memoryUsage"`
				CPU     float64 `json:"CPUPercent"`
				Status  string  `json:"statusStr"`
			} `json:"workers"`
		}
		if err := c.call(ctx, callTimeout, "informer.Workers", pool, &list); err != nil {
			return err
		}
		fmt.Fprintf(w, "Workers of [%s]:\n", pool)
		table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "PID\tSTATUS\tEXECS\tMEMORY\tCPU %\tCREATED\t")
		for _, p := range list.Workers {
			age := time.Since(time.Unix(0, p.Created)).Round(time.Second)
			fmt.Fprintf(table, "%d\t%s\t%d\t%.1f MB\t%.2f\t%s ago\t\n", p.PID, p.Status, p.Jobs, float64(p.Memory)/1e6, p.CPU, age)
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
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

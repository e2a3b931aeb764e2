package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"time"

	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/internal/goridge"

	"github.com/volute-io/volute"
)

// Generator is a fleet in a process of its own: each process may have 20,000
// sockets.
type Generator struct {
	cmd    *exec.Cmd
	client *rpc.Client
}

// Start starts a generator process: this program again, with the argument
// "generate".
func Start() (*Generator, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "generate")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("generator: %w", err)
	}
	return &Generator{cmd, rpc.NewClient(stream{out, in})}, nil
}

// Close ends the process, and with it its connections.
func (g *Generator) Close() {
	_ = g.client.Close()
	_ = g.cmd.Wait()
}

type stream struct {
	io.Reader
	io.WriteCloser
}

// Generate is the generator process.
func Generate() error {
	f, err := NewFleet()
	if err != nil {
		return err
	}
	s := rpc.NewServer()
	if err := s.Register(&Commands{f}); err != nil {
		return err
	}
	s.ServeConn(stream{os.Stdin, os.Stdout})
	return nil
}

// Commands is a Fleet as package rpc wants it.
type Commands struct{ fleet *Fleet }

// None is no argument or no result.
type None struct{}

// Connect is Fleet.Connect.
func (c *Commands) Connect(t Target, d *Dialed) (err error) {
	*d, err = c.fleet.Connect(t)
	return err
}

// Reconnect is Fleet.Reconnect.
func (c *Commands) Reconnect(address string, d *Dialed) (err error) {
	*d, err = c.fleet.Reconnect(address)
	return err
}

// Drop is Fleet.Drop.
func (c *Commands) Drop(None, *None) error {
	c.fleet.Drop()
	return nil
}

// Publish is Fleet.Publish.
func (c *Commands) Publish(what Publish, p *Published) (err error) {
	*p, err = c.fleet.Publish(what)
	return err
}

// Echo is Fleet.Echo.
func (c *Commands) Echo(what Echo, e *Echoed) (err error) {
	*e, err = c.fleet.Echo(what)
	return err
}

// Totals is Fleet.Totals.
func (c *Commands) Totals(_ None, counts *Counts) error {
	*counts = c.fleet.Totals()
	return nil
}

// Call is publications over one face of the API, one after the other.
type Call struct {
	Face    string // http, grpc or goridge
	Address string
	Count   int
	Rate    float64
}

// PublishBy publishes into the fleet's first channel over a face of the API.
func (c *Commands) PublishBy(what Call, out *Published) error {
	before := c.fleet.Totals().Delivered
	channel, data := c.fleet.Expect(what.Count)
	publish, err := what.dial()
	if err != nil {
		return err
	}
	var calls samples
	began := time.Now()
	for i, d := range data {
		if what.Rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(float64(i) / what.Rate * float64(time.Second)))))
		}
		at := time.Now()
		if err := publish(channel, d); err != nil {
			return fmt.Errorf("publish over %s: %w", what.Face, err)
		}
		calls.took(time.Since(at))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	readers := int64(len(c.fleet.clients))
	err = c.fleet.Await(ctx, before+readers*int64(what.Count))
	*out = Published{Published: int64(what.Count), Delivered: readers * int64(what.Count), Elapsed: time.Since(began), Calls: calls.times()}
	return err
}

func (what Call) dial() (func(channel string, data []byte) error, error) {
	ctx := context.Background()
	var client *app.Client
	var err error
	switch what.Face {
	case "http":
		client, err = app.NewHTTP("http://"+what.Address+"/api", "bench")
	case "grpc":
		client, err = app.DialGRPC(what.Address, "")
	case "goridge":
		rpc, err := goridge.Dial(ctx, "tcp://"+what.Address, 1<<20)
		return func(channel string, data []byte) error {
			_, err := rpc.Call(ctx, goridge.JSON, "centrifuge.Publish", fmt.Appendf(nil, `{"channel":"%s","data":%s}`, channel, data))
			return err
		}, err
	default:
		err = errors.New("no such face")
	}
	if err != nil {
		return nil, err
	}
	return func(channel string, data []byte) error {
		_, err := client.Publish(ctx, volute.PublishRequest{Channel: channel, Data: data})
		return err
	}, nil
}

// Do calls a command of the generator process.
func Do[Out, In any](g *Generator, command string, in In) (out Out, err error) {
	err = g.client.Call("Commands."+command, in, &out)
	return out, err
}

package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/internal/goridge"
	"google.golang.org/protobuf/proto"
)

// play makes the test binary an application's process: a worker, or a gRPC backend.
// It is told what to be by its environment.
func play(role string) error {
	a := app.New(app.Logger(slog.New(slog.NewTextHandler(os.Stderr, nil))))
	Troupe(a, os.Getenv("NOTES"))
	switch role {
	case "worker":
		return playWorker(a)
	case "grpc":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		l, err := net.Listen("tcp", os.Getenv("ADDRESS"))
		if err != nil {
			return err
		}
		fmt.Println("ready")
		return a.Serve(ctx, l)
	}
	return fmt.Errorf("unknown role %q", role)
}

// Troupe registers what the application of the tests does. What it is notified of,
// it writes to the UDP address notes.
func Troupe(a *app.App, notes string) {
	note := func(format string, args ...any) error {
		conn, err := net.Dial("udp", notes)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = fmt.Fprintf(conn, format, args...)
		return err
	}
	a.OnConnect(func(_ context.Context, ev volute.Event) (*volute.ConnectReply, error) {
		var in struct {
			User string
			Ms   int // how long it takes
		}
		_ = json.Unmarshal(ev.Data, &in)
		time.Sleep(time.Duration(in.Ms) * time.Millisecond)
		return &volute.ConnectReply{User: in.User, Meta: []byte(`{"tenant":7}`)}, nil
	})
	a.OnSubscribe("*", func(context.Context, volute.Event) (*volute.SubscribeReply, error) {
		return &volute.SubscribeReply{}, nil
	})
	a.OnPublish("*", func(context.Context, volute.Event) (*volute.PublishReply, error) { return &volute.PublishReply{}, nil })
	app.RPC(a, "echo", func(_ context.Context, in json.RawMessage) (json.RawMessage, error) { return in, nil })
	app.RPC(a, "pid", func(context.Context, any) (int, error) { return os.Getpid(), nil })
	app.RPC(a, "sleep", func(_ context.Context, ms int) (int, error) {
		time.Sleep(time.Duration(ms) * time.Millisecond)
		return ms, nil
	})
	app.RPC(a, "work", func(_ context.Context, in json.RawMessage) (json.RawMessage, error) {
		time.Sleep(rand.N(4 * time.Millisecond))
		return in, nil
	})
	app.RPC(a, "print", func(context.Context, any) (int, error) { return fmt.Println("PHP Warning: oops") })
	app.RPC(a, "exit", func(_ context.Context, status int) (int, error) {
		os.Exit(status)
		return 0, nil
	})
	app.RPC(a, "deaf", func(context.Context, any) (int, error) {
		deaf = true
		return 0, nil
	})
	app.RPC(a, "grow", func(_ context.Context, bytes int) (int, error) {
		fat = make([]byte, bytes)
		for i := 0; i < len(fat); i += os.Getpagesize() {
			fat[i] = 1 // else the system only promises the memory
		}
		return len(fat), nil
	})
	app.RPC(a, "fork", func(ctx context.Context, _ any) (int, error) {
		child := exec.Command("sleep", "600") // which nobody waits for
		err := child.Start()
		return os.Getpid(), err
	})
	a.OnDisconnected(func(_ context.Context, ev volute.Event) error {
		return note("%s disconnected %d %s", ev.User, ev.Code, ev.Meta)
	})
	a.OnUnsubscribed("*", func(_ context.Context, ev volute.Event) error {
		return note("%s unsubscribed %s %d", ev.User, ev.Channel, ev.Code)
	})
	a.OnChannelState(func(_ context.Context, ev volute.Event) error {
		var err error
		for _, s := range ev.States {
			err = errors.Join(err, note("%s %s", s.Channel, s.Type))
		}
		return err
	})
	a.OnCacheEmpty("*", func(_ context.Context, ev volute.Event) (*volute.NotifyReply, error) {
		return &volute.NotifyReply{}, note("%s empty", ev.Channel)
	})
}

// What a worker has made of itself.
var (
	deaf bool   // it does not hear when it is asked to stop
	fat  []byte // what it does not let go of
)

// playWorker answers events that come as frames, in both codecs.
func playWorker(a *app.App) error {
	in := goridge.NewReader(os.Stdin, 1<<24)
	for {
		var f goridge.Frame
		if err := in.Read(&f); err != nil {
			return nil
		}
		var out []byte
		switch {
		case f.Flags&goridge.Control != 0 && bytes.Contains(f.Payload, []byte("stop")) && deaf:
			select {}
		case f.Flags&goridge.Control != 0 && bytes.Contains(f.Payload, []byte("stop")):
			return nil
		case f.Flags&goridge.Control != 0:
			out = goridge.Append(nil, goridge.Control, 0, nil, fmt.Appendf(nil, `{"pid":%d}`, os.Getpid()))
		default:
			answer, err := handleFrame(a, f)
			flags, options := byte(0), []uint32{0}
			if err != nil {
				answer, flags, options = []byte(err.Error()), goridge.Error, nil
			}
			out = goridge.Append(nil, flags, 0, options, answer)
		}
		if _, err := os.Stdout.Write(out); err != nil {
			return nil
		}
	}
}

func handleFrame(a *app.App, f goridge.Frame) ([]byte, error) {
	head, body := f.Payload[:f.Options[0]], f.Payload[f.Options[0]:]
	var kind volute.Kind
	decode, encode := proto.Unmarshal, proto.Marshal
	if f.Flags&goridge.JSON != 0 {
		decode, encode = codec.UnmarshalJSON, codec.MarshalJSON
		var event struct{ Event string }
		if err := json.Unmarshal(body, &event); err != nil {
			return nil, err
		}
		for _, k := range volute.Kinds() {
			if k.String() == event.Event {
				kind = k
			}
		}
	} else {
		var context map[string][]string
		if err := json.Unmarshal(head, &context); err != nil {
			return nil, err
		}
		kind = codec.KindOfType(strings.Join(context["type"], ""))
	}
	request := codec.NewRequest(kind)
	if request == nil {
		return nil, fmt.Errorf("unknown event in %s %q", head, body)
	}
	if err := decode(body, request); err != nil {
		return nil, err
	}
	ev, err := codec.Event(kind, request)
	if err != nil {
		return nil, err
	}
	reply, err := a.Handle(context.Background(), ev)
	if response := codec.Response(kind, reply, err); response != nil {
		return encode(response)
	}
	return nil, err
}

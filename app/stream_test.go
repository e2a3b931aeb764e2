package app

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/volute-io/volute"
)

func subscribe(ctx context.Context, a *App, channel string, mode volute.StreamMode) (*volute.SubscribeReply, error) {
	reply, err := a.Handle(ctx, volute.Event{Kind: volute.KindSubscribe, Client: "c1", Channel: channel, Stream: mode})
	if err != nil {
		return nil, err
	}
	return reply.(*volute.SubscribeReply), nil
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		a := logs.app()
		type key struct{}
		a.Use(func(ctx context.Context, ev volute.Event, next volute.Backend) (volute.Reply, error) {
			return next.Handle(context.WithValue(ctx, key{}, "v"), ev)
		})
		a.OnStream("*", func(ctx context.Context, ev volute.Event, s *Stream) error {
			if ctx.Value(key{}) != "v" || EventFrom(ctx).Channel != ev.Channel {
				t.Error("the handler's ctx lacks what interceptors attached")
			}
			s.Accept(&volute.SubscribeReply{SubscribeOptions: volute.SubscribeOptions{ExpireAt: 7}})
			s.Accept(nil) // does not count
			for {
				data, err := s.Recv()
				if err != nil {
					return nil
				}
				if string(data) == "fail" {
					return errors.New("disk full")
				}
				if err := s.Publish(&volute.Publication{Data: data}); err != nil {
					return err
				}
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		reply, err := subscribe(ctx, a, "ch", volute.StreamBidirectional)
		if err != nil || reply.ExpireAt != 7 || reply.Stream == nil {
			t.Fatalf("%+v, %v", reply, err)
		}
		cancel() // the event is over, the stream lives
		for _, data := range []string{"a", "b"} {
			if err := reply.Stream.Send([]byte(data)); err != nil {
				t.Fatal(err)
			}
			if p, err := reply.Stream.Recv(); err != nil || string(p.Data) != data {
				t.Fatalf("%v, %v", p, err)
			}
		}
		if err := reply.Stream.Send([]byte("fail")); err != nil {
			t.Fatal(err)
		}
		if _, err := reply.Stream.Recv(); err == nil || err == io.EOF {
			t.Errorf("end %v", err)
		}
		if reply.Stream.Send(nil) == nil {
			t.Error("a stream that ended takes publications")
		}
		a.Wait()
		has(t, logs.String(), "disk full", "client=c1", "channel=ch", "stream handler", "TestStream")

		left, err := subscribe(t.Context(), a, "ch", volute.StreamBidirectional)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Second)
			_ = left.Stream.Close()
		}()
		if _, err := left.Stream.Recv(); err == nil {
			t.Error("Recv outlives Close")
		}
		a.Wait()
		if n := strings.Count(logs.String(), "level=ERROR"); n != 1 {
			t.Errorf("log:\n%s", logs.String())
		}
	})
}

func TestStreamEnds(t *testing.T) {
	for _, c := range []struct {
		name    string
		h       StreamHandler
		refused string // what the subscribe error says
		end     string // what Recv's error says
		logs    int
	}{
		{"never accepts", func(context.Context, volute.Event, *Stream) error { return nil }, "without accepting", "", 1},
		{"refuses", func(context.Context, volute.Event, *Stream) error { return volute.ErrPermissionDenied }, "103", "", 0},
		{"fails", func(context.Context, volute.Event, *Stream) error { return errors.New("disk full") }, "disk full", "", 1},
		{"panics", func(context.Context, volute.Event, *Stream) error { panic("oops") }, "panic: oops", "", 1},
		{"slow", func(ctx context.Context, _ volute.Event, _ *Stream) error { <-ctx.Done(); return nil }, "deadline exceeded", "", 1},
		{"ends", func(_ context.Context, _ volute.Event, s *Stream) error { s.Accept(nil); return nil }, "", "EOF", 0},
		{"fails later", func(_ context.Context, _ volute.Event, s *Stream) error {
			s.Accept(nil)
			return errors.New("disk full")
		}, "", "disk full", 1},
		{"tells later", func(_ context.Context, _ volute.Event, s *Stream) error { s.Accept(nil); return volute.ErrInternal }, "", "100", 1},
		{"panics later", func(_ context.Context, _ volute.Event, s *Stream) error { s.Accept(nil); panic("oops") }, "", "panic: oops", 1},
		{"receives in vain", func(_ context.Context, _ volute.Event, s *Stream) error {
			s.Accept(nil)
			_, err := s.Recv()
			return err
		}, "", "unidirectional", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logs journal
				a := logs.app()
				a.OnStream("*", c.h)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				reply, err := subscribe(ctx, a, "ch", volute.StreamUnidirectional)
				if c.refused != "" {
					if err == nil {
						t.Fatal("let in")
					}
					has(t, err.Error(), c.refused)
				} else {
					if err != nil {
						t.Fatal(err)
					}
					_, err := reply.Stream.Recv()
					has(t, err.Error(), c.end)
					if (err == io.EOF) != (c.end == "EOF") {
						t.Errorf("end %v", err)
					}
				}
				a.Wait()
				if n := strings.Count(logs.String(), "level="); n != c.logs {
					t.Errorf("%d log lines, want %d:\n%s", n, c.logs, logs.String())
				}
			})
		})
	}
}

func TestStreamFallsBackToSubscribe(t *testing.T) {
	a := New()
	a.OnStream("live:*", func(_ context.Context, _ volute.Event, s *Stream) error { s.Accept(nil); return nil })
	a.OnSubscribe("*", func(context.Context, volute.Event) (*volute.SubscribeReply, error) {
		return &volute.SubscribeReply{SubscribeOptions: volute.SubscribeOptions{ExpireAt: 7}}, nil
	})
	for _, c := range []struct {
		channel string
		mode    volute.StreamMode
		stream  bool
	}{
		{"live:1", volute.StreamUnidirectional, true},
		{"live:1", volute.StreamNone, false},
		{"other", volute.StreamUnidirectional, false},
	} {
		reply, err := subscribe(t.Context(), a, c.channel, c.mode)
		if err != nil || (reply.Stream != nil) != c.stream || (reply.ExpireAt == 7) == c.stream {
			t.Errorf("%+v: %+v, %v", c, reply, err)
		}
	}
	a.Wait()
}

package server

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

func TestPartsEndInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		named := func(name string) part {
			return part{name, func(ctx, _ context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second) // a stop takes its time; the next must wait
				ended = append(ended, name)
				return nil
			}}
		}
		ctx, cancel := context.WithCancel(t.Context())
		err := runParts(ctx, []part{named("pool"), named("node"), named("http")}, cancel, func() context.Context { return t.Context() })
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"http", "node", "pool"}; !reflect.DeepEqual(ended, want) {
			t.Errorf("ended %v, want %v", ended, want)
		}
	})
}

func TestPartFailureStopsTheOthers(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name   string
		answer error
		want   string
	}{
		{"an error", broken, "b: broken"},
		{"an early end", nil, "b: ended by itself"},
	} {
		t.Run(test.name, func(t *testing.T) {
			stopped := false
			parts := []part{
				{"a", func(ctx, _ context.Context) error { <-ctx.Done(); stopped = true; return nil }},
				{"b", func(context.Context, context.Context) error { return test.answer }},
			}
			err := runParts(t.Context(), parts, func() {}, func() context.Context { return t.Context() })
			if err == nil || err.Error() != test.want || !stopped {
				t.Errorf("got %v, stopped %v; want %s and a stop", err, stopped, test.want)
			}
		})
	}
}

func TestGraceDemandsTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		slow := part{"slow", func(_, grace context.Context) error { <-grace.Done(); return nil }}
		begin := time.Now()
		err := runParts(ctx, []part{slow}, cancel, func() context.Context {
			patience, end := context.WithTimeout(t.Context(), 3*time.Second)
			t.Cleanup(end)
			return patience
		})
		if err != nil || time.Since(begin) != 3*time.Second {
			t.Errorf("ended after %s with %v, want 3s and no error", time.Since(begin), err)
		}
	})
}

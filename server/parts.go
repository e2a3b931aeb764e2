package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// part is something of the server that runs. run returns when it has ended all
// that it started: the end of ctx asks for that, in the part's own good time;
// the end of grace demands it at once. A part that returns while neither has
// ended brings the server down.
type part struct {
	name string
	run  func(ctx, grace context.Context) error
}

// runParts starts the parts in order and, when ctx ends or one of them fails,
// ends them in reverse order, each before the next. started is called once all
// have been started, stopping once, before the first is ended, and returns the
// context that ends the patience with them.
func runParts(ctx context.Context, parts []part, started func(), stopping func() context.Context) error {
	type running struct {
		part
		end  context.CancelFunc
		done chan error
	}
	// The grace period begins with the stop, but parts get its context at their start.
	grace, demand := context.WithCancel(context.WithoutCancel(ctx))
	defer demand()

	var up []running
	failed := make(chan error, len(parts))
	for _, p := range parts {
		life, end := context.WithCancel(context.WithoutCancel(ctx))
		r := running{p, end, make(chan error, 1)}
		go func() {
			err := r.run(life, grace)
			if err != nil {
				err = fmt.Errorf("%s: %w", r.name, err)
			} else if life.Err() == nil {
				err = fmt.Errorf("%s: ended by itself", r.name)
			}
			if err != nil && life.Err() == nil {
				failed <- err
				err = nil
			}
			r.done <- err
		}()
		up = append(up, r)
	}
	started()

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	defer context.AfterFunc(stopping(), demand)()
	for _, r := range slices.Backward(up) {
		r.end()
		err = errors.Join(err, <-r.done)
	}
	return err
}

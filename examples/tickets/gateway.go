package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"
)

// Gateway is a bank that is not there. It takes its time and sometimes declines.
// Asked twice about one payment it says the same twice, as banks do that are
// given an idempotency key: so a payment can be asked about again after a crash.
type Gateway struct {
	Seed    uint64
	Decline float64 // share of payments by the card "fate" that are declined, 0 to 1
	Delay   time.Duration
}

// cards are what the page offers instead of a form for card numbers.
var cards = map[string]bool{"fate": true, "good": true, "bad": true}

// Charge asks for the money. A reason means it was declined, an error that nobody
// knows: ask again.
func (g Gateway) Charge(ctx context.Context, p Payment) (reason string, err error) {
	select {
	case <-time.After(g.Delay):
	case <-ctx.Done():
		return "", fmt.Errorf("payment %s: no answer from the bank: %w", p.ID, ctx.Err())
	}
	hash := fnv.New64a()
	fmt.Fprint(hash, g.Seed, p.ID)
	fate := float64(hash.Sum64()>>11) / (1 << 53)
	if p.Card == "bad" || p.Card == "fate" && fate < g.Decline {
		return "insufficient_funds", nil
	}
	return "", nil
}

const (
	atTheBank   = 8                // payments under way at once
	bankTimeout = 20 * time.Second // of one question
	bankPause   = 5 * time.Second  // before it is asked again
)

// Cashier takes pending payments to the bank and settles them. The database is
// its queue: what was pending when the process ended is asked about after the
// next start.
type Cashier struct {
	Store   *Store
	Gateway Gateway
	Tell    func(ctx context.Context, c *Change)
	Log     *slog.Logger
	Wake    <-chan struct{} // there may be a new payment
}

// Run works until ctx ends.
func (c *Cashier) Run(ctx context.Context) error {
	underWay := map[string]bool{}
	done := make(chan string)
	pause := time.NewTicker(bankPause)
	defer pause.Stop()
	for {
		pending, err := c.Store.Pending(ctx, 2*atTheBank)
		if err != nil && ctx.Err() == nil {
			c.Log.Error("pending payments", "error", err)
		}
		for _, p := range pending {
			if !underWay[p.ID] && len(underWay) < atTheBank {
				underWay[p.ID] = true
				go func() {
					c.settle(ctx, p)
					done <- p.ID
				}()
			}
		}
		select {
		case <-ctx.Done():
			for range underWay {
				<-done
			}
			return nil
		case id := <-done:
			delete(underWay, id)
		case <-c.Wake:
		case <-pause.C:
		}
	}
}

// settle takes one payment to the bank. Whatever fails is logged, and the payment
// stays pending.
func (c *Cashier) settle(ctx context.Context, p Payment) {
	asking, cancel := context.WithTimeout(ctx, bankTimeout)
	defer cancel()
	reason, err := c.Gateway.Charge(asking, p)
	if err != nil {
		if ctx.Err() == nil {
			c.Log.Warn("payment", "error", err)
		}
		return
	}
	status := paymentPaid
	if reason != "" {
		status = paymentDeclined
	}
	// The money has moved: this must be written down even if the process is ending.
	writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), bankTimeout)
	defer cancel()
	change, err := c.Store.Settle(writing, p, status, reason, time.Now())
	if err != nil {
		c.Log.Error("settle", "payment", p.ID, "error", err)
		return
	}
	if change != nil {
		c.Tell(writing, change)
	}
}

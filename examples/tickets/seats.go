package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxSeats is how many seats of a screening a user may hold at a time.
const maxSeats = 6

// The states of a seat.
const (
	stateFree   = "free"
	stateHeld   = "held"
	statePaying = "paying"
	stateSold   = "sold"
)

// Seat is the state of one seat.
type Seat struct {
	Seat  string `json:"seat"`
	State string `json:"state"`
	User  string `json:"user,omitempty"`  // who has it
	Until int64  `json:"until,omitempty"` // of a hold, Unix milliseconds
	Rev   int64  `json:"rev"`             // of the screening when it changed
}

// Change is what everybody who looks at a screening is told. Of two changes of a
// seat the one with the higher Rev counts, in whichever order they arrive.
type Change struct {
	Screening string   `json:"screening"`
	Rev       int64    `json:"rev"`
	Free      int      `json:"free"`
	Seats     []Seat   `json:"seats"`
	Now       int64    `json:"now"` // the server's clock, Unix milliseconds
	Notices   []letter `json:"-"`   // what single users are told about it
}

// letter is a notice on its way.
type letter struct {
	user string
	Notice
}

// change raises a screening's rev and runs do under the lock that this takes: of
// all transactions that change seats of one screening, one runs at a time.
func (s *Store) change(ctx context.Context, screening string, now time.Time, do func(tx *sql.Tx, c *Change) error) (*Change, error) {
	c := &Change{Screening: screening, Now: now.UnixMilli()}
	err := s.transact(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `UPDATE screenings SET rev = rev + 1 WHERE id = $1 RETURNING rev`, screening).Scan(&c.Rev)
		if errors.Is(err, sql.ErrNoRows) {
			return errNoScreening
		}
		if err != nil {
			return err
		}
		if err := do(tx, c); err != nil {
			return err
		}
		for _, n := range c.Notices {
			if err := n.store(ctx, tx); err != nil {
				return err
			}
		}
		return tx.QueryRowContext(ctx, `SELECT count(*) FROM seats WHERE screening_id = $1 AND state = 'free'`, screening).Scan(&c.Free)
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// set writes a seat's new state and adds it to the change.
func (c *Change) set(ctx context.Context, tx *sql.Tx, seat Seat, payment string) error {
	seat.Rev = c.Rev
	c.Seats = append(c.Seats, seat)
	_, err := tx.ExecContext(ctx, `UPDATE seats SET state = $1, user_id = $2, until = $3, payment_id = $4, rev = $5 WHERE screening_id = $6 AND seat = $7`,
		seat.State, seat.User, seat.Until, payment, seat.Rev, c.Screening, seat.Seat)
	return err
}

// tell adds a notice for a user.
func (c *Change) tell(user, kind string, data map[string]any) {
	data["screening"] = c.Screening
	c.Notices = append(c.Notices, letter{user, Notice{ID: rand.Text(), At: c.Now, Kind: kind, Data: data}})
}

func (n letter) store(ctx context.Context, tx *sql.Tx) error {
	data, err := json.Marshal(n.Data)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO notices (id, user_id, at, kind, data) VALUES ($1, $2, $3, $4, $5)`, n.ID, n.user, n.At, n.Kind, string(data))
	return err
}

const seatColumns = `seat, state, user_id, until, rev`

func (s *Seat) scan(rows *sql.Rows) error {
	return rows.Scan(&s.Seat, &s.State, &s.User, &s.Until, &s.Rev)
}

// seat reads one seat within a change.
func (c *Change) seat(ctx context.Context, tx *sql.Tx, name string) (Seat, error) {
	var one Seat
	err := tx.QueryRowContext(ctx, `SELECT `+seatColumns+` FROM seats WHERE screening_id = $1 AND seat = $2`, c.Screening, name).
		Scan(&one.Seat, &one.State, &one.User, &one.Until, &one.Rev)
	if errors.Is(err, sql.ErrNoRows) {
		return one, errNoSeat
	}
	return one, err
}

// Seats returns all seats of a screening.
func (s *Store) Seats(ctx context.Context, screening string) ([]Seat, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT `+seatColumns+` FROM seats WHERE screening_id = $1`, screening)
	return collect(rows, err, func(rows *sql.Rows, one *Seat) error { return one.scan(rows) })
}

// Hold keeps a free seat for a user for so long. Of all who try, one gets it.
// A seat that the user holds already is no change: the hold is not prolonged.
func (s *Store) Hold(ctx context.Context, user, screening, seat string, now time.Time, hold time.Duration) (*Change, error) {
	return s.change(ctx, screening, now, func(tx *sql.Tx, c *Change) error {
		one, err := c.seat(ctx, tx, seat)
		switch {
		case err != nil:
			return err
		case one.State == stateHeld && one.User == user:
			c.Seats = append(c.Seats, one)
			return nil
		case one.State != stateFree:
			return errTaken
		}
		var held int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM seats WHERE screening_id = $1 AND user_id = $2 AND state IN ('held', 'paying')`, screening, user).
			Scan(&held); err != nil {
			return err
		}
		if held >= maxSeats {
			return errTooMany
		}
		return c.set(ctx, tx, Seat{Seat: seat, State: stateHeld, User: user, Until: now.Add(hold).UnixMilli()}, "")
	})
}

// Release gives a seat that the user holds back.
func (s *Store) Release(ctx context.Context, user, screening, seat string, now time.Time) (*Change, error) {
	return s.change(ctx, screening, now, func(tx *sql.Tx, c *Change) error {
		one, err := c.seat(ctx, tx, seat)
		switch {
		case err != nil:
			return err
		case one.User != user:
			return errNotYours
		case one.State != stateHeld:
			return errBeingPaid
		}
		return c.set(ctx, tx, Seat{Seat: seat, State: stateFree}, "")
	})
}

// NextExpiry returns when the next hold runs out; false if there is none.
func (s *Store) NextExpiry(ctx context.Context) (time.Time, bool, error) {
	var until sql.NullInt64
	err := s.db.QueryRowContext(ctx, `SELECT min(until) FROM seats WHERE state = 'held'`).Scan(&until)
	return time.UnixMilli(until.Int64), until.Valid, err
}

// Expire frees the seats whose hold has run out, and tells who held them.
func (s *Store) Expire(ctx context.Context, now time.Time) ([]*Change, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT DISTINCT screening_id FROM seats WHERE state = 'held' AND until <= $1`, now.UnixMilli())
	screenings, err := collect(rows, err, func(rows *sql.Rows, id *string) error { return rows.Scan(id) })
	if err != nil {
		return nil, err
	}
	var changes []*Change
	for _, id := range screenings {
		c, err := s.change(ctx, id, now, func(tx *sql.Tx, c *Change) error {
			rows, err := tx.QueryContext(ctx, `SELECT `+seatColumns+` FROM seats WHERE screening_id = $1 AND state = 'held' AND until <= $2`, id, now.UnixMilli())
			over, err := collect(rows, err, func(rows *sql.Rows, one *Seat) error { return one.scan(rows) })
			if err != nil {
				return err
			}
			lost := map[string][]string{}
			for _, one := range over {
				lost[one.User] = append(lost[one.User], one.Seat)
				if err := c.set(ctx, tx, Seat{Seat: one.Seat, State: stateFree}, ""); err != nil {
					return err
				}
			}
			for user, seats := range lost {
				c.tell(user, "hold_over", map[string]any{"seats": seats})
			}
			return nil
		})
		if err != nil {
			return changes, err
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// Payment is a purchase, from the click to the bank's answer.
type Payment struct {
	ID        string   `json:"id"`
	User      string   `json:"-"`
	Screening string   `json:"screening"`
	Seats     []string `json:"seats"`
	Amount    int64    `json:"amount"` // cents
	Card      string   `json:"card"`
	Status    string   `json:"status"` // pending, paid or declined
	Reason    string   `json:"reason,omitempty"`
	At        int64    `json:"at"` // Unix milliseconds
}

// The states of a payment.
const (
	paymentPending  = "pending"
	paymentPaid     = "paid"
	paymentDeclined = "declined"
)

// Pay starts the payment of seats that the user holds. Until it is settled nobody
// else gets them, and they cannot be paid again.
func (s *Store) Pay(ctx context.Context, user, screening string, seats []string, card string, now time.Time) (Payment, *Change, error) {
	p := Payment{
		ID: rand.Text(), User: user, Screening: screening, Seats: slices.Sorted(slices.Values(seats)),
		Card: card, Status: paymentPending, At: now.UnixMilli(),
	}
	if len(seats) == 0 || len(slices.Compact(slices.Clone(p.Seats))) != len(seats) {
		return p, nil, errNothingToPay
	}
	if len(seats) > maxSeats {
		return p, nil, errTooMany
	}
	c, err := s.change(ctx, screening, now, func(tx *sql.Tx, c *Change) error {
		var price int64
		if err := tx.QueryRowContext(ctx, `SELECT price FROM screenings WHERE id = $1`, screening).Scan(&price); err != nil {
			return err
		}
		p.Amount = price * int64(len(seats))
		for _, name := range p.Seats {
			one, err := c.seat(ctx, tx, name)
			switch {
			case err != nil:
				return err
			case one.State == stateFree:
				return errHoldOver
			case one.User != user:
				return errNotYours
			case one.State != stateHeld:
				return errBeingPaid
			case one.Until <= now.UnixMilli():
				return errHoldOver // the sweeper is about to come
			}
			if err := c.set(ctx, tx, Seat{Seat: name, State: statePaying, User: user, Until: one.Until}, p.ID); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO payments (id, user_id, screening_id, seats, amount, card, status, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			p.ID, p.User, p.Screening, strings.Join(p.Seats, " "), p.Amount, p.Card, p.Status, p.At)
		return err
	})
	return p, c, err
}

// Settle ends a payment: paid, or declined for a reason. Seats of a declined one
// go back to the hold they had, which may be over. It returns no change if the
// payment was settled before.
func (s *Store) Settle(ctx context.Context, p Payment, status, reason string, now time.Time) (*Change, error) {
	settled := errors.New("settled")
	c, err := s.change(ctx, p.Screening, now, func(tx *sql.Tx, c *Change) error {
		pending, err := affects(tx.ExecContext(ctx, `UPDATE payments SET status = $1, reason = $2, settled_at = $3 WHERE id = $4 AND status = 'pending'`,
			status, reason, now.UnixMilli(), p.ID))
		if err != nil {
			return err
		}
		if !pending {
			return settled
		}
		for _, name := range p.Seats {
			one, err := c.seat(ctx, tx, name)
			if err != nil {
				return err
			}
			switch {
			case status == paymentPaid:
				one.State, one.Until = stateSold, 0
				if _, err = tx.ExecContext(ctx, `INSERT INTO tickets (screening_id, seat, code, user_id, payment_id) VALUES ($1, $2, $3, $4, $5)`,
					p.Screening, name, rand.Text()[:8], p.User, p.ID); err != nil {
					return fmt.Errorf("ticket for %s: %w", name, err)
				}
			case one.Until > now.UnixMilli():
				one.State = stateHeld
			default:
				one = Seat{Seat: name, State: stateFree}
			}
			if err := c.set(ctx, tx, one, p.ID); err != nil {
				return err
			}
		}
		c.tell(p.User, status, map[string]any{"payment": p.ID, "seats": p.Seats, "amount": p.Amount, "reason": reason})
		return nil
	})
	return c, ignore(err, settled)
}

const paymentColumns = `id, user_id, screening_id, seats, amount, card, status, reason, created_at`

func (p *Payment) scan(rows *sql.Rows) error {
	var seats string
	err := rows.Scan(&p.ID, &p.User, &p.Screening, &seats, &p.Amount, &p.Card, &p.Status, &p.Reason, &p.At)
	p.Seats = strings.Fields(seats)
	return err
}

// Pending returns the oldest payments that the bank has not answered.
func (s *Store) Pending(ctx context.Context, limit int) ([]Payment, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT `+paymentColumns+` FROM payments WHERE status = 'pending' ORDER BY created_at LIMIT $1`, limit)
	return collect(rows, err, func(rows *sql.Rows, p *Payment) error { return p.scan(rows) })
}

// Ticket is the right to a seat.
type Ticket struct {
	Code      string    `json:"code"`
	Seat      string    `json:"seat"`
	Screening Screening `json:"screening"`
}

// Account is what a user has: tickets, payments and notices, newest first.
type Account struct {
	Tickets  []Ticket  `json:"tickets"`
	Payments []Payment `json:"payments"`
	Notices  []Notice  `json:"notices"`
}

// accountLimit bounds each list of an Account.
const accountLimit = 50

// Account returns what a user has.
func (s *Store) Account(ctx context.Context, user string) (Account, error) {
	var a Account
	rows, err := s.db.QueryContext(ctx, `SELECT t.code, t.seat, `+screeningColumns+`
		FROM tickets t JOIN screenings s ON s.id = t.screening_id WHERE t.user_id = $1 ORDER BY s.starts_at DESC, t.seat LIMIT $2`, user, accountLimit)
	a.Tickets, err = collect(rows, err, func(rows *sql.Rows, t *Ticket) error {
		return rows.Scan(append([]any{&t.Code, &t.Seat}, t.Screening.fields()...)...)
	})
	if err != nil {
		return a, err
	}
	rows, err = s.db.QueryContext(ctx, `SELECT `+paymentColumns+` FROM payments WHERE user_id = $1 ORDER BY created_at DESC LIMIT $2`, user, accountLimit)
	a.Payments, err = collect(rows, err, func(rows *sql.Rows, p *Payment) error { return p.scan(rows) })
	if err != nil {
		return a, err
	}
	rows, err = s.db.QueryContext(ctx, `SELECT id, at, kind, data FROM notices WHERE user_id = $1 ORDER BY at DESC LIMIT $2`, user, accountLimit)
	a.Notices, err = collect(rows, err, func(rows *sql.Rows, n *Notice) error {
		var data []byte
		if err := rows.Scan(&n.ID, &n.At, &n.Kind, &data); err != nil {
			return err
		}
		return json.Unmarshal(data, &n.Data)
	})
	return a, err
}

package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// databases are what the store must work on.
var databases = map[string]func(t *testing.T) string{
	"SQLite":     func(t *testing.T) string { return filepath.Join(t.TempDir(), "tickets ü?.db") },
	"PostgreSQL": postgresDSN,
}

// noon is when tests of the store happen: everything of the day is to come.
var noon = time.Date(2031, 5, 17, 12, 0, 0, 0, time.UTC)

const (
	atStudio = "tidewater-20310517-1800" // 50 seats, rows A to E of 10
	preview  = "map-20310517-2045"
	twoMin   = 2 * time.Minute
)

// onBoth runs a test on a fresh store of each database.
func onBoth(t *testing.T, test func(t *testing.T, s *Store)) {
	for name, dsn := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, openAt(t, dsn(t)))
		})
	}
}

func openAt(t *testing.T, dsn string) *Store {
	t.Helper()
	s, err := OpenStore(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Schedule(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	return s
}

func person(t *testing.T, s *Store, name string) string {
	t.Helper()
	session, err := s.SignUp(t.Context(), name, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return session.User.ID
}

// buy takes seats for a user and pays them.
func buy(t *testing.T, s *Store, user, screening string, seats ...string) Payment {
	t.Helper()
	for _, seat := range seats {
		if _, err := s.Hold(t.Context(), user, screening, seat, noon, twoMin); err != nil {
			t.Fatal(err)
		}
	}
	p, _, err := s.Pay(t.Context(), user, screening, seats, "good", noon)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Settle(t.Context(), p, paymentPaid, "", noon); err != nil {
		t.Fatal(err)
	}
	return p
}

// states returns how many seats are in which state.
func states(t *testing.T, s *Store, screening string) map[string]int {
	t.Helper()
	seats, err := s.Seats(t.Context(), screening)
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, one := range seats {
		n[one.State]++
	}
	return n
}

func TestProgramme(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		if err := s.Schedule(t.Context(), noon); err != nil { // again: no harm
			t.Fatal(err)
		}
		movies, err := s.Programme(t.Context(), noon)
		if err != nil || len(movies) != 5 {
			t.Fatalf("%d movies, %v", len(movies), err)
		}
		var all []Screening
		for _, m := range movies {
			all = append(all, m.Screenings...)
		}
		if len(all) != 2*len(week) {
			t.Errorf("%d screenings, want %d", len(all), 2*len(week))
		}
		for _, one := range all {
			if one.Free != one.Rows*one.Columns {
				t.Errorf("%s: %d seats free of %d × %d", one.ID, one.Free, one.Rows, one.Columns)
			}
		}
		// What has begun is over.
		evening, err := s.Programme(t.Context(), noon.Add(7*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range evening {
			for _, one := range m.Screenings {
				if one.ID == atStudio {
					t.Errorf("%s is still on at 19:00", one.ID)
				}
			}
		}
		if _, err := s.Enter(t.Context(), person(t, s, "Ada"), atStudio, noon.Add(7*time.Hour)); err != errNoScreening {
			t.Errorf("enter at 19:00: %v", err)
		}
	})
}

func TestSessions(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx, hour := t.Context(), time.Now().Add(time.Hour)
		session, err := s.SignUp(ctx, "Ada 娜", hour)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Prolong(ctx, session.ID, hour); err != nil || got != session {
			t.Errorf("prolong: %+v, %v; want %+v", got, err, session)
		}
		for what, id := range map[string]string{"unknown": "nobody", "SQL": `' OR '1'='1`, "empty": ""} {
			if _, err := s.Prolong(ctx, id, hour); err != errSignedOut {
				t.Errorf("prolong %s: %v", what, err)
			}
		}
		if err := s.SignOut(ctx, session.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Prolong(ctx, session.ID, hour); err != errSignedOut {
			t.Errorf("prolong after sign-out: %v", err)
		}
		old, err := s.SignUp(ctx, "Bob", time.Now().Add(-time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Prolong(ctx, old.ID, hour); err != errSignedOut {
			t.Errorf("prolong one that has run out: %v", err)
		}
		key, err := s.SigningKey(ctx)
		if err != nil || len(key) < 32 {
			t.Fatalf("key %q, %v", key, err)
		}
		if again, _ := s.SigningKey(ctx); !slices.Equal(key, again) {
			t.Error("the signing key has changed")
		}
	})
}

// All that can be asked for and must be refused, and that a refusal changes nothing.
func TestRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		ada, bob := person(t, s, "Ada"), person(t, s, "Bob")
		for user, seat := range map[string]string{ada: "A1", bob: "B1"} {
			if _, err := s.Hold(ctx, user, atStudio, seat, noon, twoMin); err != nil {
				t.Fatal(err)
			}
		}
		buy(t, s, ada, atStudio, "A2")
		paying := func() error {
			if _, err := s.Hold(ctx, ada, atStudio, "A3", noon, twoMin); err != nil {
				return err
			}
			_, _, err := s.Pay(ctx, ada, atStudio, []string{"A3"}, "good", noon)
			return err
		}
		if err := paying(); err != nil {
			t.Fatal(err)
		}
		before := states(t, s, atStudio)

		injection := `A4'); DROP TABLE seats; --`
		hold := func(user, screening, seat string) error {
			_, err := s.Hold(ctx, user, screening, seat, noon, twoMin)
			return err
		}
		release := func(user, seat string) error {
			_, err := s.Release(ctx, user, atStudio, seat, noon)
			return err
		}
		pay := func(user string, now time.Time, seats ...string) error {
			_, _, err := s.Pay(ctx, user, atStudio, seats, "good", now)
			return err
		}
		for _, test := range []struct {
			what      string
			got, want error
		}{
			{"hold a held seat", hold(bob, atStudio, "A1"), errTaken},
			{"hold a sold seat", hold(bob, atStudio, "A2"), errTaken},
			{"hold an own sold seat", hold(ada, atStudio, "A2"), errTaken},
			{"hold a seat being paid", hold(bob, atStudio, "A3"), errTaken},
			{"hold a seat of another hall", hold(bob, atStudio, "H12"), errNoSeat},
			{"hold nothing", hold(bob, atStudio, ""), errNoSeat},
			{"hold SQL", hold(bob, atStudio, injection), errNoSeat},
			{"hold a long name", hold(bob, atStudio, strings.Repeat("A", 100_000)), errNoSeat},
			{"hold in no screening", hold(bob, "nowhere", "A1"), errNoScreening},
			{"hold in SQL", hold(bob, `x' OR '1'='1`, "A1"), errNoScreening},
			{"release a free seat", release(bob, "C1"), errNotYours},
			{"release a foreign seat", release(bob, "A1"), errNotYours},
			{"release a seat that is paid", release(ada, "A2"), errBeingPaid},
			{"release a seat being paid", release(ada, "A3"), errBeingPaid},
			{"release SQL", release(ada, injection), errNoSeat},
			{"pay nothing", pay(ada, noon), errNothingToPay},
			{"pay one seat twice", pay(ada, noon, "A1", "A1"), errNothingToPay},
			{"pay again", pay(ada, noon, "A2"), errBeingPaid},
			{"pay while paying", pay(ada, noon, "A3"), errBeingPaid},
			{"pay a foreign seat", pay(ada, noon, "B1"), errNotYours},
			{"pay an own and a foreign seat", pay(ada, noon, "A1", "B1"), errNotYours},
			{"pay a free seat", pay(ada, noon, "C1"), errHoldOver},
			{"pay after the hold", pay(ada, noon.Add(twoMin), "A1"), errHoldOver},
			{"pay SQL", pay(ada, noon, injection), errNoSeat},
			{"pay too many", pay(ada, noon, "A1", "C1", "C2", "C3", "C4", "C5", "C6"), errTooMany},
		} {
			if !errors.Is(test.got, test.want) {
				t.Errorf("%s: %v, want %v", test.what, test.got, test.want)
			}
		}
		if after := states(t, s, atStudio); !equal(before, after) {
			t.Errorf("refusals have changed seats: %v, were %v", after, before)
		}
		if p, err := s.Pending(ctx, 10); err != nil || len(p) != 1 {
			t.Errorf("%d payments are pending, want 1 (%v)", len(p), err)
		}
	})
}

func equal(a, b map[string]int) bool {
	for k := range b {
		if a[k] != b[k] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestHolds(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		ada := person(t, s, "Ada")
		first, err := s.Hold(ctx, ada, atStudio, "A1", noon, twoMin)
		if err != nil {
			t.Fatal(err)
		}
		if first.Free != 49 || len(first.Seats) != 1 || first.Seats[0].Until != noon.Add(twoMin).UnixMilli() || first.Seats[0].Rev != first.Rev {
			t.Errorf("hold: %+v", first)
		}
		again, err := s.Hold(ctx, ada, atStudio, "A1", noon.Add(time.Minute), twoMin)
		if err != nil || again.Seats[0].Until != first.Seats[0].Until {
			t.Errorf("held again: %+v, %v; want the same deadline", again, err)
		}
		for _, seat := range []string{"A2", "A3", "A4", "A5", "A6"} {
			if _, err := s.Hold(ctx, ada, atStudio, seat, noon.Add(time.Minute), twoMin); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Hold(ctx, ada, atStudio, "A7", noon, twoMin); err != errTooMany {
			t.Errorf("a seventh seat: %v", err)
		}
		if c, err := s.Release(ctx, ada, atStudio, "A6", noon); err != nil || c.Free != 45 || c.Seats[0].State != stateFree {
			t.Errorf("release: %+v, %v", c, err)
		}

		if next, any, err := s.NextExpiry(ctx); err != nil || !any || !next.Equal(noon.Add(twoMin)) {
			t.Errorf("next expiry %v, %v, %v", next, any, err)
		}
		if changes, err := s.Expire(ctx, noon.Add(twoMin-time.Millisecond)); err != nil || len(changes) != 0 {
			t.Errorf("too early: %+v, %v", changes, err)
		}
		changes, err := s.Expire(ctx, noon.Add(twoMin))
		if err != nil || len(changes) != 1 || changes[0].Free != 46 || len(changes[0].Notices) != 1 || changes[0].Notices[0].user != ada {
			t.Fatalf("expired: %+v, %v", changes, err)
		}
		if _, err := s.Expire(ctx, noon.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if n := states(t, s, atStudio); n[stateFree] != 50 {
			t.Errorf("after all holds: %v", n)
		}
		a, err := s.Account(ctx, ada)
		if err != nil || len(a.Notices) != 2 || a.Notices[0].Kind != "hold_over" || len(a.Notices[0].Data["seats"].([]any)) != 4 {
			t.Errorf("notices: %+v, %v", a.Notices, err)
		}
	})
}

func TestPayments(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		ada := person(t, s, "Ada")
		if _, err := s.Enter(ctx, ada, preview, noon); err != errMembersOnly {
			t.Errorf("a preview without a ticket: %v", err)
		}
		hold := func(seat string) {
			t.Helper()
			if _, err := s.Hold(ctx, ada, atStudio, seat, noon, twoMin); err != nil {
				t.Fatal(err)
			}
		}
		start := func(seats ...string) Payment {
			t.Helper()
			p, c, err := s.Pay(ctx, ada, atStudio, seats, "fate", noon)
			if err != nil || c.Seats[0].State != statePaying || p.Amount != int64(len(seats))*1100 {
				t.Fatalf("pay: %+v, %+v, %v", p, c, err)
			}
			return p
		}
		end := func(p Payment, status string, now time.Time) *Change {
			t.Helper()
			c, err := s.Settle(ctx, p, status, "", now)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		hold("A1")
		hold("A2")

		// Declined: the hold is what it was, and can be paid again.
		declined := start("A1", "A2")
		if changes, err := s.Expire(ctx, noon.Add(time.Hour)); err != nil || len(changes) != 0 {
			t.Errorf("seats at the bank were freed: %+v, %v", changes, err)
		}
		c := end(declined, paymentDeclined, noon)
		if len(c.Seats) != 2 || c.Seats[0].State != stateHeld || c.Seats[0].Until != noon.Add(twoMin).UnixMilli() || c.Notices[0].Kind != "declined" {
			t.Errorf("declined: %+v", c)
		}

		// Paid: once, however often the bank says so.
		paid := start("A1")
		c = end(paid, paymentPaid, noon)
		if c.Seats[0].State != stateSold || c.Seats[0].User != ada || c.Notices[0].Kind != "paid" {
			t.Errorf("paid: %+v", c)
		}
		if c := end(paid, paymentPaid, noon); c != nil {
			t.Errorf("paid again: %+v", c)
		}
		if c := end(paid, paymentDeclined, noon); c != nil {
			t.Errorf("declined after it was paid: %+v", c)
		}

		// Declined after the hold ran out: the seat is free.
		late := start("A2")
		if c := end(late, paymentDeclined, noon.Add(time.Hour)); c.Seats[0].State != stateFree || c.Seats[0].User != "" {
			t.Errorf("declined late: %+v", c)
		}

		a, err := s.Account(ctx, ada)
		if err != nil || len(a.Tickets) != 1 || a.Tickets[0].Seat != "A1" || a.Tickets[0].Screening.ID != atStudio || len(a.Tickets[0].Code) != 8 {
			t.Errorf("tickets: %+v, %v", a.Tickets, err)
		}
		var ends []string
		for _, p := range a.Payments {
			ends = append(ends, p.Status)
		}
		slices.Sort(ends)
		if !slices.Equal(ends, []string{"declined", "declined", "paid"}) {
			t.Errorf("payments: %v", ends)
		}
		if _, err := s.Enter(ctx, ada, preview, noon); err != nil {
			t.Errorf("a preview with a ticket: %v", err)
		}
	})
}

// 200 people want 50 seats, all at once, and pay for what they get.
func TestNoSeatIsSoldTwice(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		seats, err := s.Seats(ctx, atStudio)
		if err != nil || len(seats) != 50 {
			t.Fatalf("%d seats, %v", len(seats), err)
		}
		people := make([]string, 200)
		for i := range people {
			people[i] = person(t, s, "guest")
		}
		var crowd sync.WaitGroup
		for i, user := range people {
			crowd.Go(func() {
				for k := range 8 { // overlapping wishes
					seat := seats[(i+k*7)%50].Seat
					if _, err := s.Hold(ctx, user, atStudio, seat, noon, twoMin); errors.Is(err, errTaken) {
						continue
					} else if err != nil {
						t.Errorf("hold: %v", err)
						return
					}
					p, _, err := s.Pay(ctx, user, atStudio, []string{seat}, "good", noon)
					if err != nil {
						t.Errorf("pay: %v", err)
						return
					}
					var bank sync.WaitGroup
					for range 2 { // the bank says it twice
						bank.Go(func() {
							if _, err := s.Settle(ctx, p, paymentPaid, "", noon); err != nil {
								t.Errorf("settle: %v", err)
							}
						})
					}
					bank.Wait()
				}
			})
		}
		crowd.Wait()

		if n := states(t, s, atStudio); n[stateSold] != 50 {
			t.Errorf("seats: %v, want 50 sold", n)
		}
		var tickets, places, paid int
		count := func(query string, into *int) {
			if err := s.db.QueryRowContext(ctx, query).Scan(into); err != nil {
				t.Fatal(err)
			}
		}
		count(`SELECT count(*) FROM tickets`, &tickets)
		count(`SELECT count(*) FROM (SELECT DISTINCT screening_id, seat FROM tickets) AS t`, &places)
		count(`SELECT count(*) FROM payments WHERE status = 'paid'`, &paid)
		if tickets != 50 || places != 50 || paid != 50 {
			t.Errorf("%d tickets for %d seats, %d payments; want 50 each", tickets, places, paid)
		}
		// The last word is the database's.
		_, err = s.db.ExecContext(ctx, `INSERT INTO tickets (screening_id, seat, code, user_id, payment_id) SELECT screening_id, seat, 'again', user_id, payment_id FROM tickets LIMIT 1`)
		if err == nil {
			t.Error("the database lets a seat be sold twice")
		}
	})
}

// What was there before a restart, and only that, is there after it.
func TestReopen(t *testing.T) {
	for name, dsn := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := dsn(t)
			s := openAt(t, at)
			ada := person(t, s, "Ada")
			buy(t, s, ada, atStudio, "A1")
			if _, err := s.Hold(t.Context(), ada, atStudio, "A2", noon, twoMin); err != nil {
				t.Fatal(err)
			}
			again := openAt(t, at)
			if n := states(t, again, atStudio); n[stateSold] != 1 || n[stateHeld] != 1 || n[stateFree] != 48 {
				t.Errorf("after a restart: %v", n)
			}
		})
	}
}

func TestTwoProcessesMigrateAtOnce(t *testing.T) {
	for name, dsn := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := dsn(t)
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() {
					s, err := OpenStore(t.Context(), at)
					if err != nil {
						t.Error(err)
						return
					}
					defer s.Close()
					if err := s.Schedule(t.Context(), noon); err != nil {
						t.Error(err)
					}
				})
			}
			both.Wait()
		})
	}
}

func TestOpenFails(t *testing.T) {
	for what, dsn := range map[string]string{
		"a folder that is not there": filepath.Join(t.TempDir(), "nowhere", "x.db"),
		"no such server":             "postgres://x@/x?host=" + t.TempDir(),
	} {
		if s, err := OpenStore(t.Context(), dsn); err == nil {
			s.Close()
			t.Errorf("%s: opened", what)
		} else if !strings.Contains(err.Error(), dsn) {
			t.Errorf("%s: the error does not name it: %v", what, err)
		}
	}
}

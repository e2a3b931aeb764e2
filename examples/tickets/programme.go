package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Movie is a film with its coming screenings.
type Movie struct {
	ID         string      `json:"id"`
	Minutes    int         `json:"minutes"`
	Title      Text        `json:"title"`
	Tagline    Text        `json:"tagline"`
	Screenings []Screening `json:"screenings"`
}

// Text is a text in both languages of the page.
type Text struct {
	EN string `json:"en"`
	ZH string `json:"zh"`
}

// Screening is one showing of a movie in one hall.
type Screening struct {
	ID          string `json:"id"`
	Movie       string `json:"movie"`
	Hall        string `json:"hall"`
	Rows        int    `json:"rows"`
	Columns     int    `json:"columns"`
	StartsAt    int64  `json:"startsAt"` // Unix milliseconds
	Price       int64  `json:"price"`    // of one seat, in cents
	MembersOnly bool   `json:"membersOnly,omitempty"`
	Rev         int64  `json:"rev"` // counts changes of seats
	Free        int    `json:"free"`
}

// hall is a room of the house; every hall has a price.
type hall struct {
	name          string
	rows, columns int
	price         int64
}

var (
	grand  = hall{"Grand", 8, 12, 1400}
	studio = hall{"Studio", 5, 10, 1100}
	loft   = hall{"Loft", 6, 8, 1200}
)

// week is what is shown every day: which movie, where and when.
var week = []struct {
	movie        string
	hall         hall
	hour, minute int
	membersOnly  bool
}{
	{"spiral", grand, 17, 30, false},
	{"spiral", studio, 23, 15, false},
	{"tidewater", studio, 18, 0, false},
	{"tidewater", loft, 23, 30, false},
	{"paper", loft, 17, 45, false},
	{"paper", grand, 23, 45, false},
	{"north", studio, 20, 30, false},
	{"map", loft, 20, 45, true},
}

// Schedule sees to it that there is a programme for today and tomorrow.
func (s *Store) Schedule(ctx context.Context, now time.Time) error {
	year, month, day := now.Date()
	return s.transact(ctx, func(tx *sql.Tx) error {
		for days := range 2 {
			for _, show := range week {
				at := time.Date(year, month, day+days, show.hour, show.minute, 0, 0, now.Location())
				if err := schedule(ctx, tx, Screening{
					ID: show.movie + at.Format("-20060102-1504"), Movie: show.movie, Hall: show.hall.name,
					Rows: show.hall.rows, Columns: show.hall.columns, StartsAt: at.UnixMilli(), Price: show.hall.price,
					MembersOnly: show.membersOnly,
				}); err != nil {
					return fmt.Errorf("schedule %s: %w", show.movie, err)
				}
			}
		}
		return nil
	})
}

// schedule adds a screening and its seats unless it is there.
func schedule(ctx context.Context, tx *sql.Tx, s Screening) error {
	news, err := affects(tx.ExecContext(ctx, `
		INSERT INTO screenings (id, movie_id, hall, seat_rows, seat_columns, starts_at, price, members_only)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING`,
		s.ID, s.Movie, s.Hall, s.Rows, s.Columns, s.StartsAt, s.Price, s.MembersOnly))
	if err != nil || !news {
		return err
	}
	values := make([]string, 0, s.Rows*s.Columns)
	for row := range s.Rows {
		for column := range s.Columns {
			values = append(values, fmt.Sprintf("($1, '%c%d')", 'A'+row, column+1))
		}
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO seats (screening_id, seat) VALUES `+strings.Join(values, ", "), s.ID)
	return err
}

const screeningColumns = `s.id, s.movie_id, s.hall, s.seat_rows, s.seat_columns, s.starts_at, s.price, s.members_only, s.rev,
	(SELECT count(*) FROM seats f WHERE f.screening_id = s.id AND f.state = 'free')`

func (s *Screening) fields() []any {
	return []any{&s.ID, &s.Movie, &s.Hall, &s.Rows, &s.Columns, &s.StartsAt, &s.Price, &s.MembersOnly, &s.Rev, &s.Free}
}

// Programme returns all movies, each with the screenings that have not begun.
func (s *Store) Programme(ctx context.Context, now time.Time) ([]Movie, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, minutes, title, title_zh, tagline, tagline_zh FROM movies ORDER BY place`)
	movies, err := collect(rows, err, func(rows *sql.Rows, m *Movie) error {
		return rows.Scan(&m.ID, &m.Minutes, &m.Title.EN, &m.Title.ZH, &m.Tagline.EN, &m.Tagline.ZH)
	})
	if err != nil {
		return nil, err
	}
	rows, err = s.db.QueryContext(ctx, `SELECT `+screeningColumns+` FROM screenings s WHERE s.starts_at > $1 ORDER BY s.starts_at, s.id`, now.UnixMilli())
	screenings, err := collect(rows, err, func(rows *sql.Rows, one *Screening) error { return rows.Scan(one.fields()...) })
	if err != nil {
		return nil, err
	}
	for i := range movies {
		m := &movies[i]
		m.Screenings = []Screening{}
		for _, one := range screenings {
			if one.Movie == m.ID {
				m.Screenings = append(m.Screenings, one)
			}
		}
	}
	return movies, nil
}

// Enter returns a screening if the user may see it: it has not begun, and club
// previews are for those who hold a ticket.
func (s *Store) Enter(ctx context.Context, user, id string, now time.Time) (Screening, error) {
	var one Screening
	err := s.db.QueryRowContext(ctx, `SELECT `+screeningColumns+` FROM screenings s WHERE s.id = $1 AND s.starts_at > $2`, id, now.UnixMilli()).Scan(one.fields()...)
	if errors.Is(err, sql.ErrNoRows) {
		return one, errNoScreening
	}
	if err != nil || !one.MembersOnly {
		return one, err
	}
	member, err := s.Member(ctx, user)
	if err == nil && !member {
		err = errMembersOnly
	}
	return one, err
}

// Member reports whether a user holds a ticket of this house.
func (s *Store) Member(ctx context.Context, user string) (bool, error) {
	var n int
	err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM tickets WHERE user_id = $1`, user).Scan(&n)
	return n > 0, err
}

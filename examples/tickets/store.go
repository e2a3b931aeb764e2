package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store keeps everything that must survive a restart: people, screenings, who
// has which seat, payments. Its methods are safe for concurrent use; every
// statement is understood by SQLite and by PostgreSQL.
type Store struct {
	db *sql.DB
}

// OpenStore opens the database and brings its tables up to date. dsn is
// postgres://…, or the name of an SQLite file, which is made if it is not there.
func OpenStore(ctx context.Context, dsn string) (*Store, error) {
	driver, source := "sqlite", dsn
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		driver = "pgx"
	} else {
		source = "file:" + (&url.URL{Path: dsn}).EscapedPath() +
			"?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=foreign_keys(1)"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", dsn, err)
	}
	db.SetMaxOpenConns(8)
	if driver == "sqlite" {
		// SQLite has one writer at a time: queueing here is fairer, and faster, than
		// waiting for its lock.
		db.SetMaxOpenConns(1)
	}
	s := &Store{db}
	if err := s.migrate(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("database %s: %w", dsn, err)
	}
	return s, nil
}

// Close releases the database.
func (s *Store) Close() error { return s.db.Close() }

// migrate runs the migrations that the database has not seen, in order, each
// in a transaction of its own. Of two processes that start at once, one runs
// each of them and the other waits for it.
func (s *Store) migrate(ctx context.Context) error {
	const table = `CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY)`
	_, err := s.db.ExecContext(ctx, table)
	if err != nil { // PostgreSQL fails if another process makes it at this moment: then it is there
		_, err = s.db.ExecContext(ctx, table)
	}
	if err != nil {
		return err
	}
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		script, err := migrations.ReadFile(name)
		if err != nil {
			return err
		}
		err = s.transact(ctx, func(tx *sql.Tx) error {
			news, err := affects(tx.ExecContext(ctx, `INSERT INTO migrations (name) VALUES ($1) ON CONFLICT (name) DO NOTHING`, name))
			if err != nil || !news {
				return err
			}
			_, err = tx.ExecContext(ctx, string(script))
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// transact runs do in a transaction, which is undone if do fails.
func (s *Store) transact(ctx context.Context, do func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		if undo := ignore(tx.Rollback(), sql.ErrTxDone); undo != nil {
			return errors.Join(err, undo)
		}
		return err
	}
	return tx.Commit()
}

// ignore drops one error that is none.
func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}

// affects reports whether a statement changed any row.
func affects(r sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// collect reads all rows of a query, each with scan.
func collect[T any](rows *sql.Rows, err error, scan func(rows *sql.Rows, into *T) error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []T{} // not nil: in JSON it is a list, too
	for rows.Next() {
		var item T
		if err := scan(rows, &item); err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	return list, rows.Err()
}

// SigningKey returns the key that sessions are signed with. It is made once and
// kept, so that everybody is still who they were after a restart.
func (s *Store) SigningKey(ctx context.Context) ([]byte, error) {
	_, err := s.db.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ('signing_key', $1) ON CONFLICT (name) DO NOTHING`, rand.Text()+rand.Text())
	if err != nil {
		return nil, err
	}
	var key string
	err = s.db.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = 'signing_key'`).Scan(&key)
	return []byte(key), err
}

// User is somebody who uses the application.
type User struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Session is one sign-in of a user, on one browser.
type Session struct {
	ID string
	User
}

// SignUp makes a user and a session for it.
func (s *Store) SignUp(ctx context.Context, name string, expires time.Time) (Session, error) {
	session := Session{rand.Text(), User{rand.Text(), name}}
	return session, s.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO users (id, name, created_at) VALUES ($1, $2, $3)`,
			session.User.ID, name, time.Now().UnixMilli()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO sessions (id, user_id, expires_at) VALUES ($1, $2, $3)`,
			session.ID, session.User.ID, expires.UnixMilli())
		return err
	})
}

// Prolong returns a session that has not ended, and lets it last until expires.
// One that is not there, or over, is errSignedOut.
func (s *Store) Prolong(ctx context.Context, id string, expires time.Time) (Session, error) {
	session := Session{ID: id}
	err := s.transact(ctx, func(tx *sql.Tx) error {
		found, err := affects(tx.ExecContext(ctx, `UPDATE sessions SET expires_at = $1 WHERE id = $2 AND expires_at > $3`,
			expires.UnixMilli(), id, time.Now().UnixMilli()))
		if err != nil {
			return err
		}
		if !found {
			return errSignedOut
		}
		return tx.QueryRowContext(ctx, `SELECT u.id, u.name FROM users u JOIN sessions s ON s.user_id = u.id WHERE s.id = $1`, id).
			Scan(&session.User.ID, &session.Name)
	})
	return session, err
}

// SignOut ends a session.
func (s *Store) SignOut(ctx context.Context, id string) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM sessions WHERE id = $1`, id)
	return err
}

// Notice is something that a user was told.
type Notice struct {
	ID   string         `json:"id"`
	At   int64          `json:"at"` // Unix milliseconds
	Kind string         `json:"kind"`
	Data map[string]any `json:"data"`
}

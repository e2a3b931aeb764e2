-- One dialect for SQLite and PostgreSQL: text keys, times as Unix milliseconds,
-- money in cents.

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE users (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id),
    expires_at BIGINT NOT NULL
);

CREATE TABLE movies (
    id         TEXT PRIMARY KEY,
    place      INTEGER NOT NULL,
    minutes    INTEGER NOT NULL,
    title      TEXT NOT NULL,
    tagline    TEXT NOT NULL,
    title_zh   TEXT NOT NULL,
    tagline_zh TEXT NOT NULL
);

-- rev counts the changes of a screening's seats. Whoever changes seats raises it
-- first, in the same transaction: that is the lock under which seats change hands.
CREATE TABLE screenings (
    id           TEXT PRIMARY KEY,
    movie_id     TEXT NOT NULL REFERENCES movies (id),
    hall         TEXT NOT NULL,
    seat_rows    INTEGER NOT NULL,
    seat_columns INTEGER NOT NULL,
    starts_at    BIGINT NOT NULL,
    price        BIGINT NOT NULL,
    members_only BOOLEAN NOT NULL,
    rev          BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX screenings_by_time ON screenings (starts_at);

-- state: free, held (by user_id, until the deadline), paying (payment_id is at the
-- bank; the deadline counts again if it is declined) or sold.
CREATE TABLE seats (
    screening_id TEXT NOT NULL REFERENCES screenings (id),
    seat         TEXT NOT NULL,
    state        TEXT NOT NULL DEFAULT 'free',
    user_id      TEXT NOT NULL DEFAULT '',
    payment_id   TEXT NOT NULL DEFAULT '',
    until        BIGINT NOT NULL DEFAULT 0,
    rev          BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (screening_id, seat)
);
CREATE INDEX seats_by_deadline ON seats (until) WHERE state = 'held';

-- status: pending, paid or declined (reason says why).
CREATE TABLE payments (
    id           TEXT PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users (id),
    screening_id TEXT NOT NULL REFERENCES screenings (id),
    seats        TEXT NOT NULL,
    amount       BIGINT NOT NULL,
    card         TEXT NOT NULL,
    status       TEXT NOT NULL,
    reason       TEXT NOT NULL DEFAULT '',
    created_at   BIGINT NOT NULL,
    settled_at   BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX payments_by_user ON payments (user_id);
CREATE INDEX payments_pending ON payments (created_at) WHERE status = 'pending';

-- The primary key is the last word on selling a seat twice.
CREATE TABLE tickets (
    screening_id TEXT NOT NULL,
    seat         TEXT NOT NULL,
    code         TEXT NOT NULL UNIQUE,
    user_id      TEXT NOT NULL REFERENCES users (id),
    payment_id   TEXT NOT NULL REFERENCES payments (id),
    PRIMARY KEY (screening_id, seat),
    FOREIGN KEY (screening_id, seat) REFERENCES seats (screening_id, seat)
);
CREATE INDEX tickets_by_user ON tickets (user_id);

CREATE TABLE notices (
    id      TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    at      BIGINT NOT NULL,
    kind    TEXT NOT NULL,
    data    TEXT NOT NULL
);
CREATE INDEX notices_by_user ON notices (user_id, at);

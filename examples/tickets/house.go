package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/app"
)

const (
	sessionLife = 30 * 24 * time.Hour // of a sign-in nobody uses
	maxName     = 30                  // letters
	maxLine     = 280                 // letters
	tellTimeout = 5 * time.Second
)

// house is the application: what clients may do, and what they are told.
//
//	connect    who are you? a new name, or a session of before; the user's own channel comes along
//	subscribe  may you look at this screening, and talk about it?
//	publish    is that a line that others should read?
//	rpc        programme, seats, hold, release, pay, account, sign_out
//	refresh    does your session still last?
type house struct {
	store  *Store
	signer signer
	hold   time.Duration // how long a seat is kept for somebody who does not pay
	lease  time.Duration // how long a connection lasts before it is asked about again
	log    *slog.Logger
	app    *app.App

	newHold, newPayment chan struct{} // wake sweeper and cashier
}

func newHouse(store *Store, key []byte, hold, lease time.Duration, log *slog.Logger) *house {
	h := &house{
		store: store, signer: key, hold: hold, lease: lease, log: log, app: app.New(app.Logger(log)),
		newHold: make(chan struct{}, 1), newPayment: make(chan struct{}, 1),
	}
	h.app.OnConnect(h.connect)
	h.app.OnRefresh(h.refresh)
	for _, public := range []string{"programme", "backstage"} {
		h.app.OnSubscribe(public, welcome, app.NonBlocking)
	}
	h.app.OnSubscribe("screening:*", h.look)
	h.app.OnSubscribe("chat:*", h.look)
	h.app.OnPublish("chat:*", judge, app.NonBlocking)

	app.RPC(h.app, "programme", h.programme)
	app.RPC(h.app, "seats", h.seats)
	app.RPC(h.app, "hold", h.take)
	app.RPC(h.app, "release", h.release)
	app.RPC(h.app, "pay", h.pay)
	app.RPC(h.app, "account", h.account)
	app.RPC(h.app, "sign_out", h.signOut)
	return h
}

// credentials are what a client sends with its connect command: a name the first
// time, the session it was given ever after.
type credentials struct {
	Name    string `json:"name,omitempty"`
	Session string `json:"session,omitempty"`
}

// meta stays with a connection, on the server.
type meta struct {
	Session string `json:"session"`
}

// connect lets people in and subscribes them to their own channel. A session was
// checked by authenticate.
func (h *house) connect(ctx context.Context, ev volute.Event) (*volute.ConnectReply, error) {
	session, ok := ctx.Value(sessionKey{}).(Session)
	if !ok {
		var said credentials
		if err := json.Unmarshal(ev.Data, &said); err != nil {
			return nil, errBadName
		}
		name, ok := clean(said.Name, maxName)
		if !ok || name == "" {
			return nil, errBadName
		}
		var err error
		if session, err = h.store.SignUp(ctx, name, time.Now().Add(sessionLife)); err != nil {
			return nil, err
		}
	}
	return &volute.ConnectReply{
		User:     session.User.ID,
		ExpireAt: time.Now().Add(h.lease).Unix(),
		Info:     encode(map[string]string{"name": session.Name}),
		Meta:     encode(meta{session.ID}),
		Data: encode(map[string]any{
			"session": h.signer.sign(session.ID), "user": session.User,
			"now": time.Now().UnixMilli(), "hold": h.hold.Milliseconds(), "maxSeats": maxSeats,
		}),
		Subs: map[string]volute.SubscribeOptions{"user:" + session.User.ID: {}},
	}, nil
}

// refresh prolongs a connection for as long as its session lasts.
func (h *house) refresh(ctx context.Context, ev volute.Event) (*volute.RefreshReply, error) {
	_, err := h.store.Prolong(ctx, sessionOf(ev), time.Now().Add(sessionLife))
	if err == errSignedOut {
		return &volute.RefreshReply{Expired: true}, nil
	}
	if err != nil {
		return nil, err
	}
	return &volute.RefreshReply{ExpireAt: time.Now().Add(h.lease).Unix()}, nil
}

func sessionOf(ev volute.Event) string {
	var m meta
	if json.Unmarshal(ev.Meta, &m) != nil {
		return ""
	}
	return m.Session
}

func welcome(context.Context, volute.Event) (*volute.SubscribeReply, error) {
	return &volute.SubscribeReply{}, nil
}

// look decides who may see a screening's seats and read its chat.
func (h *house) look(ctx context.Context, ev volute.Event) (*volute.SubscribeReply, error) {
	_, screening, _ := strings.Cut(ev.Channel, ":")
	if _, err := h.store.Enter(ctx, ev.User, screening, time.Now()); err != nil {
		return nil, err
	}
	return &volute.SubscribeReply{}, nil
}

// judge reads a line before others do. Markup is text like any other: whoever
// shows it must show it as text.
func judge(_ context.Context, ev volute.Event) (*volute.PublishReply, error) {
	var line struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(ev.Data, &line) != nil {
		return nil, errLineEmpty
	}
	text, ok := clean(line.Text, maxLine)
	switch {
	case !ok:
		return nil, errLineTooLong
	case text == "":
		return nil, errLineEmpty
	}
	return &volute.PublishReply{Data: encode(map[string]any{"text": text, "at": time.Now().UnixMilli()})}, nil
}

// clean makes one line of a text: white space becomes a blank, what cannot be
// seen goes. It reports false if more letters are left than allowed.
func clean(text string, letters int) (string, bool) {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsSpace(r) && !unicode.IsGraphic(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	return text, utf8.RuneCountInString(text) <= letters
}

// place is what calls about seats name.
type place struct {
	Screening string `json:"screening"`
	Seat      string `json:"seat"`
}

func (h *house) programme(ctx context.Context, _ struct{}) ([]Movie, error) {
	return h.store.Programme(ctx, time.Now())
}

// hallView is what a page needs to draw a screening.
type hallView struct {
	Screening Screening `json:"screening"`
	Seats     []Seat    `json:"seats"`
	Now       int64     `json:"now"`
}

// seats returns a screening as it is now. A page asks after it has subscribed:
// what changes from then on reaches it, and the higher rev of a seat counts.
func (h *house) seats(ctx context.Context, in place) (hallView, error) {
	one, err := h.store.Enter(ctx, app.EventFrom(ctx).User, in.Screening, time.Now())
	if err != nil {
		return hallView{}, err
	}
	seats, err := h.store.Seats(ctx, in.Screening)
	return hallView{one, seats, time.Now().UnixMilli()}, err
}

func (h *house) take(ctx context.Context, in place) (*Change, error) {
	user, now := app.EventFrom(ctx).User, time.Now()
	if _, err := h.store.Enter(ctx, user, in.Screening, now); err != nil {
		return nil, err
	}
	c, err := h.store.Hold(ctx, user, in.Screening, in.Seat, now, h.hold)
	if err != nil {
		return nil, err
	}
	h.tell(ctx, c)
	wake(h.newHold)
	return c, nil
}

func (h *house) release(ctx context.Context, in place) (*Change, error) {
	c, err := h.store.Release(ctx, app.EventFrom(ctx).User, in.Screening, in.Seat, time.Now())
	if err != nil {
		return nil, err
	}
	h.tell(ctx, c)
	return c, nil
}

// purchase is the argument of pay.
type purchase struct {
	Screening string   `json:"screening"`
	Seats     []string `json:"seats"`
	Card      string   `json:"card"`
}

// pay starts a payment. How it ends, the user hears on their own channel.
func (h *house) pay(ctx context.Context, in purchase) (Payment, error) {
	if !cards[in.Card] {
		return Payment{}, errNoCard
	}
	user, now := app.EventFrom(ctx).User, time.Now()
	if _, err := h.store.Enter(ctx, user, in.Screening, now); err != nil {
		return Payment{}, err
	}
	p, c, err := h.store.Pay(ctx, user, in.Screening, in.Seats, in.Card, now)
	if err != nil {
		return Payment{}, err
	}
	h.tell(ctx, c)
	wake(h.newPayment)
	return p, nil
}

func (h *house) account(ctx context.Context, _ struct{}) (Account, error) {
	return h.store.Account(ctx, app.EventFrom(ctx).User)
}

// signOut ends the session. Its connections end with it, those of other tabs
// when they are to be refreshed.
func (h *house) signOut(ctx context.Context, _ struct{}) (struct{}, error) {
	return struct{}{}, h.store.SignOut(ctx, sessionOf(app.EventFrom(ctx)))
}

// tell publishes a change to those who look at the screening or the programme,
// and its notices to whom they concern. The change has happened, so it is told
// even if the client that caused it has gone meanwhile.
func (h *house) tell(ctx context.Context, c *Change) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTimeout)
	defer cancel()
	api := h.app.API()
	send := func(channel string, v any) {
		if err := publish(ctx, api, channel, v); err != nil {
			h.log.Error("not told", "error", err)
		}
	}
	send("screening:"+c.Screening, c)
	send("programme", map[string]any{"screening": c.Screening, "rev": c.Rev, "free": c.Free})
	for _, n := range c.Notices {
		send("user:"+n.user, n.Notice)
	}
}

// wake makes a channel's reader look again, if it is not about to anyway.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// encode is json.Marshal for values that have a JSON form by their type.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

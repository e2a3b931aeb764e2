// Command tickets is a cinema: movies and screenings, seats that are held for two
// minutes and paid with a bank that sometimes declines, a line of chat. Real-time
// server, application and page are this one program; the data is in SQLite, or
// in PostgreSQL.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/server"
)

// settings are the command line.
type settings struct {
	listen  string
	db      string
	hold    time.Duration
	lease   time.Duration
	gateway Gateway
	php     string
	verbose bool
}

func parse(args []string, stderr io.Writer) (settings, error) {
	s := settings{}
	f := flag.NewFlagSet("tickets", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&s.listen, "listen", "127.0.0.1:8000", "`address` of the page and of its clients' connections")
	f.StringVar(&s.db, "db", "tickets.db", "SQLite `file`, or postgres://user@host/database")
	f.DurationVar(&s.hold, "hold", 2*time.Minute, "how long a seat is kept for somebody who does not pay")
	f.DurationVar(&s.lease, "lease", 10*time.Minute, "how long a connection lasts before it must be refreshed")
	f.Float64Var(&s.gateway.Decline, "decline", 0.25, "share of payments that the bank declines")
	f.Uint64Var(&s.gateway.Seed, "seed", 1, "what decides which ones")
	f.DurationVar(&s.gateway.Delay, "bank", 1500*time.Millisecond, "how long the bank takes")
	f.StringVar(&s.php, "php", "", "PHP `script` that judges chat lines, instead of Go")
	f.BoolVar(&s.verbose, "v", false, "log every event")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q; see -help", f.Arg(0))
	}
	if s.hold < time.Millisecond || s.lease < 2*time.Second {
		return s, errors.New("-hold and -lease: give at least 1ms and 2s")
	}
	return s, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, s, os.Stderr, nil)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tickets:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. ready, if any, is told where the page is.
func run(ctx context.Context, s settings, stderr *os.File, ready func(address string)) (err error) {
	cfg, err := configuration(s)
	if err != nil {
		return err
	}
	log, closeLog, err := server.NewLogger(&cfg, stderr)
	if err != nil {
		return err
	}
	defer closeLog()

	store, err := OpenStore(ctx, s.db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Schedule(ctx, time.Now()); err != nil {
		return err
	}
	key, err := store.SigningKey(ctx)
	if err != nil {
		return err
	}
	h := newHouse(store, key, s.hold, s.lease, log)
	backstage := NewBackstage(nil, log)
	if s.php != "" {
		backstage.Backends = map[volute.Kind]string{volute.KindPublish: "PHP"}
	}
	srv, err := server.New(cfg, server.App(h.app), server.Intercept(backstage.Observe, h.authenticate),
		server.Handle("/", page()), server.Logger(log), server.Development())
	if err != nil {
		return err
	}

	// The others work as long as the server does: it ends last, and they with it.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var others sync.WaitGroup
	for _, work := range []func(context.Context) error{
		(&Sweeper{store, h.tell, log, h.newHold}).Run,
		(&Cashier{store, s.gateway, h.tell, log, h.newPayment}).Run,
		func(ctx context.Context) error { return backstage.Run(ctx, srv.API()) },
		func(ctx context.Context) error {
			select {
			case <-srv.Ready():
				address := srv.Addr("http").String()
				greet(stderr, address, s)
				if ready != nil {
					ready(address)
				}
			case <-ctx.Done():
			}
			return nil
		},
	} {
		others.Go(func() {
			if err := work(working); err != nil {
				log.Error("stopped working", "error", err)
			}
		})
	}
	err = srv.Run(ctx)
	stop()
	others.Wait()
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w: does the example run already? -listen 127.0.0.1:8001 takes another port", err)
	}
	return err
}

// configuration is what a volute.yaml would say.
func configuration(s settings) (server.Config, error) {
	cfg := server.Default()
	host, port, err := net.SplitHostPort(s.listen)
	if err != nil {
		return cfg, fmt.Errorf("-listen %s: %w; write host:port", s.listen, err)
	}
	if cfg.HTTPServer.Port, err = strconv.Atoi(port); err != nil {
		return cfg, fmt.Errorf("-listen %s: %q is not a port", s.listen, port)
	}
	cfg.HTTPServer.Address = host
	cfg.Client.AllowedOrigins = []string{"http://127.0.0.1:*", "http://localhost:*"}
	cfg.Shutdown.Timeout = 5 * time.Second
	cfg.WebSocket.MessageSizeLimit = 256 << 10 // a line that is too long is told so, up to here
	cfg.HTTPStream.Enabled, cfg.SSE.Enabled = true, true
	if s.verbose {
		cfg.Log.Level = "debug"
	}

	// Every event goes to this program's services …
	client, channel := &cfg.Client.Proxy, &cfg.Channel.Proxy
	client.Connect.Enabled, client.Refresh.Enabled, cfg.RPC.WithoutNamespace.ProxyEnabled = true, true, true
	for _, endpoints := range []*[]string{&client.Connect.Endpoints, &client.Refresh.Endpoints, &channel.Subscribe.Endpoints, &channel.Publish.Endpoints, &cfg.RPC.Proxy.Endpoints} {
		*endpoints = []string{"app://"}
	}
	for _, timeout := range []*time.Duration{&client.Connect.Timeout, &client.Refresh.Timeout, &channel.Subscribe.Timeout, &channel.Publish.Timeout, &cfg.RPC.Proxy.Timeout} {
		*timeout = 5 * time.Second
	}
	client.Connect.HTTPHeaders = []string{"X-Real-IP"} // set by the reverse proxy
	if s.php != "" {
		// … or one of them to a pool of PHP processes.
		channel.Publish.Endpoints = []string{"worker://php"}
		cfg.ApplicationEnabled = true
		cfg.Workers = []server.Worker{{
			Name: "php", Command: []string{"php", s.php}, Codec: "json", Relay: "pipes", NumWorkers: 2,
			AllocateTimeout: 5 * time.Second, DestroyTimeout: 5 * time.Second, ResetTimeout: 5 * time.Second,
		}}
	}

	judges := server.ChannelOptions{SubscribeProxyEnabled: true}
	cfg.Channel.WithoutNamespace = judges
	lasting := judges // what a page missed while it was away is sent when it is back
	lasting.HistorySize, lasting.HistoryTTL, lasting.ForceRecovery = 200, 10*time.Minute, true
	screening, chat, own := lasting, lasting, lasting
	screening.Presence, screening.AllowPresenceForSubscriber = true, true
	screening.JoinLeave, screening.ForcePushJoinLeave = true, true
	chat.PublishProxyEnabled = true
	own.SubscribeProxyEnabled = false // by connect only
	cfg.Channel.Namespaces = []server.Namespace{
		{Name: "screening", ChannelOptions: screening}, {Name: "chat", ChannelOptions: chat}, {Name: "user", ChannelOptions: own},
	}
	return cfg, nil
}

// greet says what to do next.
func greet(w io.Writer, address string, s settings) {
	fmt.Fprintf(w, `
  The cinema is open:  http://%s

  Open it in two windows and sign in under two names. Take a seat in one: it is taken
  in the other. Let a hold run out. Pay: the bank declines now and then. Then stop
  this program with Ctrl-C and start it again, and watch the windows come back.

`, address)
	if s.php == "" {
		fmt.Fprint(w, "  The same with chat lines judged by a pool of PHP processes:\n\n"+
			"    make run RUN='-php examples/tickets/php/judge.php'\n\n")
	} else {
		fmt.Fprintf(w, "  Chat lines are judged by %s; the page shows it under “Backstage”.\n\n", s.php)
	}
}

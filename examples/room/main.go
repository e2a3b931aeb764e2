// Command room is a small demo: a page with a chat room, who is in it, a value
// that the server changes every second, and a call that a Go function answers.
// Server, application and page are this one program.
package main

import (
	"context"
	"embed"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"path"
	"syscall"
	"time"

	"github.com/volute-io/volute/server"
)

// The page. `make web` puts its script, with the official SDK in it, into dist.
//
//go:embed web/index.html web/room.css all:web/dist
var files embed.FS

func main() {
	port := flag.Int("port", 8000, "port of the page")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *port); err != nil {
		fmt.Fprintln(os.Stderr, "room:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, port int) error {
	cfg := configuration(port)
	log, closeLog, err := server.NewLogger(&cfg, os.Stderr)
	if err != nil {
		return err
	}
	defer closeLog()

	r := &room{}
	s, err := server.New(cfg, server.App(r.app(log)), server.Handle("/", http.HandlerFunc(serveFile)),
		server.Logger(log), server.Development())
	if err != nil {
		return err
	}
	pulse := make(chan struct{})
	go func() {
		defer close(pulse)
		select {
		case <-s.Ready():
			fmt.Fprintf(os.Stderr, "\n  The room is open: http://%s\n\n", s.Addr("http"))
			r.pulse(ctx, s.API(), log)
		case <-ctx.Done():
		}
	}()
	err = s.Run(ctx)
	<-pulse
	return err
}

// configuration is what a volute.yaml would say.
func configuration(port int) server.Config {
	cfg := server.Default()
	cfg.HTTPServer.Address, cfg.HTTPServer.Port = "127.0.0.1", port
	cfg.Client.AllowedOrigins = []string{"http://127.0.0.1:*", "http://localhost:*"}
	cfg.Channel.WithoutNamespace.AllowSubscribeForClient = true
	cfg.Channel.Namespaces = []server.Namespace{{
		Name: "room",
		ChannelOptions: server.ChannelOptions{
			AllowSubscribeForClient: true,
			Presence:                true, AllowPresenceForSubscriber: true,
			JoinLeave: true, ForcePushJoinLeave: true,
			HistorySize: 50, HistoryTTL: time.Hour, ForceRecovery: true,
		},
	}}
	cfg.Shutdown.Timeout = 5 * time.Second
	return cfg
}

// serveFile serves the page from the program itself.
func serveFile(w http.ResponseWriter, r *http.Request) {
	name := path.Base(path.Clean(r.URL.Path))
	switch name {
	case "/":
		name = "web/index.html"
	case "room.js":
		name = "web/dist/room.js"
	default:
		name = "web/" + name
	}
	if _, err := fs.Stat(files, name); err != nil {
		http.NotFound(w, r)
		return
	}
	http.ServeFileFS(w, r, files, name)
}

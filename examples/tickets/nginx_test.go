package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/volute-io/volute/server"
)

const nginxExample = "../nginx/nginx.conf"

// nginx is a real nginx with the example's configuration, in front of a cinema.
type nginx struct {
	t       *testing.T
	address string
	config  string
	cmd     *exec.Cmd
}

// startNginx starts it with other ports and paths, and with more replacements.
func startNginx(t *testing.T, behind string, replace ...string) *nginx {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx" // not in everybody's PATH
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n := &nginx{t: t, address: l.Addr().String(), config: filepath.Join(dir, "nginx.conf")}
	text, err := os.ReadFile(nginxExample)
	if err != nil {
		t.Fatal(err)
	}
	replace = append(replace, "worker_rlimit_nofile 65536;", "", "listen 8080", "listen "+n.address, "127.0.0.1:8000", behind, "/tmp/volute-nginx", filepath.Join(dir, "n"))
	for i := 0; i < len(replace); i += 2 {
		if !bytes.Contains(text, []byte(replace[i])) {
			t.Fatalf("%s does not contain %q any more", nginxExample, replace[i])
		}
	}
	config := strings.NewReplacer(replace...).Replace(string(text))
	if err := os.WriteFile(n.config, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	l.Close()
	n.cmd = exec.Command(path, "-c", n.config, "-g", "daemon off;")
	n.cmd.Stderr = os.Stderr
	if err := n.cmd.Start(); err != nil {
		t.Fatalf("nginx: %v (scripts/install-deps.sh installs it)", err)
	}
	t.Cleanup(func() {
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
		_ = n.cmd.Wait()
	})
	n.answers()
	return n
}

// answers waits until nginx serves the page.
func (n *nginx) answers() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.address+"/", nil)
		if err != nil {
			n.t.Fatal(err)
		}
		if reply, err := http.DefaultClient.Do(r); err == nil {
			reply.Body.Close()
			if reply.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-ctx.Done():
			n.t.Fatal("nginx does not answer")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (n *nginx) reload() {
	n.t.Helper()
	if out, err := exec.Command(n.cmd.Path, "-c", n.config, "-s", "reload").CombinedOutput(); err != nil {
		n.t.Fatalf("nginx -s reload: %v\n%s", err, out)
	}
}

func TestNginxExample(t *testing.T) {
	text, err := os.ReadFile(nginxExample)
	if err != nil {
		t.Fatal(err)
	}
	cfg := server.Default()
	for _, key := range []string{"proxy_read_timeout", "proxy_send_timeout"} {
		m := regexp.MustCompile(key + ` (\S+);`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("%s is not set", key)
		}
		timeout, err := time.ParseDuration(string(m[1]))
		if silence := cfg.Client.PingInterval + cfg.Client.PongTimeout; err != nil || timeout <= silence {
			t.Errorf("%s is %s; between two pings it is silent for %v", key, m[1], silence)
		}
	}
	if strings.Count(string(text), "listen 8000") != 0 {
		t.Error("nginx listens on the port that it proxies to")
	}
}

// Every transport goes through nginx, also while it reloads, and the application
// learns where its clients are.
func TestThroughNginx(t *testing.T) {
	c := open(t, nil)
	n := startNginx(t, c.address)
	var windows []*window
	for _, transport := range []string{"websocket", "http_stream", "sse"} {
		w := newWindow(t, transport)
		w.enter("http://"+n.address+"/?transport="+transport, transport)
		w.until(`document.body.dataset.transport === '` + transport + `'`)
		w.watch("tidewater")
		w.run(`window.lost = 0; new MutationObserver(() => { window.lost += document.body.dataset.state === 'lost' }).observe(document.body, { attributes: true })`)
		windows = append(windows, w)
	}
	everybodySees := func(i int, seat string) {
		t.Helper()
		windows[i].click("#seat-" + seat)
		for k, w := range windows {
			if k == i {
				w.seat(seat, "mine")
			} else {
				w.seat(seat, "held")
			}
		}
	}
	for i := range windows {
		everybodySees(i, fmt.Sprintf("A%d", i+1))
	}
	n.reload()
	for i := range windows {
		everybodySees(i, fmt.Sprintf("B%d", i+1))
	}
	for _, w := range windows {
		var lost int
		w.must(w.evaluate(`window.lost`, &lost))
		if lost != 0 {
			t.Errorf("%s: the reload has cost the connection", w.name)
		}
	}

	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}}
	g := talk(t, ws.Dialer{NetDial: from.DialContext}, n.address)
	if r := g.call(object{"connect": object{"data": object{"name": "Far"}}}); r.Error != nil {
		t.Fatalf("connect: %+v", r.Error)
	}
	log, err := os.ReadFile(c.log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "127.0.0.7") {
		t.Error("the application was not told the client's address")
	}
}

// When an old worker of nginx has waited long enough, clients come back through a
// new one and have missed nothing.
func TestNginxEndsConnections(t *testing.T) {
	c := open(t, nil)
	n := startNginx(t, c.address, "worker_shutdown_timeout 10m", "worker_shutdown_timeout 500ms")
	ada, bob := newWindow(t, "Ada"), newWindow(t, "Bob")
	ada.enter("http://"+n.address+"/", "Ada")
	bob.enter("http://"+c.address+"/", "Bob")
	ada.watch("tidewater")
	bob.watch("tidewater")
	n.reload()
	ada.until(`document.body.dataset.state === 'lost'`)
	bob.click("#seat-D5")
	ada.sees(".banner", "Back after")
	ada.seat("D5", "held")
}

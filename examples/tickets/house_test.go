package main

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// An evening: one reserves, the other sees it, both talk, one pays.
func TestEvening(t *testing.T) {
	for name, dsn := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, func(s *settings) { s.db = dsn(t) })
			ada, bob := sign(t, c.address, "Ada"), sign(t, c.address, " Bob\t 二 ")
			screening, members := tonight(ada, "Studio")
			for _, g := range []*guest{ada, bob} {
				for _, channel := range []string{"programme", "backstage", "screening:" + screening, "chat:" + screening} {
					if code := g.join(channel); code != 0 {
						t.Fatalf("subscribe to %s: %d", channel, code)
					}
				}
				if code := g.join("screening:" + members); code != 441 {
					t.Errorf("a preview without a ticket: %d", code)
				}
			}
			var view hallView
			bob.must("seats", place{Screening: screening}, &view)
			if len(view.Seats) != 50 || view.Screening.Free != 50 {
				t.Errorf("%d seats, %d free", len(view.Seats), view.Screening.Free)
			}

			ada.must("hold", place{screening, "C4"}, nil)
			ada.must("hold", place{screening, "C5"}, nil)
			ada.must("release", place{screening, "C5"}, nil)
			change := hear(bob, "screening:"+screening, about("C4", stateHeld))
			if change.Seats[0].User != ada.user || change.Seats[0].Until-change.Now != twoMin.Milliseconds() {
				t.Errorf("bob sees %+v", change)
			}
			hear(bob, "screening:"+screening, about("C5", stateFree))
			if code := bob.do("hold", place{screening, "C4"}, nil); code != 443 {
				t.Errorf("bob holds Ada's seat: %d", code)
			}

			// The bank declines one card, not the other; the outcome is Ada's alone.
			own := func(n Notice) bool { return true }
			ada.must("pay", purchase{screening, []string{"C4"}, "bad"}, nil)
			if n := hear(ada, "user:"+ada.user, own); n.Kind != "declined" || n.Data["reason"] != "insufficient_funds" {
				t.Errorf("with a bad card: %+v", n)
			}
			hear(bob, "screening:"+screening, about("C4", statePaying))
			hear(bob, "screening:"+screening, about("C4", stateHeld))
			ada.must("pay", purchase{screening, []string{"C4"}, "good"}, nil)
			if n := hear(ada, "user:"+ada.user, own); n.Kind != "paid" {
				t.Errorf("with a good card: %+v", n)
			}
			hear(bob, "screening:"+screening, about("C4", stateSold))
			var account Account
			ada.must("account", nil, &account)
			if len(account.Tickets) != 1 || len(account.Payments) != 2 || len(account.Notices) != 2 {
				t.Errorf("account: %+v", account)
			}
			if code := ada.join("screening:" + members); code != 0 {
				t.Errorf("a preview with a ticket: %d", code)
			}

			// Lines are cleaned, and only then others read them.
			if code := bob.say("chat:"+screening, object{"text": " is C3 \n taken? <script>alert(1)</script>\u0007"}); code != 0 {
				t.Errorf("a line: %d", code)
			}
			line := hear(ada, "chat:"+screening, func(struct{ Text string }) bool { return true })
			if line.Text != "is C3 taken? <script>alert(1)</script>" {
				t.Errorf("Ada reads %q", line.Text)
			}
			hear(ada, "backstage", func(b struct{ Acts []act }) bool {
				return slices.ContainsFunc(b.Acts, func(a act) bool { return a.Kind == "publish" && a.By == "Go" && a.Outcome == "ok" })
			})
		})
	}
}

func TestNobodyGetsInWithout(t *testing.T) {
	c := open(t, nil)
	ada := sign(t, c.address, "Ada")
	other := open(t, nil)
	stranger := sign(t, other.address, "Ada")
	id, signature, _ := strings.Cut(ada.session, ".")
	for what, test := range map[string]struct {
		data any
		code int
	}{
		"no name":             {object{}, 4501},
		"nothing":             {nil, 4501},
		"no object":           {"Ada", 4501},
		"a name of blanks":    {object{"name": " \t\u200b "}, 4501},
		"a name of a number":  {object{"name": 7}, 4501},
		"a long name":         {object{"name": strings.Repeat("ü", 31)}, 4501},
		"a name of 100 kB":    {object{"name": strings.Repeat("x", 100_000)}, 4501},
		"a forged signature":  {object{"session": id + "." + strings.Repeat("A", len(signature))}, 4502},
		"no signature":        {object{"session": id}, 4502},
		"another's signature": {object{"session": ada.user + "." + signature}, 4502},
		"another house":       {object{"session": stranger.session}, 4502},
		"a session of SQL":    {object{"session": `' OR '1'='1' --`}, 4502},
		"a dot":               {object{"session": "."}, 4502},
	} {
		if _, r := dial(t, c.address, test.data); r.Error == nil || r.Error.Code != test.code {
			t.Errorf("%s: %+v, want %d", what, r.Error, test.code)
		}
	}
	again, r := dial(t, c.address, object{"session": ada.session, "name": "Eve"})
	if r.Error != nil || again.user != ada.user || r.Connect.Data.User.Name != "Ada" {
		t.Errorf("a good session: %+v", r)
	}
	// Signed out is signed out.
	again.must("sign_out", nil, nil)
	if _, r := dial(t, c.address, object{"session": ada.session}); r.Error == nil || r.Error.Code != 4503 {
		t.Errorf("after sign-out: %+v", r.Error)
	}
}

// All that a client may send and should not: it is told so, and nobody else is hurt.
func TestHostileGuest(t *testing.T) {
	for name, script := range map[string]string{"Go": "", "PHP": "php/judge.php"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if script != "" {
				if _, err := exec.LookPath("php"); err != nil {
					t.Fatalf("%v (scripts/install-deps.sh installs it)", err)
				}
			}
			c := open(t, func(s *settings) { s.php = script })
			ada, eve := sign(t, c.address, "Ada"), sign(t, c.address, "Eve")
			screening, members := tonight(ada, "Studio")
			chat := "chat:" + screening
			ada.join(chat)
			ada.join("backstage")
			ada.must("hold", place{screening, "A1"}, nil)

			for _, test := range []struct {
				what string
				got  int
				want int
			}{
				{"a foreign user's channel", eve.join("user:" + ada.user), 103},
				{"a channel of nobody", eve.join("admin"), 103},
				{"a namespace of nobody", eve.join("nowhere:x"), 102},
				{"no screening", eve.join("screening:nowhere"), 440},
				{"a screening of SQL", eve.join(`screening:' OR '1'='1`), 440},
				{"a chat one may not read", eve.join("chat:" + members), 441},
				{"a taken seat", eve.do("hold", place{screening, "A1"}, nil), 443},
				{"a seat that is not there", eve.do("hold", place{screening, "Z99"}, nil), 442},
				{"a seat of SQL", eve.do("hold", place{screening, `A1'; DROP TABLE seats; --`}, nil), 442},
				{"a seat in a preview", eve.do("hold", place{members, "A1"}, nil), 441},
				{"a seat that is a list", eve.do("hold", object{"screening": screening, "seat": []int{1}}, nil), 107},
				{"a foreign seat to release", eve.do("release", place{screening, "A1"}, nil), 444},
				{"a foreign seat to pay", eve.do("pay", purchase{screening, []string{"A1"}, "good"}, nil), 444},
				{"no card", eve.do("pay", purchase{screening, []string{"A1"}, ""}, nil), 449},
				{"no seats to pay", eve.do("pay", purchase{screening, nil, "good"}, nil), 448},
				{"no such method", eve.do("open_sesame", nil, nil), 104},
				{"a line into a chat one may not read", eve.say("chat:"+members, object{"text": "hi"}), 441},
				{"a line into no chat", eve.say("chat:nowhere", object{"text": "hi"}), 440},
				{"a forged change of seats", eve.say("screening:"+screening, object{"seats": []any{}}), 103},
				{"a forged notice", eve.say("user:"+ada.user, object{"kind": "paid"}), 103},
				{"a line into the programme", eve.say("programme", object{"free": 0}), 103},
				{"an empty line", eve.say(chat, object{"text": " \n\u200b"}), 450},
				{"a line that is none", eve.say(chat, []int{1}), 450},
				{"a line of a number", eve.say(chat, object{"text": 1}), 450},
				{"a long line", eve.say(chat, object{"text": strings.Repeat("字", 281)}), 451},
				{"a line of 100 kB", eve.say(chat, object{"text": strings.Repeat("x", 100_000)}), 451},
				{"a line of 280 letters", eve.say(chat, object{"text": strings.Repeat("字", 280)}), 0},
				{"a line of markup", eve.say(chat, object{"text": "<img src=x onerror=alert(1)>", "name": "Ada", "at": -1}), 0},
			} {
				if test.got != test.want {
					t.Errorf("%s: %d, want %d", test.what, test.got, test.want)
				}
			}
			type line struct {
				Text, Name string
				At         int64
			}
			if l := hear(ada, chat, func(line) bool { return true }); len([]rune(l.Text)) != 280 {
				t.Errorf("Ada reads %q first", l.Text)
			}
			if l := hear(ada, chat, func(line) bool { return true }); l.Text != "<img src=x onerror=alert(1)>" || l.Name != "" || l.At <= 0 {
				t.Errorf("Ada reads %+v: the text as it is, and nothing that Eve made up", l)
			}
			hear(ada, "backstage", func(b struct{ Acts []act }) bool {
				return slices.ContainsFunc(b.Acts, func(a act) bool { return a.Kind == "publish" && a.By == name })
			})

			// Larger than any message may be: Eve's connection ends, Ada's does not.
			if code := eve.say(chat, object{"text": strings.Repeat("x", 300_000)}); code != 1009 {
				t.Errorf("a line of 300 kB: %d, want close code 1009", code)
			}
			ada.must("release", place{screening, "A1"}, nil)
		})
	}
}

// 200 clients fight for 50 seats, through the server.
func TestCrowd(t *testing.T) {
	c := open(t, func(s *settings) { s.gateway.Decline = 0 })
	watcher := sign(t, c.address, "Watcher")
	screening, _ := tonight(watcher, "Studio")
	watcher.join("screening:" + screening)
	var view hallView
	watcher.must("seats", place{Screening: screening}, &view)

	people := make([]*guest, 200)
	for i := range people {
		people[i] = sign(t, c.address, "guest")
	}
	start := make(chan struct{})
	won := make([][]string, len(people))
	var crowd sync.WaitGroup
	for i, g := range people {
		crowd.Go(func() {
			<-start
			for k := range 6 {
				seat := view.Seats[(i+k*7)%50].Seat
				switch code := g.insist("hold", place{screening, seat}); code {
				case 0:
					// 447: it has been understood the first time, only the answer was late.
					if code := g.insist("pay", purchase{screening, []string{seat}, "fate"}); code != 0 && code != 447 {
						t.Errorf("pay %s: %d", seat, code)
					}
					won[i] = append(won[i], seat)
				case 443:
				default:
					t.Errorf("hold %s: %d", seat, code)
				}
			}
		})
	}
	close(start)
	crowd.Wait()

	owner := map[string]string{}
	for i, seats := range won {
		for _, seat := range seats {
			if owner[seat] != "" {
				t.Errorf("%s was sold twice", seat)
			}
			owner[seat] = people[i].user
		}
	}
	if len(owner) != 50 {
		t.Errorf("%d seats were sold, want 50", len(owner))
	}
	// Who only watched has the same picture, whatever order the changes came in.
	seen := map[string]Seat{}
	for sold := 0; sold < 50; {
		hear(watcher, "screening:"+screening, func(c Change) bool {
			for _, one := range c.Seats {
				if one.Rev > seen[one.Seat].Rev {
					seen[one.Seat] = one
				}
			}
			return true
		})
		sold = 0
		for _, one := range seen {
			if one.State == stateSold {
				sold++
			}
		}
	}
	for seat, one := range seen {
		if one.User != owner[seat] {
			t.Errorf("%s belongs to %q, the watcher saw %q", seat, owner[seat], one.User)
		}
	}
}

func TestHoldRunsOut(t *testing.T) {
	c := open(t, func(s *settings) { s.hold = 300 * time.Millisecond })
	ada, bob := sign(t, c.address, "Ada"), sign(t, c.address, "Bob")
	screening, _ := tonight(ada, "Loft")
	bob.join("screening:" + screening)
	start := time.Now()
	ada.must("hold", place{screening, "B2"}, nil)
	hear(bob, "screening:"+screening, about("B2", stateFree))
	if took := time.Since(start); took < 300*time.Millisecond || took > 3*time.Second {
		t.Errorf("the hold of 300 ms took %v", took)
	}
	if n := hear(ada, "user:"+ada.user, func(Notice) bool { return true }); n.Kind != "hold_over" {
		t.Errorf("Ada is told %+v", n)
	}
	if code := ada.do("pay", purchase{screening, []string{"B2"}, "good"}, nil); code != 446 {
		t.Errorf("pay after the hold: %d", code)
	}
	bob.must("hold", place{screening, "B2"}, nil)
}

// The program ends while seats are held and one is at the bank. After the next
// start the hold still runs out, and the bank still answers.
func TestRestart(t *testing.T) {
	for name, dsn := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := dsn(t)
			c := open(t, func(s *settings) { s.db, s.hold, s.gateway.Delay = at, time.Second, time.Hour })
			ada := sign(t, c.address, "Ada")
			screening, _ := tonight(ada, "Loft")
			ada.must("hold", place{screening, "A1"}, nil)
			ada.must("hold", place{screening, "A2"}, nil)
			ada.must("pay", purchase{screening, []string{"A2"}, "good"}, nil)
			c.stop()
			select {
			case <-ada.closed:
				if ada.code != 3001 {
					t.Errorf("close code %d, want 3001: come back", ada.code)
				}
			case <-time.After(patience):
				t.Fatal("Ada's connection outlives the server")
			}

			c = open(t, func(s *settings) { s.db, s.hold = at, time.Hour })
			again, r := dial(t, c.address, object{"session": ada.session})
			if r.Error != nil || again.user != ada.user {
				t.Fatalf("Ada comes back: %+v", r)
			}
			again.join("screening:" + screening)
			deadline := time.After(patience)
			for {
				var account Account
				again.must("account", nil, &account)
				told := map[string]bool{}
				for _, n := range account.Notices {
					told[n.Kind] = true
				}
				if told["hold_over"] && told["paid"] && len(account.Tickets) == 1 && account.Tickets[0].Seat == "A2" {
					return
				}
				select {
				case <-deadline:
					t.Fatalf("after a restart: %+v", account)
				case <-again.pushes: // something has happened: look again
				}
			}
		})
	}
}

func TestSessionIsProlonged(t *testing.T) {
	c := open(t, func(s *settings) { s.lease = 2 * time.Second })
	ada := sign(t, c.address, "Ada")
	bob := sign(t, c.address, "Bob")
	_ = bob.do("sign_out", nil, nil)
	select {
	case <-bob.closed:
		if bob.code != 3005 {
			t.Errorf("Bob's close code %d, want 3005: connection expired", bob.code)
		}
	case <-time.After(patience):
		t.Error("Bob has signed out and is still there")
	}
	ada.join("backstage")
	for range 2 { // and Ada is asked about again and again
		hear(ada, "backstage", func(b struct{ Acts []act }) bool {
			return slices.ContainsFunc(b.Acts, func(a act) bool { return a.Kind == "refresh" && a.Outcome == "ok" })
		})
	}
	ada.must("programme", nil, nil)
}

func TestPage(t *testing.T) {
	c := open(t, nil)
	for path, want := range map[string]string{"/": "text/html", "/assets/app.js": "text/javascript", "/assets/app.css": "text/css", "/nowhere": "404"} {
		r, err := http.Get("http://" + c.address + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if want == "404" {
			if r.StatusCode != 404 {
				t.Errorf("%s: %s", path, r.Status)
			}
			continue
		}
		if r.StatusCode != 200 || !strings.HasPrefix(r.Header.Get("Content-Type"), want) || len(body) == 0 {
			t.Errorf("%s: %s %s, %d bytes", path, r.Status, r.Header.Get("Content-Type"), len(body))
		}
		if !strings.Contains(r.Header.Get("Content-Security-Policy"), "default-src 'self'") {
			t.Errorf("%s: no policy", path)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, args := range [][]string{{"-hold", "0"}, {"-lease", "10ms"}, {"extra"}, {"-decline", "often"}, {"-nonsense"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
	for _, listen := range []string{"8000", "127.0.0.1:http", ":-1:"} {
		if err := run(t.Context(), settings{listen: listen}, os.Stderr, nil); err == nil || !strings.Contains(err.Error(), listen) {
			t.Errorf("-listen %s: %v", listen, err)
		}
	}
}

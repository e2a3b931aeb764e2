package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// enter visits the cinema and signs in with the keyboard.
func (w *window) enter(url, name string) {
	w.t.Helper()
	w.visit(url)
	w.until(`document.activeElement?.id === 'name'`) // the proposed name is selected
	w.write(name)
	w.press("Enter")
	w.until(`document.querySelectorAll('.movie').length === 5`)
}

// watch goes to the first screening in the Studio, which has 50 seats.
func (w *window) watch(movie string) {
	w.t.Helper()
	w.click(`.time[href*=` + movie + `]`)
	w.until(`document.querySelectorAll('.plan .seat[data-look]').length > 40`)
}

// seat waits until a seat looks so.
func (w *window) seat(name, look string) {
	w.t.Helper()
	w.until(`document.querySelector('#seat-` + name + `').dataset.look === '` + look + `'`)
}

// One reserves, the other sees it; they talk; one pays, is declined, pays again.
func TestTwoWindows(t *testing.T) {
	c := open(t, func(s *settings) { s.gateway.Delay = 200 * time.Millisecond })
	ada, bob := newWindow(t, "Ada"), newWindow(t, "Bob")
	ada.enter("http://"+c.address+"/", "Ada")
	bob.enter("http://"+c.address+"/", "Bob")

	// A preview is for members; the page says so.
	ada.click(`.time[href*=map]`)
	ada.sees(".refused", "club preview")
	ada.run(`location.hash = '#/s/none'`)
	ada.sees(".refused h1", "Not on the programme")
	ada.click(".back")

	ada.watch("tidewater")
	bob.watch("tidewater")
	ada.sees(".looking", "2 are looking")

	// Only keys: to the third row, fourth seat, take it.
	ada.run(`document.querySelector('#seat-A1').focus()`)
	ada.press("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "Enter")
	ada.seat("C4", "mine")
	bob.seat("C4", "held")
	bob.until(`document.querySelector('#seat-C4').title.includes('1:5')`) // counting down
	ada.sees(".basket", "Pay €11")
	bob.click("#seat-C4")
	bob.sees(".toast", "held by somebody")
	ada.press("Tab", "Enter") // the button that gives it back
	bob.seat("C4", "free")
	ada.until(`document.activeElement?.classList.contains('basket')`) // the focus does not get lost with the button
	bob.click("#seat-C4")
	ada.seat("C4", "held")

	ada.run(`document.querySelector('#say').value = '<img src=x onerror="document.title=1">'; document.querySelector('.say button').click()`)
	bob.sees(".lines", `<img src=x`)

	// Bob's bank declines; with another card it pays. Ada sees that, not why.
	bob.click("#card-bad")
	bob.click("#pay")
	ada.seat("C4", "paying")
	bob.sees(".toast", "declined")
	bob.seat("C4", "mine")
	bob.click("#card-good")
	bob.click("#pay")
	bob.seat("C4", "ticket")
	bob.sees(".toast", "Paid. C4 is yours")
	ada.seat("C4", "sold")
	if said := ada.text(".toasts"); strings.Contains(said, "Paid") || strings.Contains(said, "declined") {
		t.Errorf("Ada was told about Bob's payment: %q", said)
	}
	bob.sees(".user .count", "Tickets 1")
	bob.click(".user")
	bob.sees(".stub", "Tidewater")
	bob.sees(".ledger", "insufficient funds")

	// A counter on the programme moves while Ada takes a seat elsewhere.
	bob.click(".back")
	bob.sees(".time[href*=tidewater] .left", "49 free")
	ada.click("#seat-E1")
	bob.sees(".time[href*=tidewater] .left", "48 free")

	// Now the preview is open to Bob.
	bob.watch("map")
	bob.sees("h1", "The Mapmaker")
}

func TestHoldRunsOutInTheWindow(t *testing.T) {
	c := open(t, func(s *settings) { s.hold = 1500 * time.Millisecond })
	ada, bob := newWindow(t, "Ada"), newWindow(t, "Bob")
	ada.enter("http://"+c.address+"/", "Ada")
	bob.enter("http://"+c.address+"/", "Bob")
	ada.watch("tidewater")
	bob.watch("tidewater")
	ada.click("#seat-B5")
	bob.seat("B5", "held")
	bob.seat("B5", "free")
	ada.seat("B5", "free")
	ada.sees(".toast", "Time is up: B5 is free again")
	if basket := ada.text(".basket"); strings.Contains(basket, "Pay") {
		t.Errorf("Ada can still pay: %q", basket)
	}
}

// The server goes away and comes back in front of the user's eyes.
func TestRestartInTheWindow(t *testing.T) {
	db := filepath.Join(t.TempDir(), "tickets.db")
	c := open(t, func(s *settings) { s.db = db })
	ada, bob := newWindow(t, "Ada"), newWindow(t, "Bob")
	ada.enter("http://"+c.address+"/", "Ada")
	bob.enter("http://"+c.address+"/", "Bob")
	ada.watch("tidewater")
	bob.watch("tidewater")
	ada.click("#seat-A1")
	bob.seat("A1", "held")

	address := c.address
	c.stop()
	ada.sees(".banner", "The connection is lost")
	ada.until(`document.body.dataset.state === 'lost' && document.querySelector('main.stale')`)
	ada.seat("A1", "mine") // what was there stays on the screen
	ada.click("#seat-E5")
	ada.sees(".toast", "Nothing was done")

	// While Ada is away, somebody takes two seats and her hold runs out.
	store, err := OpenStore(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	screening, now := "", time.Now()
	movies, err := store.Programme(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range movies {
		if m.ID == "tidewater" {
			screening = m.Screenings[0].ID
		}
	}
	eve, err := store.SignUp(t.Context(), "Eve", now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, seat := range []string{"C1", "C2"} {
		if _, err := store.Hold(t.Context(), eve.User.ID, screening, seat, now, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Expire(t.Context(), now.Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}

	open(t, func(s *settings) { s.listen, s.db = address, db })
	ada.sees(".banner", "Back after")
	ada.sees(".banner", "3 seats have changed hands meanwhile")
	ada.sees(".toast", "Time is up: A1 is free again")
	ada.seat("A1", "free")
	ada.seat("C1", "held")
	ada.seat("E5", "free")
	ada.sees(".looking", "2 are looking")
	ada.click("#seat-A2") // and all goes on
	bob.seat("A2", "held")
}

// A proof that was forged, or is of another house, leads back to the doors.
func TestForgedSessionInTheWindow(t *testing.T) {
	c := open(t, nil)
	eve := newWindow(t, "Eve")
	eve.visit("http://" + c.address + "/")
	eve.until(`document.querySelector('#name')`)
	eve.run(`sessionStorage.session = 'ada.forged'; location.reload()`)
	eve.sees(".doors", "The house does not know you")
}

func TestChinese(t *testing.T) {
	c := open(t, nil)
	w := newWindow(t, "李四")
	w.enter("http://"+c.address+"/", "李四")
	w.click("header button") // the other language
	w.sees("h1", "排片")
	w.watch("spiral")
	w.sees("h1", "漫长的螺旋")
	w.sees(".looking", "只有您在看")
	w.until(`document.documentElement.lang === 'zh-CN'`)
}

// On a phone nothing is wider than the screen, in either language.
func TestPhone(t *testing.T) {
	c := open(t, nil)
	w := newWindow(t, "phone")
	w.must(command(w.session, "Emulation.setDeviceMetricsOverride", object{"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true}, nil))
	fits := func() {
		t.Helper()
		w.until(`document.documentElement.scrollWidth <= 360 && [...document.querySelectorAll('header *')].every((e) => e.getBoundingClientRect().right <= 360)`)
	}
	w.enter("http://"+c.address+"/", "Ada Lovelace the First of Her Name"[:30])
	fits()
	w.watch("spiral")
	w.click("#seat-A1")
	w.seat("A1", "mine")
	w.click("#card-good")
	w.click("#pay")
	w.seat("A1", "ticket")
	fits()
	w.click("header button")
	w.sees(".user .count", "我的票 1")
	fits()
}

// The committed page is what its sources make.
func TestPageIsBuilt(t *testing.T) {
	if _, err := os.Stat("web/node_modules/vite"); err != nil {
		t.Skip("npm ci has not been run in web")
	}
	out := filepath.Join(t.TempDir(), "dist")
	build := exec.CommandContext(t.Context(), "node_modules/.bin/vite", "build", "--logLevel", "warn", "--outDir", out)
	build.Dir = "web"
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("vite build: %v\n%s", err, said)
	}
	for _, name := range []string{"index.html", "assets/app.js", "assets/app.css"} {
		built, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(filepath.Join("web/dist", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(built, committed) {
			t.Errorf("web/dist/%s is out of date: run `make web` and commit it", name)
		}
	}
}

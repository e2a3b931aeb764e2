package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// chromium is one headless browser for all tests, driven over its DevTools
// protocol. It is started when the first test asks for it and stopped by TestMain.
var chromium struct {
	sync.Once
	err  error
	dir  string
	cmd  *exec.Cmd
	conn net.Conn

	mu      sync.Mutex
	last    int
	waiting map[int]chan devtools
	windows map[string]*window // by session
}

// devtools is a message of the DevTools protocol.
type devtools struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *fault          `json:"error,omitempty"`
}

var devtoolsAddress = regexp.MustCompile(`DevTools listening on (ws://\S+)`)

func startChromium() error {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return err
	}
	if chromium.dir, err = os.MkdirTemp("", "chromium"); err != nil {
		return err
	}
	chromium.cmd = exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
		"--lang=en", "--user-data-dir="+chromium.dir, "--remote-debugging-port=0", "about:blank")
	stderr, err := chromium.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := chromium.cmd.Start(); err != nil {
		return err
	}
	address := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if m := devtoolsAddress.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			}
		}
		close(address)
	}()
	select {
	case at, ok := <-address:
		if !ok {
			return errors.New("it ended at once")
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if chromium.conn, _, _, err = ws.Dial(ctx, at); err != nil {
			return err
		}
	case <-time.After(patience):
		return errors.New("it does not listen")
	}
	chromium.waiting, chromium.windows = map[int]chan devtools{}, map[string]*window{}
	go readChromium()
	return nil
}

func readChromium() {
	for {
		data, err := wsutil.ReadServerText(chromium.conn)
		if err != nil {
			return
		}
		var m devtools
		if json.Unmarshal(data, &m) != nil {
			continue
		}
		chromium.mu.Lock()
		if waiting := chromium.waiting[m.ID]; waiting != nil {
			delete(chromium.waiting, m.ID)
			waiting <- m
		} else if w := chromium.windows[m.Session]; w != nil && m.Method == "Runtime.exceptionThrown" {
			w.thrown = append(w.thrown, string(data))
		}
		chromium.mu.Unlock()
	}
}

// command sends a command to the browser, or to a window if session is given.
func command(session, method string, params, out any) error {
	answer := make(chan devtools, 1)
	chromium.mu.Lock()
	chromium.last++
	m := devtools{ID: chromium.last, Session: session, Method: method, Params: params}
	chromium.waiting[m.ID] = answer
	data, err := json.Marshal(m)
	if err == nil {
		err = wsutil.WriteClientText(chromium.conn, data)
	}
	chromium.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case m = <-answer:
	case <-time.After(patience):
		return fmt.Errorf("%s: no answer", method)
	}
	if m.Error != nil {
		return fmt.Errorf("%s: %s", method, m.Error.Message)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(m.Result, out)
}

func stopChromium() {
	if chromium.conn != nil {
		_ = command("", "Browser.close", nil, nil)
		chromium.conn.Close()
	}
	if chromium.cmd != nil && chromium.cmd.Process != nil {
		ended := make(chan struct{})
		go func() { _ = chromium.cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = chromium.cmd.Process.Kill()
			<-ended
		}
	}
	if chromium.dir != "" {
		_ = os.RemoveAll(chromium.dir)
	}
}

// window is a browser window with a profile of its own.
type window struct {
	t       *testing.T
	name    string
	session string
	thrown  []string // exceptions that nobody caught
}

// newWindow opens a window. It is closed when the test ends, and the test fails if
// a script in it failed.
func newWindow(t *testing.T, name string) *window {
	t.Helper()
	chromium.Do(func() { chromium.err = startChromium() })
	if chromium.err != nil {
		t.Fatalf("Chromium: %v (scripts/install-deps.sh installs it)", chromium.err)
	}
	var profile struct {
		ID string `json:"browserContextId"`
	}
	var target struct {
		ID string `json:"targetId"`
	}
	var attached struct {
		Session string `json:"sessionId"`
	}
	w := &window{t: t, name: name}
	w.must(command("", "Target.createBrowserContext", nil, &profile))
	w.must(command("", "Target.createTarget", object{"url": "about:blank", "browserContextId": profile.ID, "width": 1280, "height": 900}, &target))
	w.must(command("", "Target.attachToTarget", object{"targetId": target.ID, "flatten": true}, &attached))
	w.session = attached.Session
	chromium.mu.Lock()
	chromium.windows[w.session] = w
	chromium.mu.Unlock()
	w.must(command(w.session, "Runtime.enable", nil, nil))
	t.Cleanup(func() {
		if t.Failed() {
			var text string
			_ = w.evaluate(`document.body?.innerText`, &text)
			t.Logf("%s sees:\n%s", name, text)
		}
		_ = command("", "Target.disposeBrowserContext", object{"browserContextId": profile.ID}, nil)
		chromium.mu.Lock()
		defer chromium.mu.Unlock()
		delete(chromium.windows, w.session)
		for _, e := range w.thrown {
			t.Errorf("%s: a script failed: %s", name, e)
		}
	})
	return w
}

func (w *window) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%s: %v", w.name, err)
	}
}

// visit opens a page.
func (w *window) visit(url string) {
	w.t.Helper()
	w.must(command(w.session, "Page.navigate", object{"url": url}, nil))
	w.until(`document.readyState === 'complete' && location.href.startsWith(` + quote(url) + `)`)
}

func (w *window) evaluate(expression string, out any) error {
	var answer struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *struct {
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	err := command(w.session, "Runtime.evaluate", object{"expression": expression, "awaitPromise": true, "returnByValue": true}, &answer)
	if err != nil {
		return err
	}
	if answer.Exception != nil {
		return fmt.Errorf("%s: %s", expression, answer.Exception.Exception.Description)
	}
	if out == nil || len(answer.Result.Value) == 0 {
		return nil
	}
	return json.Unmarshal(answer.Result.Value, out)
}

// run runs a script.
func (w *window) run(script string) {
	w.t.Helper()
	w.must(w.evaluate("{"+script+"}", nil))
}

// text returns what an element shows.
func (w *window) text(selector string) string {
	w.t.Helper()
	var text string
	w.must(w.evaluate(`document.querySelector(`+quote(selector)+`)?.innerText ?? ''`, &text))
	return text
}

// until waits until an expression is true. The page itself looks, on every change.
func (w *window) until(expression string) {
	w.t.Helper()
	script := `new Promise((resolve) => {
		const end = performance.now() + 20000;
		const look = () => { let ok = false; try { ok = !!(` + expression + `) } catch {} if (ok || performance.now() > end) resolve(ok); else setTimeout(look, 30); };
		look(); })`
	deadline := time.Now().Add(patience)
	for {
		var ok bool
		err := w.evaluate(script, &ok)
		if err == nil && ok {
			return
		}
		if err == nil || time.Now().After(deadline) { // an error is a page that was left meanwhile: look again
			w.t.Fatalf("%s waited in vain for %s (%v)", w.name, expression, err)
		}
	}
}

// sees waits until an element shows a text.
func (w *window) sees(selector, text string) {
	w.t.Helper()
	w.until(`[...document.querySelectorAll(` + quote(selector) + `)].some((e) => e.innerText.includes(` + quote(text) + `))`)
}

// click clicks an element as soon as it is there.
func (w *window) click(selector string) {
	w.t.Helper()
	w.until(`document.querySelector(` + quote(selector) + `)`)
	w.run(`document.querySelector(` + quote(selector) + `).click()`)
}

// write types a text where the focus is, replacing what is selected.
func (w *window) write(text string) {
	w.t.Helper()
	w.must(command(w.session, "Input.insertText", object{"text": text}, nil))
}

// press presses keys, one after the other.
func (w *window) press(keys ...string) {
	w.t.Helper()
	for _, key := range keys {
		down := object{"type": "keyDown", "key": key, "code": key}
		if key == "Enter" {
			down["text"] = "\r"
			down["windowsVirtualKeyCode"] = 13
		}
		if key == "Tab" {
			down["windowsVirtualKeyCode"] = 9
		}
		w.must(command(w.session, "Input.dispatchKeyEvent", down, nil))
		w.must(command(w.session, "Input.dispatchKeyEvent", object{"type": "keyUp", "key": key, "code": key}, nil))
	}
}

func quote(text string) string {
	data, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return strings.ReplaceAll(string(data), "</", `<\/`)
}

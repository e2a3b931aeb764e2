package conversations

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/centrifugal/protocol"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/webtransport-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/volute-io/volute/proto/unistreampb"
)

// heard is what a client was told: a message, or the end.
type heard struct{ text, end string }

func (h heard) String() string {
	if h.end != "" {
		return "the end: " + h.end
	}
	return h.text
}

// link is one client's connection.
type link struct {
	say   func(ctx context.Context, message []byte) error
	hang  func()
	heard chan heard
	ended chan struct{}
	once  sync.Once
}

// leave ends the connection from the client's side and waits for that.
func (l *link) leave() {
	l.once.Do(l.hang)
	<-l.ended
}

func (l *link) hear(ctx context.Context) (heard, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case h := <-l.heard:
		return h, nil
	case <-ctx.Done():
		return heard{}, errors.New("nothing was told")
	}
}

// pending is what was told and not heard yet, pings left out.
func (l *link) pending() (all []heard) {
	for {
		select {
		case h := <-l.heard:
			if h.text != "{}" {
				all = append(all, h)
			}
		default:
			return all
		}
	}
}

// listen takes a stream of messages apart until its end. end is what the
// transport itself says of it: "" if a push has told all.
func (w *way) listen(l *link, stream io.Reader, end func() string) {
	l.heard, l.ended = make(chan heard, 10000), make(chan struct{})
	go func() {
		defer close(l.ended)
		r := bufio.NewReader(stream)
		last := ""
		for {
			p, err := w.next(r)
			if err != nil {
				break
			}
			text, err := w.decode(p)
			if err != nil {
				text = err.Error()
			}
			if d := disconnectIn(text); d != "" {
				last = d
				continue
			}
			l.heard <- heard{text: text}
		}
		if e := end(); e != "" {
			last = e
		}
		l.heard <- heard{end: cmpOr(last, "without a word")}
	}()
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// disconnectIn is the code and reason of a disconnect push.
func disconnectIn(text string) string {
	type disconnect struct {
		Code   int    `json:"code"`
		Reason string `json:"reason"`
	}
	var m struct {
		Disconnect *disconnect `json:"disconnect"`
		Push       struct {
			Disconnect *disconnect `json:"disconnect"`
		} `json:"push"`
	}
	if json.Unmarshal([]byte(text), &m) != nil {
		return ""
	}
	if d := m.Disconnect; d != nil {
		return fmt.Sprintf("%d %s", d.Code, d.Reason)
	}
	if d := m.Push.Disconnect; d != nil {
		return fmt.Sprintf("%d %s", d.Code, d.Reason)
	}
	return ""
}

// next reads one message.
func (w *way) next(r *bufio.Reader) ([]byte, error) {
	if w.protobuf {
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, err
		}
		p := make([]byte, size)
		_, err = io.ReadFull(r, p)
		return p, err
	}
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case w.transport == "sse" || w.transport == "uni_sse":
			if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
				return data, nil
			}
			if len(line) > 0 {
				return nil, fmt.Errorf("no event: %q", line)
			}
		default:
			return line, nil
		}
	}
}

func (w *way) openWebSocket(ctx context.Context, at *place, first []byte) (*link, error) {
	d := ws.Dialer{TLSConfig: &tls.Config{InsecureSkipVerify: true}}
	deflate := wsflate.Extension{Parameters: wsflate.Parameters{ServerNoContextTakeover: true, ClientNoContextTakeover: true}}
	if w.compressed {
		d.Extensions = append(d.Extensions, deflate.Parameters.Option())
	}
	if w.protobuf {
		d.Protocols = []string{"centrifuge-protobuf"}
	}
	conn, buffered, hs, err := d.Dial(ctx, "ws"+strings.TrimPrefix(at.http, "http")+"/connection/"+w.transport)
	if err != nil {
		return nil, err
	}
	if w.compressed != (len(hs.Extensions) == 1) || w.protobuf != (hs.Protocol == "centrifuge-protobuf") {
		return nil, fmt.Errorf("negotiated %+v", hs)
	}
	in := io.Reader(conn)
	if buffered != nil {
		in = io.MultiReader(buffered, conn)
	}
	return w.overFrames(ctx, in, conn, first)
}

// overFrames talks by WebSocket frames, once a connection is open.
func (w *way) overFrames(ctx context.Context, in io.Reader, out io.WriteCloser, first []byte) (*link, error) {
	op := ws.OpText
	if w.protobuf {
		op = ws.OpBinary
	}
	var writing sync.Mutex
	write := func(f ws.Frame) error {
		writing.Lock()
		defer writing.Unlock()
		return ws.WriteFrame(out, ws.MaskFrame(f))
	}
	l := &link{hang: func() { out.Close() }}
	l.say = func(_ context.Context, message []byte) (err error) {
		f := ws.NewFrame(op, true, message)
		if w.compressed {
			if f, err = wsflate.CompressFrame(f); err != nil {
				return err
			}
		}
		return write(f)
	}
	stream, sink := io.Pipe()
	end := ""
	go func() {
		err := w.readFrames(in, op, sink, func(f ws.Frame) error {
			if f.Header.OpCode == ws.OpClose {
				code, reason := ws.ParseCloseFrameData(f.Payload)
				end = fmt.Sprintf("%d %s", code, reason)
				_ = write(ws.NewCloseFrame(f.Payload))
				return io.EOF
			}
			return write(ws.NewPongFrame(f.Payload))
		})
		sink.CloseWithError(err)
		out.Close()
	}()
	w.listen(l, stream, func() string { return end })
	return l, l.say(ctx, first)
}

// readFrames puts the messages of frames into one stream.
func (w *way) readFrames(in io.Reader, op ws.OpCode, sink io.Writer, control func(ws.Frame) error) error {
	for {
		f, err := readFrame(in)
		if err != nil {
			return err
		}
		switch compressed, _ := wsflate.IsCompressed(f.Header); {
		case f.Header.OpCode == ws.OpPing || f.Header.OpCode == ws.OpClose:
			if err := control(f); err != nil {
				return err
			}
			continue
		case f.Header.OpCode == ws.OpPong:
			continue
		case f.Header.OpCode != op || !f.Header.Fin || compressed && !w.compressed:
			return fmt.Errorf("unexpected frame %+v", f.Header)
		case compressed:
			if f, err = wsflate.DecompressFrame(f); err != nil {
				return err
			}
		}
		if !w.protobuf {
			f.Payload = append(f.Payload, '\n')
		}
		if _, err := sink.Write(f.Payload); err != nil {
			return err
		}
	}
}

func readFrame(in io.Reader) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(in); err != nil {
		return f, err
	}
	if f.Header.Length > 1<<20 {
		return f, fmt.Errorf("a frame of %d bytes", f.Header.Length)
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(in, f.Payload)
	return f, err
}

// openHTTP is for all that are answers to HTTP requests.
func (w *way) openHTTP(ctx context.Context, at *place, first []byte) (*link, error) {
	ctx, cancel := context.WithCancel(ctx)
	target := at.http + "/connection/" + w.transport
	method, body := http.MethodPost, io.Reader(bytes.NewReader(first))
	if w.transport == "sse" || w.transport == "uni_sse" {
		method, body = http.MethodGet, nil
		target += "?cf_connect=" + url.QueryEscape(string(first))
	}
	r, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		cancel()
		return nil, err
	}
	contentType := "application/json"
	if w.protobuf {
		contentType = "application/octet-stream"
	}
	r.Header.Set("Content-Type", contentType)
	res, err := at.client.Do(r)
	if err != nil {
		cancel()
		return nil, err
	}
	l := &link{hang: func() { cancel(); res.Body.Close() }}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		w.listen(l, strings.NewReader(""), func() string { return fmt.Sprintf("status %d %s", res.StatusCode, bytes.TrimSpace(text)) })
		return l, nil
	}
	// The connect reply, which comes first, says where further commands go.
	stream := bufio.NewReader(res.Body)
	var session, node string
	if w.emulated() {
		session, node = w.session(stream)
	}
	l.say = func(ctx context.Context, message []byte) error {
		if session == "" {
			return errors.New("there is no session to speak for")
		}
		envelope, err := json.Marshal(map[string]string{"session": session, "node": node, "data": string(message)})
		if w.protobuf {
			envelope, err = proto.Marshal(&protocol.EmulationRequest{Session: session, Node: node, Data: message})
		}
		if err != nil {
			return err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, at.http+"/emulation", bytes.NewReader(envelope))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", contentType)
		res, err := at.client.Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusNoContent {
			return fmt.Errorf("/emulation: %s", res.Status)
		}
		return nil
	}
	w.listen(l, stream, func() string { return "" })
	return l, nil
}

// session looks for the ids in the connect reply at the head of a stream, without
// taking it out.
func (w *way) session(stream *bufio.Reader) (session, node string) {
	for size := 1; size < stream.Size(); size++ {
		head, err := stream.Peek(size)
		if err != nil {
			return "", ""
		}
		p, err := w.next(bufio.NewReader(bytes.NewReader(head)))
		if err != nil {
			continue
		}
		var m struct {
			Connect struct{ Session, Node string }
		}
		text, _ := w.decode(p)
		_ = json.Unmarshal([]byte(text), &m)
		return m.Connect.Session, m.Connect.Node
	}
	return "", ""
}

func (w *way) openWebTransport(ctx context.Context, at *place, first []byte) (*link, error) {
	d := &webtransport.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}},
		QUICConfig:      &quic.Config{EnableDatagrams: true, EnableStreamResetPartialDelivery: true},
	}
	target := at.http + "/connection/webtransport"
	if w.protobuf {
		target += "?cf_protocol=protobuf"
	}
	_, session, err := d.Dial(ctx, target, nil)
	if err != nil {
		return nil, err
	}
	stream, err := session.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	l := &link{hang: func() { _ = session.CloseWithError(0, ""); d.Close() }}
	l.say = func(_ context.Context, message []byte) error {
		if !w.protobuf {
			message = append(message, '\n')
		}
		_, err := stream.Write(message)
		return err
	}
	w.listen(l, stream, func() string { stream.Close(); return "" })
	return l, l.say(ctx, first)
}

func (w *way) openGRPC(ctx context.Context, at *place, first []byte) (*link, error) {
	conn, err := grpc.NewClient(at.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	var req unistreampb.ConnectRequest
	if err := proto.Unmarshal(first, &req); err != nil {
		return nil, err
	}
	calls, err := unistreampb.NewCentrifugoUniStreamClient(conn).Consume(ctx, &req)
	if err != nil {
		return nil, err
	}
	stream, sink := io.Pipe()
	go func() {
		for {
			push, err := calls.Recv()
			if err != nil {
				sink.CloseWithError(err)
				return
			}
			p, err := proto.Marshal(push)
			if err == nil {
				_, err = sink.Write(append(binary.AppendUvarint(nil, uint64(len(p))), p...))
			}
			if err != nil {
				return
			}
		}
	}()
	l := &link{hang: func() { conn.Close() }}
	w.listen(l, stream, func() string { return "" })
	return l, nil
}

// logFile collects a log.
type logFile struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logFile) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

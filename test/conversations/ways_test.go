package conversations

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/centrifugal/protocol"
	"google.golang.org/protobuf/proto"
)

// way is a transport with an encoding, as a client uses it. Nothing here is the
// server's own code: messages are encoded by the official module.
type way struct {
	transport  string
	protobuf   bool
	uni        bool // the client's one message is a connect request, the server's are pushes
	compressed bool
	secure     bool // over TLS
	version    int  // of HTTP, if a WebSocket connection is a stream of it
	open       func(ctx context.Context, at *place, first []byte) (*link, error)
}

// place is where a server is.
type place struct {
	address string // host:port
	http    string // URL without a path
	grpc    string
	client  *http.Client
}

// allWays are the ways there are.
func allWays() (ways []way) {
	for _, protobuf := range []bool{false, true} {
		for _, compressed := range []bool{false, true} {
			w := way{transport: "websocket", protobuf: protobuf, compressed: compressed}
			w.open = w.openWebSocket
			ways = append(ways, w)
		}
		secure := way{transport: "websocket", protobuf: protobuf, secure: true}
		secure.open = secure.openWebSocket
		for _, version := range []int{2, 3} {
			w := way{transport: "websocket", protobuf: protobuf, secure: true, version: version, compressed: version == 2}
			w.open = w.openStream
			ways = append(ways, w)
		}
		stream := way{transport: "http_stream", protobuf: protobuf}
		stream.open = stream.openHTTP
		quic := way{transport: "webtransport", protobuf: protobuf, secure: true}
		quic.open = quic.openWebTransport
		ways = append(ways, secure, stream, quic)
	}
	for _, transport := range []string{"sse", "uni_sse", "uni_http_stream"} {
		w := way{transport: transport, uni: transport != "sse"}
		w.open = w.openHTTP
		ways = append(ways, w)
	}
	for _, compressed := range []bool{false, true} {
		w := way{transport: "uni_websocket", uni: true, compressed: compressed}
		w.open = w.openWebSocket
		ways = append(ways, w)
	}
	w := way{transport: "uni_grpc", protobuf: true, uni: true}
	w.open = w.openGRPC
	return append(ways, w)
}

func (w *way) String() string {
	words := w.words()
	return strings.Join(append(words[:2:2], words[3:]...), " ")
}

// words are what conversations choose ways by.
func (w *way) words() []string {
	words := []string{w.transport, "json", "bidirectional"}
	if w.protobuf {
		words[1] = "protobuf"
	}
	if w.uni {
		words[2] = "unidirectional"
	}
	if w.compressed {
		words = append(words, "compressed")
	}
	if w.secure {
		words = append(words, "secure")
	}
	if w.version > 0 {
		words = append(words, "http"+strconv.Itoa(w.version))
	}
	return words
}

// emulated reports whether commands come by requests of their own.
func (w *way) emulated() bool { return w.transport == "http_stream" || w.transport == "sse" }

// config is what every conversation's server has.
func (w *way) config() string {
	text := fmt.Sprintf(`
http_server: {address: 127.0.0.1}
http_api: {insecure: true}
websocket: {compression: %v}
uni_websocket: {enabled: true, compression: %v}
http_stream: {enabled: true}
sse: {enabled: true}
uni_sse: {enabled: true}
uni_http_stream: {enabled: true}
uni_grpc: {enabled: true, address: 127.0.0.1}
client: {token: {hmac_secret_key: a key of the conversations}}
shared_poll: {hmac_secret_key: a key of the conversations}
`, w.compressed, w.compressed)
	if w.secure {
		cert, key := selfSigned()
		text += fmt.Sprintf("webtransport: {enabled: true}\nhttp_server: {address: 127.0.0.1, websocket_streams: true, http3: {enabled: true}, tls: {enabled: true, cert_pem: %q, key_pem: %q}}\n", cert, key)
		text = strings.Replace(text, "\nhttp_server: {address: 127.0.0.1}\n", "\n", 1)
	}
	return text
}

// selfSigned is a certificate that nobody believes, in PEM.
var selfSigned = sync.OnceValues(func() (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		panic(err)
	}
	privateDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: privateDER}))
})

func (w *way) httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
}

// encode makes one message of lines of JSON. What is no JSON goes out as it is;
// "hex:" begins bytes.
func (w *way) encode(lines []string) ([]byte, error) {
	if raw, ok := strings.CutPrefix(lines[0], "hex:"); ok {
		var p []byte
		_, err := fmt.Sscanf(strings.ReplaceAll(raw, " ", ""), "%x", &p)
		return p, err
	}
	if !w.protobuf {
		return []byte(strings.Join(lines, "\n")), nil
	}
	var message []byte
	for _, line := range lines {
		var p []byte
		var err error
		if w.uni {
			var req protocol.ConnectRequest
			if err := json.Unmarshal([]byte(line), &req); err != nil {
				return nil, err
			}
			return proto.Marshal(&req)
		}
		cmd, err := protocol.NewJSONCommandDecoder([]byte(line)).Decode()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		if p, err = proto.Marshal(cmd); err != nil {
			return nil, err
		}
		message = append(binary.AppendUvarint(message, uint64(len(p))), p...)
	}
	return message, nil
}

// decode makes JSON of a message of the server.
func (w *way) decode(p []byte) (string, error) {
	switch {
	case !w.protobuf:
		return string(p), nil
	case len(p) == 0:
		return "{}", nil
	case w.uni:
		var push protocol.Push
		if err := proto.Unmarshal(p, &push); err != nil {
			return "", err
		}
		text, err := protocol.DefaultJsonPushEncoder.Encode(&push)
		return string(text), err
	}
	var reply protocol.Reply
	if err := proto.Unmarshal(p, &reply); err != nil {
		return "", err
	}
	text, err := protocol.DefaultJsonReplyEncoder.Encode(&reply)
	return string(text), err
}

// normalize takes out of a connect reply what differs between transports, after
// having looked at it.
func (w *way) normalize(want, got any) error {
	g, _ := got.(map[string]any)
	wanted, _ := want.(map[string]any)
	if history, ok := g["history"].(map[string]any); ok && history["publications"] == nil {
		history["publications"] = []any{} // Protobuf has no empty lists, and the module makes null of none
	}
	connect, ok := g["connect"].(map[string]any)
	if !ok {
		return nil
	}
	session, hasSession := connect["session"]
	if _, hasNode := connect["node"]; hasSession != (w.emulated() || w.uni) || hasNode != w.emulated() {
		return errors.New("session and node of the connect reply")
	}
	if hasSession && len(fmt.Sprint(session)) != 36 {
		return errors.New("the session is no uuid")
	}
	delete(connect, "session")
	delete(connect, "node")
	if c, ok := wanted["connect"].(map[string]any); ok && w.transport == "uni_grpc" {
		delete(c, "ping") // it is pinged by HTTP/2
	}
	return nil
}

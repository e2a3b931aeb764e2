package api

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"google.golang.org/protobuf/proto"
)

// HTTPConfig configures the HTTP face.
type HTTPConfig struct {
	Prefix             string // of the paths: "/api" makes /api/publish
	Key                string // that callers must show; "" = nobody may call, unless Insecure
	Insecure           bool   // everybody may call
	ErrorModeTransport bool   // tell errors as HTTP statuses instead of inside of responses
	MaxBody            int64  // bytes of a request; longer ones are answered 413
	Logger             *slog.Logger
}

// HTTP is the HTTP face: POST Prefix/<method> with a JSON request, and POST
// Prefix with lines of commands, the older form.
type HTTP struct {
	face
	cfg HTTPConfig
	key key
}

// NewHTTP returns the HTTP face of api. A nil api is one that is never ready.
func NewHTTP(api volute.API, cfg HTTPConfig) *HTTP {
	cfg.Prefix = strings.TrimSuffix(cfg.Prefix, "/")
	return &HTTP{
		face: face{name: "http", api: api, log: cfg.Logger},
		cfg:  cfg,
		key:  newKey(cfg.Key),
	}
}

// ServeHTTP implements http.Handler.
func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, h.cfg.Prefix)
	legacy := path == "" || path == "/" && h.cfg.Prefix == ""
	op := codec.OperationByName(strings.TrimPrefix(path, "/"))
	switch {
	case !ok || !legacy && (op == nil || path[0] != '/'):
		http.NotFound(w, r)
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	case !h.authorized(r):
		w.WriteHeader(http.StatusUnauthorized)
	case legacy:
		h.serveCommands(w, r)
	default:
		h.serveOperation(w, r, op)
	}
}

func (h *HTTP) serveOperation(w http.ResponseWriter, r *http.Request, op *codec.Operation) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.cfg.MaxBody))
	if err != nil {
		refuse(w, err)
		return
	}
	req := op.NewRequest()
	if err := codec.UnmarshalJSON(body, req); err != nil {
		refuse(w, err)
		return
	}
	resp, err := h.serve(r.Context(), op, req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	var said proto.Message = resp
	code := http.StatusOK
	if e := errorOf(resp); e != nil && h.transportMode(r) {
		said, code = e, statusOf(e.Code).http
	}
	answer, err := codec.MarshalJSON(said)
	if err != nil {
		h.log.ErrorContext(r.Context(), "api response has no JSON form", "face", h.name, "method", op.Name, "error", err)
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(answer) // the caller has gone if it fails
}

// refuse answers a body that could not be read or understood.
func refuse(w http.ResponseWriter, err error) {
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		http.Error(w, "Request Entity Too Large", http.StatusRequestEntityTooLarge)
		return
	}
	http.Error(w, "Bad Request: "+err.Error(), http.StatusBadRequest)
}

// authorized looks for the key in the header X-API-Key, without that in
// Authorization, and in any case in the query.
func (h *HTTP) authorized(r *http.Request) bool {
	if h.cfg.Insecure {
		return true
	}
	if h.cfg.Key == "" {
		return false
	}
	shown := r.Header.Get("X-API-Key")
	if shown == "" {
		scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if strings.EqualFold(scheme, "apikey") {
			shown = value
		}
	}
	return h.key.opens(shown) || h.key.opens(r.URL.Query().Get("api_key"))
}

func (h *HTTP) transportMode(r *http.Request) bool {
	return h.cfg.ErrorModeTransport || r.Header.Get(modeHeader) == modeTransport
}

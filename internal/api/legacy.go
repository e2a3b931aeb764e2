package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/volute-io/volute"
	"github.com/volute-io/volute/internal/codec"
	"github.com/volute-io/volute/proto/apipb"
	"google.golang.org/protobuf/proto"
)

// The older form of the HTTP API: a body is a sequence of commands, each
// {"id":1,"method":"publish","params":{…}}, and so are the replies,
// {"id":1,"result":{…}} or {"id":1,"error":{…}}, one per line.

// command is one of them, understood.
type command struct {
	id  uint32
	op  *codec.Operation
	req proto.Message
}

// serveCommands performs the commands of a body in order. A body with a command
// that cannot be understood is refused before anything is done.
func (h *HTTP) serveCommands(w http.ResponseWriter, r *http.Request) {
	commands, err := readCommands(http.MaxBytesReader(w, r.Body, h.cfg.MaxBody))
	if err != nil {
		refuse(w, err)
		return
	}
	if h.api == nil {
		http.Error(w, codec.ErrNotReady.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	for _, c := range commands {
		if _, err := w.Write(h.serveCommand(r, c)); err != nil {
			return // the caller has gone
		}
	}
}

func readCommands(body io.Reader) ([]command, error) {
	var commands []command
	decoder := json.NewDecoder(body)
	for {
		var line struct {
			ID     uint32          `json:"id"`
			Method json.RawMessage `json:"method"`
			Params json.RawMessage `json:"params"`
		}
		if err := decoder.Decode(&line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("command %d: %w", len(commands)+1, err)
		}
		c := command{id: line.ID, op: legacyOperation(string(line.Method))}
		if c.op == nil {
			return nil, fmt.Errorf("command %d: unknown method %.40s", len(commands)+1, line.Method)
		}
		c.req = c.op.NewRequest()
		if line.Params != nil {
			if err := codec.UnmarshalJSON(line.Params, c.req); err != nil {
				return nil, fmt.Errorf("command %d: params: %w", len(commands)+1, err)
			}
		}
		commands = append(commands, c)
	}
	if len(commands) == 0 {
		return nil, errors.New("no command")
	}
	return commands, nil
}

// legacyOperation finds an operation by the JSON of its name, in any case, or
// of its number. Without a method it is number 0, publish. Operations that are
// younger than this form are found by name; batch is not.
func legacyOperation(method string) *codec.Operation {
	if method == "" {
		method = "0"
	}
	var name string
	if json.Unmarshal([]byte(method), &name) == nil {
		if op := codec.OperationByName(strings.ToLower(name)); op != nil && op.Name != "batch" {
			return op
		}
		return nil
	}
	number, err := strconv.Atoi(method)
	if err != nil || number < 0 {
		return nil
	}
	for _, op := range codec.Operations() {
		if op.LegacyNumber == number {
			return op
		}
	}
	return nil
}

// serveCommand returns the line that answers c.
func (h *HTTP) serveCommand(r *http.Request, c command) []byte {
	line := []byte{'{'}
	if c.id != 0 {
		line = fmt.Appendf(line, `"id":%d,`, c.id)
	}
	resp, err := h.serve(r.Context(), c.op, c.req)
	if err == nil {
		var body []byte
		if body, err = codec.MarshalJSON(resp); err == nil {
			return append(append(line, body[1:]...), '\n')
		}
		h.log.ErrorContext(r.Context(), "api response has no JSON form", "face", h.name, "method", c.op.Name, "error", err)
	}
	body, err := codec.MarshalJSON(&apipb.PublishResponse{Error: &apipb.Error{
		Code: volute.ErrInternal.Code, Message: volute.ErrInternal.Message,
	}})
	if err != nil {
		return nil
	}
	return append(append(line, body[1:]...), '\n')
}

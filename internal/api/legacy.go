package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/volute-io/volute/internal/codec"
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
	for i, c := range commands {
		resp, err := h.serve(r.Context(), c.op, c.req)
		if err != nil && i == 0 {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write(h.line(r.Context(), c, resp)); err != nil {
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

// line returns the line that answers c: resp, or error 100 if there is none or
// it has no JSON form.
func (h *HTTP) line(ctx context.Context, c command, resp proto.Message) []byte {
	body := []byte(internalError)
	if resp != nil {
		p, err := codec.MarshalJSON(resp)
		if err == nil {
			body = p
		} else {
			h.log.ErrorContext(ctx, "api response has no JSON form", "face", h.name, "method", c.op.Name, "error", err)
		}
	}
	line := []byte{'{'}
	if c.id != 0 {
		line = fmt.Appendf(line, `"id":%d,`, c.id)
	}
	return append(append(line, body[1:]...), '\n')
}

const internalError = `{"error":{"code":100,"message":"internal server error"}}`

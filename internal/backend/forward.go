package backend

import (
	"slices"
	"strings"

	"github.com/volute-io/volute"
)

// Forward says what a backend gets to know of a client's request besides the
// event. Later sources replace earlier ones: Static, emulated headers, real
// headers. Names match in any case and are sent in lower case. Zero: nothing.
type Forward struct {
	// Static is sent with every event.
	Static map[string]string
	// Emulated names headers that a client may give inside its connect command.
	Emulated []string
	// HTTP names headers of the client's own HTTP request.
	HTTP []string
	// Metadata names metadata of clients of the uni_grpc transport, which have no
	// HTTP request.
	Metadata []string
	// All sends every real header as it came. That is for an application server
	// behind a real-time server, which has made the choice already.
	All bool
}

// unforwardable headers describe one hop or one body; on another they would
// break the request.
var unforwardable = []string{
	"accept-encoding", "connection", "content-encoding", "content-length", "content-type", "keep-alive",
	"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// compile returns f with its names in lower case.
func (f Forward) compile() Forward {
	static := make(map[string]string, len(f.Static))
	for name, value := range f.Static {
		static[strings.ToLower(name)] = value
	}
	f.Static = static
	f.Emulated, f.HTTP, f.Metadata = names(f.Emulated), names(f.HTTP), names(f.Metadata)
	return f
}

func names(list []string) []string {
	lower := make([]string, 0, len(list))
	for _, name := range list {
		if name = strings.ToLower(name); !slices.Contains(unforwardable, name) {
			lower = append(lower, name)
		}
	}
	return lower
}

// headers are those of ev that the backend gets, by lower-case name. A client's
// value that is not valid is left out: it would fail the call, and a client must
// not be able to make a backend look broken.
func (f *Forward) headers(ev volute.Event, valid func(value string) bool) map[string][]string {
	out := make(map[string][]string, len(f.Static)+len(f.HTTP)+1)
	for name, value := range f.Static {
		out[name] = []string{value}
	}
	if f.All {
		for name, values := range ev.Header {
			out[name] = values
		}
		return out
	}
	if len(f.Emulated) > 0 {
		for name, value := range ev.Emulated {
			if name = strings.ToLower(name); slices.Contains(f.Emulated, name) && valid(value) {
				out[name] = []string{value}
			}
		}
	}
	allowed := f.HTTP
	if ev.Transport == "uni_grpc" {
		allowed = f.Metadata
	}
	for _, name := range allowed {
		values := ev.Header[name]
		if len(values) > 0 && !slices.ContainsFunc(values, func(v string) bool { return !valid(v) }) {
			out[name] = values
		}
	}
	return out
}

// printable reports whether v may be a value of gRPC metadata.
func printable(v string) bool {
	for i := range len(v) {
		if v[i] < 0x20 || v[i] > 0x7e {
			return false
		}
	}
	return true
}

// fieldValue reports whether v may be a value of an HTTP header.
func fieldValue(v string) bool {
	for i := range len(v) {
		if v[i] < 0x20 && v[i] != '\t' || v[i] == 0x7f {
			return false
		}
	}
	return true
}

func anyValue(string) bool { return true }

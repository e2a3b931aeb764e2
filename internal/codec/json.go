package codec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxDepth bounds the nesting of messages in JSON. Each level is scanned again
// by the one above, and only tags filters nest at all.
const maxDepth = 32

// always names the fields that stay in JSON when they are zero: libraries read
// them without looking whether they are there.
var always = map[protoreflect.FullName]bool{
	"centrifugal.centrifugo.api.ClientInfo.user":                 true,
	"centrifugal.centrifugo.api.ClientInfo.client":               true,
	"centrifugal.centrifugo.api.PresenceResult.presence":         true,
	"centrifugal.centrifugo.api.PresenceStatsResult.num_clients": true,
	"centrifugal.centrifugo.api.PresenceStatsResult.num_users":   true,
	"centrifugal.centrifugo.api.HistoryResult.publications":      true,
	"centrifugal.centrifugo.api.HistoryResult.offset":            true,
	"centrifugal.centrifugo.api.HistoryResult.epoch":             true,
	"centrifugal.centrifugo.api.ChannelsResult.channels":         true,
	"centrifugal.centrifugo.api.NodeResult.uid":                  true,
	"centrifugal.centrifugo.api.NodeResult.name":                 true,
	"centrifugal.centrifugo.api.NodeResult.version":              true,
	"centrifugal.centrifugo.api.NodeResult.num_clients":          true,
	"centrifugal.centrifugo.api.NodeResult.num_users":            true,
	"centrifugal.centrifugo.api.NodeResult.num_channels":         true,
	"centrifugal.centrifugo.api.NodeResult.num_subs":             true,
	"centrifugal.centrifugo.proxy.RefreshRequest.user":           true,
	"centrifugal.centrifugo.proxy.SubscribeRequest.user":         true,
	"centrifugal.centrifugo.proxy.PublishRequest.user":           true,
	"centrifugal.centrifugo.proxy.RPCRequest.user":               true,
	"centrifugal.centrifugo.proxy.SubRefreshRequest.user":        true,
}

// MarshalJSON returns the form that m has over HTTP: protobuf field names, in
// the order of their declaration; bytes fields hold JSON and are embedded;
// 64-bit integers are numbers; zero values are left out. A payload that is not
// JSON goes into the field's b64… sibling if there is one, else it is an error.
// The result has no newline.
func MarshalJSON(m proto.Message) ([]byte, error) { return appendMessage(nil, m.ProtoReflect()) }

func appendMessage(b []byte, m protoreflect.Message) (_ []byte, err error) {
	fields := m.Descriptor().Fields()
	b = append(b, '{')
	start := len(b)
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) && !always[fd.FullName()] {
			continue
		}
		if len(b) > start {
			b = append(b, ',')
		}
		if b, err = appendField(b, fd, m.Get(fd)); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendField(b []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	if fd.Kind() == protoreflect.BytesKind && !fd.IsList() && !fd.IsMap() {
		return appendRaw(b, fd, v.Bytes())
	}
	b = appendKey(b, fd.Name())
	switch {
	case fd.IsList():
		return appendList(b, fd, v.List())
	case fd.IsMap():
		return appendMap(b, fd, v.Map())
	}
	return appendValue(b, fd, v)
}

func appendKey[S ~string](b []byte, name S) []byte {
	return append(append(append(b, '"'), name...), '"', ':')
}

func appendRaw(b []byte, fd protoreflect.FieldDescriptor, p []byte) ([]byte, error) {
	key := len(b)
	buf := bytes.NewBuffer(appendKey(b, fd.Name()))
	if json.Compact(buf, p) == nil {
		return buf.Bytes(), nil
	}
	b64 := base64Field(fd)
	if b64 == nil {
		return nil, fmt.Errorf("%s is not JSON and cannot travel in a JSON message", fd.FullName())
	}
	b = append(appendKey(b[:key], b64.Name()), '"')
	b = base64.StdEncoding.AppendEncode(b, p)
	return append(b, '"'), nil
}

func appendList(b []byte, fd protoreflect.FieldDescriptor, list protoreflect.List) (_ []byte, err error) {
	b = append(b, '[')
	for i := range list.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, fd, list.Get(i)); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendMap(b []byte, fd protoreflect.FieldDescriptor, dict protoreflect.Map) (_ []byte, err error) {
	keys := make([]string, 0, dict.Len()) // every map of these protocols has string keys
	dict.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k.String())
		return true
	})
	slices.Sort(keys)
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		v := dict.Get(protoreflect.ValueOfString(k).MapKey())
		if b, err = appendValue(b, fd.MapValue(), v); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendValue(b []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool()), nil
	case protoreflect.StringKind:
		return appendString(b, v.String()), nil
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case protoreflect.DoubleKind:
		f := v.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			f = 0 // JSON has no word for them
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64), nil
	case protoreflect.MessageKind:
		if wrapper(fd.Message()) {
			return appendMessageAlways(b, v.Message())
		}
		return appendMessage(b, v.Message())
	}
	return nil, fmt.Errorf("%s: no JSON form for kind %s", fd.FullName(), fd.Kind())
}

// wrapper reports whether a message only makes a scalar optional.
func wrapper(md protoreflect.MessageDescriptor) bool {
	return md.Name() == "BoolValue" || md.Name() == "Int32Value"
}

// appendMessageAlways writes {"value":false} for a wrapper, so that a reader
// sees what the wrapper is for.
func appendMessageAlways(b []byte, m protoreflect.Message) ([]byte, error) {
	fd := m.Descriptor().Fields().ByNumber(1)
	b, err := appendValue(appendKey(append(b, '{'), fd.Name()), fd, m.Get(fd))
	return append(b, '}'), err
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			quoted, _ := json.Marshal(s) // a string always has a JSON form
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// UnmarshalJSON reads the form that MarshalJSON writes into m, which it resets.
// Fields it does not know are ignored, and so is null, except for bytes fields:
// they take whatever JSON they are given. Of members with the same name the last
// one counts. Errors name the field.
func UnmarshalJSON(p []byte, m proto.Message) error {
	proto.Reset(m)
	if !json.Valid(p) {
		return want("an object", json.Unmarshal(p, new(json.RawMessage)))
	}
	return readMessage(p, m.ProtoReflect(), 0)
}

// readMessage reads an object. p is valid JSON, here and in what follows.
func readMessage(p []byte, m protoreflect.Message, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("messages nest deeper than %d levels", maxDepth)
	}
	fields := m.Descriptor().Fields()
	return members(p, func(name, p []byte) error {
		fd := fields.ByName(protoreflect.Name(name))
		if fd == nil || string(p) == "null" && fd.Kind() != protoreflect.BytesKind {
			return nil
		}
		if err := readField(p, m, fd, depth); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

func readField(p []byte, m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) error {
	switch {
	case fd.IsList():
		m.Clear(fd)
		list, i := m.Mutable(fd).List(), 0
		return elements(p, func(p []byte) error {
			v, err := readValue(p, fd, list.NewElement, depth)
			if err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
			list.Append(v)
			i++
			return nil
		})
	case fd.IsMap():
		m.Clear(fd)
		dict := m.Mutable(fd).Map()
		return members(p, func(name, p []byte) error {
			v, err := readValue(p, fd.MapValue(), dict.NewValue, depth)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			dict.Set(protoreflect.ValueOfString(string(name)).MapKey(), v)
			return nil
		})
	default:
		v, err := readValue(p, fd, func() protoreflect.Value { return m.NewField(fd) }, depth)
		if err != nil {
			return err
		}
		m.Set(fd, v)
	}
	return nil
}

// readValue reads one value of fd's kind; fresh makes an empty message for it.
func readValue(p []byte, fd protoreflect.FieldDescriptor, fresh func() protoreflect.Value, depth int) (protoreflect.Value, error) {
	var none protoreflect.Value
	switch kind := fd.Kind(); kind {
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(bytes.Clone(p)), nil
	case protoreflect.MessageKind:
		v := fresh()
		if string(p) == "null" {
			return v, nil
		}
		return v, readMessage(p, v.Message(), depth+1)
	case protoreflect.BoolKind:
		return scalar(p, "true or false", protoreflect.ValueOfBool)
	case protoreflect.StringKind:
		if s, ok := plain(p); ok {
			return protoreflect.ValueOfString(string(s)), nil
		}
		return scalar(p, "a string", protoreflect.ValueOfString)
	case protoreflect.Int32Kind:
		return scalar(p, "an integer of 32 bits", protoreflect.ValueOfInt32)
	case protoreflect.Int64Kind:
		return scalar(p, "an integer of 64 bits", protoreflect.ValueOfInt64)
	case protoreflect.Uint32Kind:
		return scalar(p, "an unsigned integer of 32 bits", protoreflect.ValueOfUint32)
	case protoreflect.Uint64Kind:
		return scalar(p, "an unsigned integer of 64 bits", protoreflect.ValueOfUint64)
	case protoreflect.DoubleKind:
		return scalar(p, "a number", protoreflect.ValueOfFloat64)
	default:
		return none, fmt.Errorf("no JSON form for kind %s", kind)
	}
}

func scalar[T any](p []byte, what string, value func(T) protoreflect.Value) (protoreflect.Value, error) {
	var x T
	if err := json.Unmarshal(p, &x); err != nil {
		return protoreflect.Value{}, want(what, err)
	}
	return value(x), nil
}

// want says what a field should have held in the words of whoever sent it.
func want(what string, err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("want %s, got %s", what, strings.TrimSuffix("a JSON "+wrong.Value, " "))
	}
	return fmt.Errorf("want %s: %w", what, err)
}

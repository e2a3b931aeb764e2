package codec

import (
	"encoding/base64"
	"fmt"
	"math"

	"github.com/volute-io/volute"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// write puts what the words point to into m; zero values stay out. With binary,
// payloads go into their b64… fields where there is one. It returns the name of
// a word that holds something m has no field for, or "".
func write(m protoreflect.Message, ws []word, binary bool) (lost string) {
	fields := m.Descriptor().Fields()
	for _, w := range ws {
		if w.name == "" {
			keep(m, *w.at.(*[]byte))
			continue
		}
		fd := fields.ByName(protoreflect.Name(w.name))
		if fd == nil {
			if lost == "" && !empty(w.at) {
				lost = w.name
			}
			continue
		}
		put(m, fd, w.at, binary)
	}
	return lost
}

// keep merges what read could not name back into m. What does not parse cannot
// be passed on.
func keep(m protoreflect.Message, unknown []byte) {
	if len(unknown) > 0 {
		_ = proto.UnmarshalOptions{Merge: true}.Unmarshal(unknown, m.Interface())
	}
}

func put(m protoreflect.Message, fd protoreflect.FieldDescriptor, at any, binary bool) {
	switch at := at.(type) {
	case *string:
		if *at != "" {
			m.Set(fd, protoreflect.ValueOfString(*at))
		}
	case *[]byte:
		if len(*at) == 0 {
			return
		}
		if binary {
			if b64 := base64Field(fd); b64 != nil {
				m.Set(b64, protoreflect.ValueOfString(base64.StdEncoding.EncodeToString(*at)))
				return
			}
		}
		m.Set(fd, protoreflect.ValueOfBytes(*at))
	case *bool:
		if *at {
			m.Set(fd, protoreflect.ValueOfBool(true))
		}
	case **bool:
		if *at != nil {
			wrapped := m.Mutable(fd).Message()
			put(wrapped, wrapped.Descriptor().Fields().ByName("value"), *at, binary)
		}
	case *int:
		putNumber(m, fd, int64(*at))
	case *int64:
		putNumber(m, fd, *at)
	case *uint32:
		putNumber(m, fd, int64(*at))
	case *uint64:
		if *at != 0 {
			m.Set(fd, protoreflect.ValueOfUint64(*at))
		}
	case *float64:
		if *at != 0 {
			m.Set(fd, protoreflect.ValueOfFloat64(*at))
		}
	case *[]string:
		if len(*at) > 0 {
			list := m.Mutable(fd).List()
			for _, s := range *at {
				list.Append(protoreflect.ValueOfString(s))
			}
		}
	case *map[string]string:
		putMap(m, fd, *at, protoreflect.ValueOfString)
	case *map[string]float64:
		putMap(m, fd, *at, protoreflect.ValueOfFloat64)
	case []word:
		write(m.Mutable(fd).Message(), at, binary)
	case *[]volute.BroadcastResult:
		list := m.Mutable(fd).List()
		for i := range *at {
			r, element := &(*at)[i], list.AppendMutable().Message()
			if !answer(element, &r.PublishResult, r.Err) {
				answer(element, nil, volute.ErrInternal)
			}
		}
	default:
		putMessages(m, fd, at, binary)
	}
}

// putMessages is put for words that are messages, and lists and maps of them.
func putMessages(m protoreflect.Message, fd protoreflect.FieldDescriptor, at any, binary bool) {
	switch at := at.(type) {
	case **volute.ChannelOverride:
		putOne(m, fd, *at, binary)
	case **volute.FilterNode:
		putOne(m, fd, *at, binary)
	case **volute.Disconnect:
		putOne(m, fd, *at, binary)
	case **volute.Position:
		putOne(m, fd, *at, binary)
	case **volute.ClientInfo:
		putOne(m, fd, *at, binary)
	case *[]*volute.FilterNode:
		putList(m, fd, *at, binary)
	case *[]*volute.Publication:
		putList(m, fd, *at, binary)
	case *mapEntries:
		list := m.Mutable(fd).List()
		for _, p := range *at {
			write(list.AppendMutable().Message(), words((*mapEntry)(p)), binary)
		}
	case *[]volute.PollItem:
		putList(m, fd, pointers(*at), binary)
	case *[]volute.ChannelState:
		putList(m, fd, pointers(*at), binary)
	case *[]volute.PollResult:
		putList(m, fd, pointers(*at), binary)
	case *[]volute.NodeInfo:
		putList(m, fd, pointers(*at), binary)
	case *map[string]volute.SubscribeOptions:
		putStructs(m, fd, *at, binary)
	case *map[string]volute.ClientInfo:
		putStructs(m, fd, *at, binary)
	case *map[string]volute.ChannelInfo:
		putStructs(m, fd, *at, binary)
	default:
		panic(fmt.Sprintf("codec: no way to write %T into %s", at, fd.FullName()))
	}
}

func putOne[T any](m protoreflect.Message, fd protoreflect.FieldDescriptor, x *T, binary bool) {
	if x != nil {
		write(m.Mutable(fd).Message(), words(x), binary)
	}
}

func putList[T any](m protoreflect.Message, fd protoreflect.FieldDescriptor, xs []*T, binary bool) {
	list := m.Mutable(fd).List()
	for _, x := range xs {
		if x == nil {
			x = new(T)
		}
		write(list.AppendMutable().Message(), words(x), binary)
	}
}

func putStructs[T any](m protoreflect.Message, fd protoreflect.FieldDescriptor, xs map[string]T, binary bool) {
	dict := m.Mutable(fd).Map()
	for k, x := range xs {
		write(dict.Mutable(protoreflect.ValueOfString(k).MapKey()).Message(), words(&x), binary)
	}
}

func putMap[T any](m protoreflect.Message, fd protoreflect.FieldDescriptor, xs map[string]T, value func(T) protoreflect.Value) {
	if len(xs) == 0 {
		return
	}
	dict := m.Mutable(fd).Map()
	for k, x := range xs {
		dict.Set(protoreflect.ValueOfString(k).MapKey(), value(x))
	}
}

// putNumber stores n in a field of any integer type; what does not fit becomes
// the nearest number that does.
func putNumber(m protoreflect.Message, fd protoreflect.FieldDescriptor, n int64) {
	if n == 0 {
		return
	}
	switch fd.Kind() {
	case protoreflect.Int32Kind:
		m.Set(fd, protoreflect.ValueOfInt32(int32(min(max(n, math.MinInt32), math.MaxInt32))))
	case protoreflect.Uint32Kind:
		m.Set(fd, protoreflect.ValueOfUint32(uint32(min(max(n, 0), math.MaxUint32))))
	default:
		m.Set(fd, protoreflect.ValueOfInt64(n))
	}
}

// read fills what the words point to from m. b64… fields win over their raw
// siblings unless dataWins. Fields that no word names are kept under the word
// "", if there is one; the name of one of them is returned.
func read(m protoreflect.Message, ws []word, dataWins bool) (rest string, err error) {
	var kept protoreflect.Message
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(fd.Name())
		raw := rawField(fd)
		if raw != nil {
			name = string(raw.Name())
		}
		at := find(ws, name)
		switch {
		case at == nil:
			if name != "encoding" { // follows from Options
				if kept == nil {
					kept = m.New()
				}
				kept.Set(fd, v)
				rest = name
			}
		case raw != nil:
			if !dataWins || !m.Has(raw) {
				err = decodeBase64(at.(*[]byte), fd, v.String())
			}
		default:
			if b64 := base64Field(fd); b64 == nil || dataWins || !m.Has(b64) {
				err = get(fd, v, at)
			}
		}
		return err == nil
	})
	if err != nil {
		return rest, err
	}
	if at, ok := find(ws, "").(*[]byte); ok {
		*at = append([]byte(nil), m.GetUnknown()...)
		if kept != nil {
			*at, err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(*at, kept.Interface())
		}
	}
	return rest, err
}

func get(fd protoreflect.FieldDescriptor, v protoreflect.Value, at any) (err error) {
	switch at := at.(type) {
	case *string:
		*at = v.String()
	case *[]byte:
		*at = v.Bytes()
	case *bool:
		*at = v.Bool()
	case **bool:
		wrapped := v.Message()
		value := wrapped.Get(wrapped.Descriptor().Fields().ByName("value")).Bool()
		*at = &value
	case *int:
		*at = int(number(fd, v))
	case *int64:
		*at = number(fd, v)
	case *uint32:
		*at = uint32(v.Uint())
	case *uint64:
		*at = v.Uint()
	case *float64:
		*at = v.Float()
	case *[]string:
		list := v.List()
		*at = make([]string, list.Len())
		for i := range *at {
			(*at)[i] = list.Get(i).String()
		}
	case *map[string]string:
		*at = getMap(v.Map(), protoreflect.Value.String)
	case *map[string]float64:
		*at = getMap(v.Map(), protoreflect.Value.Float)
	case []word:
		_, err = read(v.Message(), at, false)
	case *[]volute.BroadcastResult:
		list := v.List()
		*at = make([]volute.BroadcastResult, list.Len())
		for i := range *at {
			r := &(*at)[i]
			if _, r.Err = outcome(list.Get(i).Message(), &r.PublishResult, false); r.Err != nil {
				r.PublishResult = volute.PublishResult{}
			}
		}
	default:
		err = getMessages(fd, v, at)
	}
	return err
}

// getMessages is get for words that are messages, and lists and maps of them.
func getMessages(fd protoreflect.FieldDescriptor, v protoreflect.Value, at any) (err error) {
	switch at := at.(type) {
	case **volute.ChannelOverride:
		*at, err = getOne[volute.ChannelOverride](v)
	case **volute.FilterNode:
		*at, err = getOne[volute.FilterNode](v)
	case **volute.Disconnect:
		*at, err = getOne[volute.Disconnect](v)
	case **volute.Position:
		*at, err = getOne[volute.Position](v)
	case **volute.ClientInfo:
		*at, err = getOne[volute.ClientInfo](v)
	case *[]*volute.FilterNode:
		*at, err = getList[volute.FilterNode](v)
	case *[]*volute.Publication:
		*at, err = getList[volute.Publication](v)
	case *mapEntries:
		list := v.List()
		*at = make(mapEntries, list.Len())
		for i := range *at {
			(*at)[i] = new(volute.Publication)
			if _, err := read(list.Get(i).Message(), words((*mapEntry)((*at)[i])), false); err != nil {
				return err
			}
		}
	case *[]volute.PollItem:
		*at, err = getValues[volute.PollItem](v)
	case *[]volute.ChannelState:
		*at, err = getValues[volute.ChannelState](v)
	case *[]volute.PollResult:
		*at, err = getValues[volute.PollResult](v)
	case *[]volute.NodeInfo:
		*at, err = getValues[volute.NodeInfo](v)
	case *map[string]volute.SubscribeOptions:
		*at, err = getStructs[volute.SubscribeOptions](v)
	case *map[string]volute.ClientInfo:
		*at, err = getStructs[volute.ClientInfo](v)
	case *map[string]volute.ChannelInfo:
		*at, err = getStructs[volute.ChannelInfo](v)
	default:
		panic(fmt.Sprintf("codec: no way to read %s into %T", fd.FullName(), at))
	}
	return err
}

func getOne[T any](v protoreflect.Value) (*T, error) {
	x := new(T)
	_, err := read(v.Message(), words(x), false)
	return x, err
}

func getList[T any](v protoreflect.Value) ([]*T, error) {
	list := v.List()
	xs := make([]*T, list.Len())
	for i := range xs {
		var err error
		if xs[i], err = getOne[T](list.Get(i)); err != nil {
			return nil, err
		}
	}
	return xs, nil
}

func getValues[T any](v protoreflect.Value) ([]T, error) {
	list := v.List()
	xs := make([]T, list.Len())
	for i := range xs {
		if _, err := read(list.Get(i).Message(), words(&xs[i]), false); err != nil {
			return nil, err
		}
	}
	return xs, nil
}

func getStructs[T any](v protoreflect.Value) (map[string]T, error) {
	xs := make(map[string]T, v.Map().Len())
	var err error
	v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		var x *T
		if x, err = getOne[T](v); err == nil {
			xs[k.String()] = *x
		}
		return err == nil
	})
	return xs, err
}

func getMap[T any](dict protoreflect.Map, value func(protoreflect.Value) T) map[string]T {
	xs := make(map[string]T, dict.Len())
	dict.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		xs[k.String()] = value(v)
		return true
	})
	return xs
}

func number(fd protoreflect.FieldDescriptor, v protoreflect.Value) int64 {
	if k := fd.Kind(); k == protoreflect.Uint32Kind || k == protoreflect.Uint64Kind {
		return int64(min(v.Uint(), math.MaxInt64))
	}
	return v.Int()
}

func pointers[T any](xs []T) []*T {
	ps := make([]*T, len(xs))
	for i := range xs {
		ps[i] = &xs[i]
	}
	return ps
}

func find(ws []word, name string) any {
	for i := range ws {
		if ws[i].name == name {
			return ws[i].at
		}
	}
	return nil
}

// base64Field returns the b64… sibling of a bytes field, or nil.
func base64Field(fd protoreflect.FieldDescriptor) protoreflect.FieldDescriptor {
	if fd.Kind() != protoreflect.BytesKind {
		return nil
	}
	return fd.ContainingMessage().Fields().ByName("b64" + fd.Name())
}

// rawField is the inverse of base64Field.
func rawField(fd protoreflect.FieldDescriptor) protoreflect.FieldDescriptor {
	name := fd.Name()
	if len(name) < 4 || name[:3] != "b64" {
		return nil
	}
	return fd.ContainingMessage().Fields().ByName(name[3:])
}

func decodeBase64(to *[]byte, fd protoreflect.FieldDescriptor, s string) (err error) {
	if *to, err = base64.StdEncoding.DecodeString(s); err != nil {
		return fmt.Errorf("%s is not base64: %w", fd.Name(), err)
	}
	return nil
}

// empty reports whether a word that found no field had nothing to say. Numbers
// and lists that only ever appear in their own message need no case.
func empty(at any) bool {
	switch at := at.(type) {
	case *bool:
		return !*at
	case **volute.FilterNode:
		return *at == nil
	}
	return true
}

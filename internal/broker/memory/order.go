package memory

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/volute-io/volute"
)

// order is the order of a map channel's keys: as they were first set or, if
// scored, by score and then by name.
type order struct {
	scored bool
	list   []*entry // those that are gone stay until they are many
	gone   int
}

// place is where a key stands, or where a page ends.
type place struct {
	born  uint64 // no two keys of a channel have it in common
	score int64
	name  string
}

func (o *order) compare(a, b place) int {
	if o.scored {
		return cmp.Or(cmp.Compare(a.score, b.score), strings.Compare(a.name, b.name), cmp.Compare(a.born, b.born))
	}
	return cmp.Compare(a.born, b.born)
}

// find returns the index of the first entry that is not before a place.
func (o *order) find(p place) (at int, found bool) {
	return slices.BinarySearchFunc(o.list, p, func(e *entry, p place) int { return o.compare(e.place, p) })
}

// add puts an entry in. Without scores that is always at the end.
func (o *order) add(e *entry) {
	at, _ := o.find(e.place)
	o.list = slices.Insert(o.list, at, e)
}

// drop takes an entry out.
func (o *order) drop(e *entry) {
	e.gone = true
	if o.gone++; o.gone > len(o.list)/2 {
		o.list = slices.DeleteFunc(o.list, func(e *entry) bool { return e.gone })
		o.gone = 0
	}
}

// page fills in the entries and the next cursor that a query asks for.
func (o *order) page(q volute.MapQuery, page *volute.MapPage) error {
	if q.Limit == 0 {
		return nil
	}
	at, step := 0, 1
	if o.scored && !q.Asc {
		at, step = len(o.list)-1, -1
	}
	if q.Cursor != "" {
		last, err := o.parse(q.Cursor)
		if err != nil {
			return fmt.Errorf("cursor %.100q is none of this server: %w", q.Cursor, volute.ErrBadRequest)
		}
		i, found := o.find(last)
		switch at = i; {
		case step < 0:
			at--
		case found:
			at++
		}
	}
	var last *entry
	for ; at >= 0 && at < len(o.list); at += step {
		e := o.list[at]
		switch {
		case e.gone:
			continue
		case len(page.Entries) == q.Limit:
			page.Cursor = o.cursor(last.place)
			return nil
		}
		page.Entries, last = append(page.Entries, e.Publication), e
	}
	return nil
}

// cursor writes a place as text.
func (o *order) cursor(p place) string {
	text := strconv.FormatUint(p.born, 36)
	if o.scored {
		text += ":" + strconv.FormatInt(p.score, 36) + ":" + base64.RawURLEncoding.EncodeToString([]byte(p.name))
	}
	return text
}

func (o *order) parse(cursor string) (p place, err error) {
	born, rest, scored := strings.Cut(cursor, ":")
	if scored != o.scored {
		return p, volute.ErrBadRequest
	}
	if p.born, err = strconv.ParseUint(born, 36, 64); err != nil || !scored {
		return p, err
	}
	score, name, _ := strings.Cut(rest, ":")
	if p.score, err = strconv.ParseInt(score, 36, 64); err != nil {
		return p, err
	}
	b, err := base64.RawURLEncoding.DecodeString(name)
	p.name = string(b)
	return p, err
}

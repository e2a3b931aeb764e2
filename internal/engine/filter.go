package engine

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/volute-io/volute"
)

const (
	// filterDepth bounds how deep a tags filter nests, filterSize its nodes and
	// values: it is evaluated for every publication of the channel.
	filterDepth = 64
	filterSize  = 1000
	// decimalSize bounds the digits of numbers that filters compare.
	decimalSize = 200
)

// checkFilter refuses a tags filter that is malformed, and says where.
func checkFilter(f *volute.FilterNode) error {
	size := 0
	return checkNode(f, 1, &size)
}

func checkNode(f *volute.FilterNode, depth int, size *int) error {
	if f == nil || depth > filterDepth {
		return fmt.Errorf("it nests deeper than %d levels", filterDepth)
	}
	if *size += 1 + len(f.Vals); *size > filterSize {
		return fmt.Errorf("it has more than %d nodes and values", filterSize)
	}
	children := len(f.Nodes)
	switch f.Op {
	case "":
		if children > 0 {
			return fmt.Errorf("a comparison of %q has nodes; set op to and, or, not", f.Key)
		}
		return checkLeaf(f)
	case "and", "or":
		if children == 0 {
			return fmt.Errorf("%q has no nodes", f.Op)
		}
	case "not":
		if children != 1 {
			return fmt.Errorf("\"not\" has %d nodes instead of one", children)
		}
	default:
		return fmt.Errorf("op %q is unknown; use and, or, not, or none", f.Op)
	}
	for _, node := range f.Nodes {
		if err := checkNode(node, depth+1, size); err != nil {
			return err
		}
	}
	return nil
}

func checkLeaf(f *volute.FilterNode) error {
	one, many := true, false // which of val and vals there must be
	switch f.Cmp {
	case "eq", "neq", "sw", "ew", "ct", "lt", "lte", "gt", "gte":
	case "in", "nin":
		one, many = false, true
	case "ex", "nex":
		if f.Val != "" || len(f.Vals) > 0 {
			return fmt.Errorf("cmp %q of %q takes neither val nor vals", f.Cmp, f.Key)
		}
		return nil
	default:
		return fmt.Errorf("cmp %q of %q is unknown; use eq, neq, in, nin, ex, nex, sw, ew, ct, lt, lte, gt, gte", f.Cmp, f.Key)
	}
	switch {
	case f.Key == "":
		return fmt.Errorf("cmp %q has no key", f.Cmp)
	case one != (f.Val != "") || many != (len(f.Vals) > 0):
		return fmt.Errorf("cmp %q of %q takes %s", f.Cmp, f.Key, map[bool]string{true: "vals and no val", false: "val and no vals"}[many])
	}
	return nil
}

// refilter replaces the application's filter of a subscription from now on. A map
// must be loaded again: what passes is another set of keys. So must all that a
// client was subscribed to when it connected: it is one state.
func (sub *Subscription) refilter(f *volute.FilterNode) {
	if sub.more == nil {
		sub.more = &subscriptionMore{}
	}
	filter := both(f, sub.more.wished)
	if reflect.DeepEqual(filter, sub.more.filter) {
		return
	}
	if sub.has(flagServerSide) || sub.ofMap() {
		sub.reset("its tags filter has changed")
		return
	}
	sub.more.filter = filter
	sub.more.floor = math.MaxUint64 // patches would build on what was filtered out
	sub.flags |= flagFiltered
}

// both is the filter that passes what both pass; nil passes everything.
func both(a, b *volute.FilterNode) *volute.FilterNode {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	return &volute.FilterNode{Op: "and", Nodes: []*volute.FilterNode{a, b}}
}

// passes reports whether a publication with these tags passes a filter that was
// checked. It allocates nothing.
func passes(f *volute.FilterNode, tags map[string]string) bool {
	switch f.Op {
	case "and":
		for _, node := range f.Nodes {
			if !passes(node, tags) {
				return false
			}
		}
		return true
	case "or":
		for _, node := range f.Nodes {
			if passes(node, tags) {
				return true
			}
		}
		return false
	case "not":
		return !passes(f.Nodes[0], tags)
	}
	tag, there := tags[f.Key]
	switch f.Cmp {
	case "ex":
		return there
	case "nex":
		return !there
	case "neq":
		return !there || tag != f.Val
	case "nin":
		return !there || !oneOf(f.Vals, tag)
	}
	return there && compares(f, tag)
}

// compares is passes for a comparison that a missing tag fails.
func compares(f *volute.FilterNode, tag string) bool {
	switch f.Cmp {
	case "eq":
		return tag == f.Val
	case "in":
		return oneOf(f.Vals, tag)
	case "sw":
		return strings.HasPrefix(tag, f.Val)
	case "ew":
		return strings.HasSuffix(tag, f.Val)
	case "ct":
		return strings.Contains(tag, f.Val)
	}
	order, ok := compareDecimals(tag, f.Val)
	if !ok {
		return false
	}
	switch f.Cmp {
	case "lt":
		return order < 0
	case "lte":
		return order <= 0
	case "gt":
		return order > 0
	}
	return order >= 0
}

func oneOf(list []string, s string) bool {
	for i := range list {
		if list[i] == s {
			return true
		}
	}
	return false
}

// compareDecimals compares two decimal numbers as written, exactly, whatever
// their length. It is not ok if one of them is no number.
func compareDecimals(a, b string) (order int, ok bool) {
	x, ok1 := parseDecimal(a)
	y, ok2 := parseDecimal(b)
	switch {
	case !ok1 || !ok2:
		return 0, false
	case x.negative != y.negative:
		order = 1
	case len(x.whole) != len(y.whole):
		order = len(x.whole) - len(y.whole)
	default:
		if order = strings.Compare(x.whole, y.whole); order == 0 {
			order = strings.Compare(x.fraction, y.fraction)
		}
	}
	if x.negative {
		order = -order
	}
	return order, true
}

// decimal is a number's digits without the zeros that mean nothing.
type decimal struct {
	negative        bool
	whole, fraction string
}

func parseDecimal(s string) (d decimal, ok bool) {
	if len(s) > decimalSize {
		return d, false
	}
	if s != "" && (s[0] == '-' || s[0] == '+') {
		d.negative = s[0] == '-'
		s = s[1:]
	}
	dot := strings.IndexByte(s, '.')
	if dot < 0 {
		d.whole = s
	} else if d.whole, d.fraction = s[:dot], s[dot+1:]; d.fraction == "" {
		return d, false
	}
	if d.whole == "" || !allDigits(d.whole) || !allDigits(d.fraction) {
		return d, false
	}
	d.whole, d.fraction = strings.TrimLeft(d.whole, "0"), strings.TrimRight(d.fraction, "0")
	if d.whole == "" && d.fraction == "" {
		d.negative = false
	}
	return d, true
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

package engine

// subTable is a session's subscriptions by channel. Most sessions have a few:
// those are searched one by one, which is smaller and faster than a map.
type subTable struct {
	few  []*Subscription
	many map[string]*Subscription
}

// fewSubs is the number of subscriptions above which a map is kept.
const fewSubs = 8

func (t *subTable) get(channel string) *Subscription {
	if t.many != nil {
		return t.many[channel]
	}
	for _, sub := range t.few {
		if sub.name == channel {
			return sub
		}
	}
	return nil
}

func (t *subTable) add(sub *Subscription) {
	if t.many == nil && len(t.few) < fewSubs {
		t.few = append(t.few, sub)
		return
	}
	if t.many == nil {
		t.many = make(map[string]*Subscription, 2*fewSubs)
		for _, s := range t.few {
			t.many[s.name] = s
		}
		t.few = nil
	}
	t.many[sub.name] = sub
}

// remove takes sub out and reports whether it was in.
func (t *subTable) remove(sub *Subscription) bool {
	if t.many != nil {
		if t.many[sub.name] != sub {
			return false
		}
		delete(t.many, sub.name)
		return true
	}
	for i, s := range t.few {
		if s == sub {
			t.few[i] = t.few[len(t.few)-1]
			t.few[len(t.few)-1] = nil
			t.few = t.few[:len(t.few)-1]
			return true
		}
	}
	return false
}

func (t *subTable) len() int { return len(t.few) + len(t.many) }

// each calls f for every subscription; f may remove any of them.
func (t *subTable) each(f func(*Subscription)) {
	all := append([]*Subscription(nil), t.few...)
	for _, sub := range t.many {
		all = append(all, sub)
	}
	for _, sub := range all {
		f(sub)
	}
}

package engine

// leave tells the world of subscriptions of this session that have ended: here if
// that is immediate, else in the background, one after the other, so that a client
// that comes back at once is not taken for gone. On the loop.
func (s *Session) leave(gone ...departure) {
	n := s.node()
	if n.immediate || len(gone) == 0 {
		n.depart(gone)
		return
	}
	more := s.rare()
	before, done := more.leaving, make(chan struct{})
	more.leaving = done
	n.work.Go(func() {
		defer close(done)
		if before != nil {
			<-before
		}
		n.tellDeparted(gone)
	})
}

// left is closed when the ends of earlier subscriptions have been told; nil if
// they have. On the loop.
func (s *Session) left() <-chan struct{} {
	if s.more == nil || s.more.leaving == nil {
		return nil
	}
	select {
	case <-s.more.leaving:
		s.more.leaving = nil
		return nil
	default:
		return s.more.leaving
	}
}

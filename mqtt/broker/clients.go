package broker

import (
	"sync"

	"cairnmq/mqtt/packet"
)

// clients are the open sessions by client id. claim serialises everything
// that opens or ends the session of one id.
type clients struct {
	mu     sync.Mutex
	open   map[string]*session
	claims map[string]*claim
	closed bool // the broker is ending
}

type claim struct {
	mu      sync.Mutex
	waiters int
}

func newClients() *clients {
	return &clients{open: make(map[string]*session), claims: make(map[string]*claim)}
}

// claim waits until nobody else opens or ends the session of id.
func (t *clients) claim(id string) (release func()) {
	t.mu.Lock()
	c := t.claims[id]
	if c == nil {
		c = &claim{}
		t.claims[id] = c
	}
	c.waiters++
	t.mu.Unlock()
	c.mu.Lock()
	return func() {
		c.mu.Unlock()
		t.mu.Lock()
		defer t.mu.Unlock()
		if c.waiters--; c.waiters == 0 {
			delete(t.claims, id)
		}
	}
}

func (t *clients) get(id string) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[id]
}

// room reports an error if there is none for another session.
func (t *clients) room(limit int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.roomLocked(limit)
}

func (t *clients) roomLocked(limit int) error {
	switch {
	case t.closed:
		return &packet.Error{Code: packet.ServerUnavailable, Reason: "the server is shutting down"}
	case len(t.open) >= limit:
		return &packet.Error{Code: packet.ServerBusy, Reason: "the limit of connections is reached"}
	}
	return nil
}

func (t *clients) add(s *session, limit int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.roomLocked(limit); err != nil {
		return err
	}
	t.open[s.id] = s
	s.b.stats.connected(len(t.open))
	return nil
}

// remove takes s out, unless another session has taken its place.
func (t *clients) remove(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[s.id] == s {
		delete(t.open, s.id)
	}
}

func (t *clients) all() []*session { return t.appendTo(nil) }

// appendTo is all for those who look often.
func (t *clients) appendTo(list []*session) []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.open {
		list = append(list, s)
	}
	return list
}

// shut lets nobody in any more and returns who is there.
func (t *clients) shut() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return t.allLocked()
}

func (t *clients) allLocked() []*session {
	list := make([]*session, 0, len(t.open))
	for _, s := range t.open {
		list = append(list, s)
	}
	return list
}

package broker

import (
	"slices"
	"sync"
	"time"

	"cairnmq/mqtt/packet"
)

// receipt is the memory that packets beyond a usual read buffer may take
// while they are received, on all connections together. Who finds none left
// is not read from until there is: TCP holds the client back. Shares are
// handed out in the order of asking, and for the whole packet, so that two
// that are half received never wait for one another.
type receipt struct {
	mu      sync.Mutex    // for a few instructions; nobody waits under it
	stall   time.Duration // silence after which a holder makes way, if others wait
	free    int
	holders map[*session]int
	queue   []*receiptWaiter
}

type receiptWaiter struct {
	s     *session
	n     int
	ready chan struct{}
}

// stallTime is how long a client that holds a share may send nothing while
// others wait for one.
const stallTime = 10 * time.Second

func newReceipt(size int, stall time.Duration) *receipt {
	return &receipt{free: size, stall: stall, holders: make(map[*session]int)}
}

// take waits for n bytes. It reports false if the session ended meanwhile.
func (m *receipt) take(s *session, n int) bool {
	w := &receiptWaiter{s, n, make(chan struct{})}
	m.mu.Lock()
	m.queue = append(m.queue, w)
	m.grantLocked()
	m.mu.Unlock()
	tick := time.NewTicker(roomPoll)
	defer tick.Stop()
	for {
		select {
		case <-w.ready:
			return true
		case <-tick.C:
			m.hurry()
			if s.waiting() != nil {
				m.give(s)
				return false
			}
		}
	}
}

// give takes back what s holds, or its place in the queue.
func (m *receipt) give(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += m.holders[s]
	delete(m.holders, s)
	m.queue = slices.DeleteFunc(m.queue, func(w *receiptWaiter) bool { return w.s == s })
	m.grantLocked()
}

func (m *receipt) grantLocked() {
	for len(m.queue) > 0 && m.queue[0].n <= m.free {
		w := m.queue[0]
		m.queue = m.queue[1:]
		m.free -= w.n
		m.holders[w.s] = w.n
		close(w.ready)
	}
}

// hurry ends the connections of holders that have gone silent.
func (m *receipt) hurry() {
	var silent []*session
	m.mu.Lock()
	for s := range m.holders {
		if s.c.silence() > m.stall {
			silent = append(silent, s)
		}
	}
	m.mu.Unlock()
	for _, s := range silent {
		s.end(closeReason{code: packet.QuotaExceeded, text: "stopped in the middle of a large packet while others wait for memory"})
	}
}

// awaitReceipt is called before more of a packet is read. It reports false if
// the connection is to end.
func (s *session) awaitReceipt() bool {
	c := s.c
	if c.shared || c.r > 0 || c.w < readBufSize || c.need <= c.w {
		return true
	}
	c.shared = s.b.receipt.take(s, c.need)
	s.c.touch()
	return c.shared
}

// received gives back what a large packet took, once it is handled.
func (s *session) received() {
	if s.c.shared {
		s.c.idle()
		s.c.shared = false
		s.b.receipt.give(s)
	}
}

package session

// maxID is the number of packet identifiers: 1 to 65,535, zero is none.
const maxID = 65535

// Pos is where the log has the message; this package only carries it.
type Pos = uint64

// Tag says where a message comes from, if not from a subscription of the
// client alone; this package only carries it.
type Tag = uint16

// Entry is one outbound QoS 1 or 2 message.
type Entry struct {
	Pos      Pos
	QoS      uint8
	Retained bool // sent with the retain flag because of a subscription
	Received bool // PUBREC has come: the PUBREL is what is repeated
	Tag      Tag
	// Unlogged: the owner has promised the message to this client and has not
	// yet written that down.
	Unlogged bool
	sent     bool // on this connection
	done     bool
}

// Window is the outbound messages that are not yet acknowledged, in the order
// in which they were first sent. An identifier follows from the number of the
// message, so it is free again only after all 65,535 have been around, and
// finding an entry is arithmetic.
type Window struct {
	ring []Entry // power of two long; index is seq & (len-1)
	head uint64  // seq of the oldest entry kept
	tail uint64  // seq of the next
	// resendAt is the first entry that may have to be sent again.
	resendAt uint64
	limit    int // the client's Receive Maximum
	inUse    int // sent on this connection and not acknowledged
	open     int // not acknowledged
}

func idOf(seq uint64) uint16 { return uint16(seq%maxID) + 1 }

// SetLimit sets how many messages may be in flight: the lower of the client's
// Receive Maximum and the server's own limit [MQTT-3.3.4-9].
func (w *Window) SetLimit(n int) { w.limit = min(n, maxID) }

// Free is how many more may be sent now. It is zero as well when the oldest
// unacknowledged identifier would be used again [MQTT-2.2.1-4].
func (w *Window) Free() int {
	return max(0, min(w.limit-w.inUse, maxID-int(w.tail-w.head)))
}

// Len is the number of unacknowledged messages.
func (w *Window) Len() int { return w.open }

// Add gives the next free identifier to a message that is about to be sent.
// The caller has looked at Free.
func (w *Window) Add(pos Pos, qos uint8, retained bool) uint16 {
	id := idOf(w.tail)
	w.push(Entry{Pos: pos, QoS: qos, Retained: retained, sent: true})
	w.inUse++
	w.open++ // [MQTT-4.3.2-3], [MQTT-4.3.3-3]
	return id
}

// AddTagged is Add for a message that is not yet written down: Logged ends
// that.
func (w *Window) AddTagged(pos Pos, qos uint8, tag Tag) uint16 {
	id := w.Add(pos, qos, false)
	e := w.at(w.tail - 1)
	e.Tag, e.Unlogged = tag, true
	return id
}

// Logged says that the message is written down.
func (w *Window) Logged(id uint16) {
	if e := w.find(id); e != nil {
		e.Unlogged = false
	}
}

func (w *Window) push(e Entry) {
	if int(w.tail-w.head) == len(w.ring) {
		w.grow()
	}
	w.ring[w.tail&uint64(len(w.ring)-1)] = e
	w.tail++
}

func (w *Window) grow() {
	ring := make([]Entry, max(16, 2*len(w.ring)))
	for seq := w.head; seq < w.tail; seq++ {
		ring[seq&uint64(len(ring)-1)] = *w.at(seq)
	}
	w.ring = ring
}

func (w *Window) at(seq uint64) *Entry { return &w.ring[seq&uint64(len(w.ring)-1)] }

// find returns the unacknowledged entry of an identifier.
func (w *Window) find(id uint16) *Entry {
	if id == 0 || w.head == w.tail {
		return nil
	}
	ahead := (uint64(id-1) + maxID - w.head%maxID) % maxID
	if ahead >= w.tail-w.head {
		return nil
	}
	if e := w.at(w.head + ahead); !e.done {
		return e
	}
	return nil
}

func (w *Window) finish(e *Entry) {
	e.done = true
	w.open--
	if e.sent {
		w.inUse--
	}
	for w.head < w.tail && w.at(w.head).done {
		w.head++
	}
}

// Acknowledged handles a PUBACK, and a PUBREC of 0x80 or more
// [MQTT-4.4.0-2]. It reports false for an identifier that is not in flight
// with that QoS.
func (w *Window) Acknowledged(id uint16, qos uint8) bool {
	e := w.find(id)
	if e == nil || e.QoS != qos || e.Received {
		return false
	}
	w.finish(e)
	return true
}

// Received handles a PUBREC below 0x80. A repeated one is answered again. It
// reports false for an identifier that is not in flight with QoS 2.
func (w *Window) Received(id uint16) (first, ok bool) {
	e := w.find(id)
	if e == nil || e.QoS != 2 {
		return false, false
	}
	first = !e.Received
	e.Received = true // from here on no PUBLISH again [MQTT-4.3.3-6]
	return first, true
}

// Completed handles a PUBCOMP. It reports false for an identifier whose
// PUBREC has not come.
func (w *Window) Completed(id uint16) bool {
	e := w.find(id)
	if e == nil || e.QoS != 2 || !e.Received {
		return false
	}
	w.finish(e)
	return true
}

// Drop forgets a message that cannot be sent any more.
func (w *Window) Drop(id uint16) {
	if e := w.find(id); e != nil {
		w.finish(e)
	}
}

// Each calls fn for every unacknowledged message, oldest first.
func (w *Window) Each(fn func(id uint16, e Entry)) {
	for seq := w.head; seq < w.tail; seq++ {
		if e := w.at(seq); !e.done {
			fn(idOf(seq), *e)
		}
	}
}

// Restore puts back a message of an earlier connection. They come in the
// order of Each.
func (w *Window) Restore(id uint16, e Entry) {
	if id == 0 {
		return
	}
	if w.head == w.tail {
		w.head = uint64(id - 1)
		w.tail = w.head
		w.resendAt = w.head
	}
	for skip := (uint64(id-1) + maxID - w.tail%maxID) % maxID; skip > 0; skip-- {
		if w.tail-w.head >= maxID-1 {
			return // not an order that Each has given
		}
		w.push(Entry{done: true})
	}
	e.sent, e.done = false, false
	w.push(e)
	w.open++
}

// skipSent moves the mark of what is sent again over what needs no sending.
func (w *Window) skipSent() {
	w.resendAt = max(w.resendAt, w.head)
	for w.resendAt < w.tail && (w.at(w.resendAt).done || w.at(w.resendAt).sent) {
		w.resendAt++
	}
}

// Unsent reports whether messages of an earlier connection are not yet sent
// again on this one.
func (w *Window) Unsent() bool {
	w.skipSent()
	return w.resendAt < w.tail
}

// CanResend reports whether the next of them may be sent now. A PUBREL needs
// no room: it is not a PUBLISH [MQTT-4.9.0-3].
func (w *Window) CanResend() bool {
	return w.Unsent() && (w.inUse < w.limit || w.at(w.resendAt).Received)
}

// NextResend takes the next of them, oldest first; the caller has looked at
// CanResend. It holds its place in the window until it is acknowledged
// [MQTT-4.9.0-2].
func (w *Window) NextResend() (id uint16, e Entry) {
	x := w.at(w.resendAt)
	x.sent = true
	w.inUse++
	id = idOf(w.resendAt)
	w.resendAt++
	return id, *x
}

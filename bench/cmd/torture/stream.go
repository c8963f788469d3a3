//go:build linux

package main

import (
	"bytes"
	"fmt"
	"math/bits"
	"strings"
	"sync"
)

// Topics of a publisher: two plain ones, one whose messages expire, and one
// with QoS 2 alone that is compared with the loss ledger.
const (
	topicExpiring = 2
	topicExact    = 3
	topicCount    = 4
)

func topicName(publisher, topic int) string {
	if topic == topicExact {
		return fmt.Sprintf("x/%d", publisher)
	}
	return fmt.Sprintf("t/%d/%d", publisher, topic)
}

// label names a message.
type label struct {
	publisher, topic int
	qos              byte
	seq              int
}

func (l label) String() string {
	return fmt.Sprintf("message %d of %s at QoS %d", l.seq, topicName(l.publisher, l.topic), l.qos)
}

// payload is what a message carries: its label, and bytes that follow from it,
// a few or many.
func (l label) payload() []byte {
	h := mix(uint64(l.publisher)<<48 ^ uint64(l.topic)<<40 ^ uint64(l.qos)<<32 ^ uint64(l.seq))
	size := 16 + int(h%180)
	switch {
	case h>>32%400 == 0:
		size = 18<<10 + int(h%8000)
	case h>>32%60 == 1:
		size = 2000 + int(h%6000)
	}
	b := fmt.Appendf(nil, "%d %d %d %d|", l.publisher, l.topic, l.qos, l.seq)
	for n := len(b) + size; len(b) < n; h = mix(h) {
		b = append(b, byte(h), byte(h>>8), byte(h>>16), byte(h>>24))
	}
	return b
}

// mix scatters bits.
func mix(x uint64) uint64 {
	hi, lo := bits.Mul64(x+0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9)
	return hi ^ lo
}

func parseLabel(payload []byte) (l label, err error) {
	head, _, ok := bytes.Cut(payload[:min(len(payload), 60)], []byte{'|'})
	if !ok {
		return l, fmt.Errorf("payload %.60q is nobody's", payload)
	}
	if _, err = fmt.Sscan(string(head), &l.publisher, &l.topic, &l.qos, &l.seq); err != nil {
		return l, fmt.Errorf("payload %.60q is nobody's", payload)
	}
	return l, nil
}

// stream is the messages of one topic and QoS of one publisher.
type stream struct {
	label // seq is not used
	mu    sync.Mutex
	sent  int
	acked []bool
	// refused are those to which the broker said no.
	refused map[int]bool
}

func (s *stream) next() label {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.label
	l.seq = s.sent
	s.sent++
	s.acked = append(s.acked, false)
	return l
}

func (s *stream) acknowledge(seq int, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acked[seq] = !refused; refused {
		s.refused[seq] = true
	}
}

func (s *stream) state(seq int) (sent, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return seq >= 0 && seq < s.sent, s.refused[seq]
}

// book is all streams of a campaign.
type book struct {
	publishers int
	streams    []*stream
}

func newBook(publishers int) *book {
	b := &book{publishers: publishers}
	for p := range publishers {
		for t := range topicCount {
			for q := range byte(3) {
				b.streams = append(b.streams, &stream{label: label{publisher: p, topic: t, qos: q}, refused: map[int]bool{}})
			}
		}
	}
	return b
}

func (b *book) stream(l label) *stream {
	if l.publisher < 0 || l.publisher >= b.publishers || l.topic < 0 || l.topic >= topicCount || l.qos > 2 {
		return nil
	}
	return b.streams[(l.publisher*topicCount+l.topic)*3+int(l.qos)]
}

// view is what a subscriber has seen of a stream.
type view struct {
	seen     []bool
	first    int // the first one that came
	last     int // highest seen, -1: none
	count    int
	repeated int
}

// judge is the accounting of one subscriber.
type judge struct {
	book   *book
	filter string
	qos    byte
	// gapless: every message behind the first one must come, because the
	// subscriber is always there.
	gapless bool
	// late: it may begin in the middle of a stream, so the publisher may send
	// again what came before that.
	late bool
	// lossy: the budget may have taken a message and left the one that the
	// publisher has sent again.
	lossy bool
	views map[*stream]*view
}

func newJudge(b *book, filter string, qos byte) *judge {
	return &judge{book: b, filter: filter, qos: qos, views: map[*stream]*view{}}
}

// deliver takes a message that was delivered, not counting repetitions of a
// QoS 2 PUBLISH that the receiver knows by their packet identifier.
func (j *judge) deliver(topic string, payload []byte, qos byte) error {
	l, err := parseLabel(payload)
	if err != nil {
		return err
	}
	s := j.book.stream(l)
	if s == nil {
		return fmt.Errorf("%v was never sent", l)
	}
	sent, refused := s.state(l.seq)
	switch {
	case !sent:
		return fmt.Errorf("%v was never sent", l)
	case refused:
		return fmt.Errorf("%v was refused and is delivered all the same", l)
	case topic != topicName(l.publisher, l.topic) || !bytes.Equal(payload, l.payload()):
		return fmt.Errorf("%v came damaged on %q", l, topic)
	case !matches(j.filter, topic):
		return fmt.Errorf("%v is not for %s", l, j.filter)
	case qos != min(l.qos, j.qos):
		return fmt.Errorf("%v came at QoS %d", l, qos)
	}
	return j.see(s, l, qos)
}

func (j *judge) see(s *stream, l label, qos byte) error {
	v := j.views[s]
	if v == nil {
		v = &view{first: l.seq, last: -1}
		j.views[s] = v
	}
	for len(v.seen) <= l.seq {
		v.seen = append(v.seen, false)
	}
	if v.seen[l.seq] {
		// Once means once, but for those that the publisher sends again.
		if l.qos != 1 && qos != 1 {
			return fmt.Errorf("%v came twice", l)
		}
		v.repeated++
		return nil
	}
	if l.qos == 1 && (j.late && l.seq < v.first || j.lossy && l.seq < v.last) {
		v.repeated++
		return nil
	}
	if l.seq < v.last {
		return fmt.Errorf("%v came behind %d", l, v.last)
	}
	if j.gapless && qos > 0 && l.topic != topicExpiring && v.last >= 0 {
		for n := v.last + 1; n < l.seq; n++ {
			if _, refused := s.state(n); !refused {
				return fmt.Errorf("%v came behind %d: what is between is missing", l, v.last)
			}
		}
	}
	v.seen[l.seq], v.last = true, l.seq
	v.count++
	return nil
}

// missing counts what was acknowledged to its publisher and has not come, and
// names one of them.
func (j *judge) missing() (n int, example label) {
	for _, s := range j.book.streams {
		if s.qos == 0 || s.topic == topicExpiring || !matches(j.filter, topicName(s.publisher, s.topic)) {
			continue
		}
		v := j.views[s]
		s.mu.Lock()
		for seq, acked := range s.acked {
			if acked && (v == nil || seq >= len(v.seen) || !v.seen[seq]) {
				if n == 0 {
					example = s.label
					example.seq = seq
				}
				n++
			}
		}
		s.mu.Unlock()
	}
	return n, example
}

func (j *judge) counts() (delivered, repeated int) {
	for _, v := range j.views {
		delivered += v.count
		repeated += v.repeated
	}
	return delivered, repeated
}

// matches is MQTT's matching of a filter and a topic.
func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i >= len(t) || level != "+" && level != t[i] {
			return false
		}
	}
	return len(f) == len(t)
}

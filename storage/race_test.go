package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairnmq/segment"
	"cairnmq/segment/segmenttest"
)

// orderSink checks that every publisher's messages come once and in order,
// and that the view is alone.
type orderSink struct {
	t      *testing.T
	busy   atomic.Bool
	last   map[string]uint64
	pos    Pos
	routed atomic.Int64
}

func (s *orderSink) Route(rec *Record, m *MessageView, _ *Topic) {
	if s.busy.Swap(true) {
		s.t.Error("two goroutines route")
	}
	defer s.busy.Store(false)
	if rec.Pos <= s.pos {
		s.t.Errorf("position %d behind %d", rec.Pos, s.pos)
	}
	s.pos = rec.Pos
	n := binary.BigEndian.Uint64(m.Payload)
	if last := s.last[string(m.Publisher)]; n != last+1 {
		s.t.Errorf("%s: %d behind %d", m.Publisher, n, last)
	}
	s.last[string(m.Publisher)] = n
	s.routed.Add(1)
}

func (s *orderSink) Batch() Flusher { return s }
func (s *orderSink) Flush()         {}

// idle is a session without a state of its own.
type idle struct {
	l  *Log
	id string
	mu sync.Mutex
}

func (s *idle) Snapshot(bool) (*SessionRow, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &SessionRow{ID: s.id, Expiry: Never, Online: true, AsOf: s.l.Head(), Next: s.l.Routed(), Subs: []Sub{{Filter: "#"}}}, true
}

func TestEverythingAtOnce(t *testing.T) {
	dir := t.TempDir()
	always := ClassAlways
	o := Options{
		FS: segmenttest.New(dir), SegmentSize: 64 << 10, MaxBytes: 3 << 20, SyncInterval: 5 * time.Millisecond,
		CheckpointBytes: 64 << 10, CheckpointInterval: 20 * time.Millisecond, SessionClass: &always,
		ClassRules: []ClassRule{{"always/#", ClassAlways}, {"os/#", ClassOS}},
		Retention:  []RetentionRule{{Filter: "os/#", MaxBytes: 512 << 10}},
	}
	l := openTest(t, dir, o)
	sink := &orderSink{t: t, last: map[string]uint64{}}
	l.SetSink(sink)
	if err := l.StoreSession(&SessionRow{ID: "away", Expiry: Never, Next: l.Head(), Subs: []Sub{{Filter: "#", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	target := int64(15_000)
	if long {
		target = 1_000_000
	}
	enough := make(chan struct{}) // closed when that many messages are appended
	var stop atomic.Bool
	var appended atomic.Int64
	var writers, others sync.WaitGroup
	for g := range 6 {
		writers.Go(func() {
			topic := []byte(fmt.Sprintf("%s/%d", classNames[g%3], g))
			id := fmt.Sprintf("w%d", g)
			rng := rand.New(rand.NewPCG(uint64(g), 2))
			n := uint64(0)
			for !stop.Load() {
				msgs := make([]Message, 1+rng.IntN(20))
				for i := range msgs {
					n++
					msgs[i] = Message{Publisher: id, Topic: topic, Payload: binary.BigEndian.AppendUint64(nil, n), Retain: i == 0}
					msgs[i].Payload = append(msgs[i].Payload, make([]byte, rng.IntN(600))...)
				}
				for len(msgs) > 0 {
					end, class, err := l.AppendMessages(msgs)
					if err != nil {
						t.Error(err)
						return
					}
					if err := l.Wait(end, class); err != nil {
						t.Error(err)
						return
					}
					if class == ClassAlways && (l.syncedTo() < end || l.Committed() < end) {
						t.Errorf("acknowledged %d, synced %d, committed %d", end, l.syncedTo(), l.Committed())
					}
					l.Advance()
					for len(msgs) > 0 && msgs[0].Err == nil {
						msgs = msgs[1:]
						if appended.Add(1) == target {
							close(enough)
						}
					}
					if len(msgs) > 0 && !errors.Is(msgs[0].Err, ErrFull) {
						t.Error(msgs[0].Err)
						return
					}
					if len(msgs) > 0 {
						if err := l.WaitRoom(t.Context()); err != nil {
							t.Error(err)
							return
						}
					}
				}
			}
		})
	}
	// Paces, so that the loops below do not keep the writers from the locks.
	often, seldom := time.Tick(time.Millisecond), time.Tick(3*time.Millisecond)
	loop := func(fn func(i int)) {
		others.Go(func() {
			for i := 0; !stop.Load(); i++ {
				fn(i)
			}
		})
	}
	for range 2 { // readers scan from the oldest on, and never see too much
		loop(func(int) {
			r := l.NewReader()
			defer r.Release()
			last := Pos(0)
			for pos := Pos(0); !stop.Load(); {
				rec, next, err := r.Next(pos)
				if err == ErrEnd {
					return
				}
				var d *segment.Damage
				if errors.As(err, &d) && pos < l.Oldest() {
					pos = d.To // dropped while it was being mapped
					continue
				}
				if err != nil {
					t.Errorf("read at %d: %v", pos, err)
					return
				}
				if rec.Pos < last || rec.Pos >= l.Committed() {
					t.Errorf("read %d behind %d, committed %d", rec.Pos, last, l.Committed())
				}
				last, pos = next, next
				if rec.Kind == KindMessage {
					if _, err := DecodeMessage(&rec); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	loop(func(i int) {
		l.WithView(func(pos Pos) {
			if pos > l.Committed() {
				t.Errorf("view at %d, committed %d", pos, l.Committed())
			}
		})
		<-often
	})
	loop(func(i int) {
		for _, f := range []string{"#", "os/#", "always/2"} {
			if _, err := l.Retained(f, "", l.Head(), 3); err != nil {
				t.Error(err)
			}
		}
		<-often
	})
	loop(func(i int) {
		s := &idle{l: l, id: fmt.Sprintf("s%d", i%7)}
		l.AttachSession(s.id, s)
		_, end, err := l.AppendEvents(EventOpened(s.id, 5, true, Never, nil, l.Head()))
		if err == nil {
			err = l.Wait(end, ClassAlways)
		}
		if err == nil && i%2 == 0 {
			err = l.StoreSession(&SessionRow{ID: s.id, Expiry: 1, AsOf: l.Head()})
		} else if err == nil {
			err = l.DeleteSession(&SessionRow{ID: s.id})
			if _, ok, _ := l.LoadSession(s.id); ok {
				t.Errorf("session %s is there although it was deleted", s.id)
			}
		}
		if err != nil && !errors.Is(err, ErrFull) {
			t.Error(err)
		}
		l.DetachSession(s.id)
	})
	loop(func(i int) {
		if err := l.Checkpoint(); err != nil {
			t.Error(err)
		}
		if _, err := l.Usage(); err != nil {
			t.Error(err)
		}
		<-seldom
	})
	select {
	case <-enough:
	case <-time.After(5 * time.Minute):
		panic("deadlock")
	}
	stop.Store(true)
	finished := make(chan struct{})
	go func() { writers.Wait(); others.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-time.After(time.Minute):
		panic("deadlock")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if sink.routed.Load() != appended.Load() {
		t.Fatalf("%d messages routed, %d appended", sink.routed.Load(), appended.Load())
	}
	t.Logf("%d messages, %d syncs, %d lost to the one who was away", appended.Load(), l.stats.Syncs.Load(), l.stats.Losses.Load())
	l = openTest(t, dir, o)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// syncedTo is what the syncer has promised.
func (l *Log) syncedTo() Pos {
	l.syncer.mu.Lock()
	defer l.syncer.mu.Unlock()
	return l.syncer.synced
}

package storage

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"cairnmq/segment"
	"cairnmq/segment/segmenttest"
	"cairnmq/storage/storagetest"
)

// A cursor is one more than the position of the last message handed out, so it
// lies inside that record. Found by killing the broker under load: what a
// client came back to began with bytes in the middle of a record, which were
// taken for damage, and written into the ledger as such.
func TestReadingGoesOnBehindTheRecordOfACursor(t *testing.T) {
	dir := t.TempDir()
	o := Options{SegmentSize: 64 << 10}
	l := openTest(t, dir, o)
	for i := range 600 { // more than one segment
		publish(t, l, "a", fmt.Sprintf("%200d", i), false)
	}
	l.settle()
	var at []Pos
	check := func() {
		t.Helper()
		r := l.NewReader()
		defer r.Release()
		for i, pos := range at[:len(at)-1] {
			rec, _, err := r.Next(pos + 1)
			if err != nil || rec.Pos != at[i+1] || payloadOf(t, &rec) != fmt.Sprintf("%200d", i+1) {
				t.Fatalf("behind message %d at %d: record at %d, %v", i, pos, rec.Pos, err)
			}
		}
	}
	r := l.NewReader()
	for pos := Pos(0); ; {
		rec, next, err := r.Next(pos)
		if err == ErrEnd {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if pos = next; rec.Kind == KindMessage {
			at = append(at, rec.Pos)
		}
	}
	r.Release()
	check()
	if err := l.stop(); err != nil { // as if killed: the same records, recovered
		t.Fatal(err)
	}
	l = openTest(t, dir, o)
	defer func() { _ = l.Close() }()
	check()
}

// payloadOf is the payload of a message.
func payloadOf(t *testing.T, rec *Record) string {
	t.Helper()
	m, err := DecodeMessage(rec)
	if err != nil {
		t.Fatal(err)
	}
	return string(m.Payload)
}

// A row is taken while something of its session is being appended, and so
// reflects events that lie behind its AsOf. Replaying them must not bring back
// what the row is done with, nor double what it has. Found by killing the
// broker under load: a QoS 2 message came twice, because its delivery was
// applied to a row that had it, and one acknowledgement takes away one entry.
func TestReplayingWhatARowAlreadyReflects(t *testing.T) {
	in := func(id uint16, received bool) Inflight {
		return Inflight{ID: id, Pos: 1000 + Pos(id)*8, QoS: 2, Received: received}
	}
	apply := func(r *SessionRow, at Pos, e Event) {
		r.apply(&Record{Pos: at, Head: segment.Head{Kind: e.Kind}, Body: e.Body})
	}
	for _, tc := range []struct {
		name   string
		row    SessionRow
		events []Event
		want   []Inflight
	}{
		{"in flight already", SessionRow{Inflight: []Inflight{in(11, false), in(12, true), in(13, false)}},
			[]Event{EventDelivered(nil, "s", 0, []Inflight{in(11, false), in(12, false)}), EventDelivered(nil, "s", 0, []Inflight{in(13, false)})},
			[]Inflight{in(11, false), in(12, true), in(13, false)}},
		{"done already, so it may come again, and what is new", SessionRow{Inflight: []Inflight{in(13, false)}},
			[]Event{EventDelivered(nil, "s", 0, []Inflight{in(11, false), in(12, false)}), EventAcked(nil, "s", []Acked{{ID: 11}}),
				EventDelivered(nil, "s", 0, []Inflight{in(13, false)}), EventDelivered(nil, "s", 0, []Inflight{in(14, false)}), EventAcked(nil, "s", []Acked{{ID: 14}})},
			[]Inflight{in(11, true), in(12, false), in(13, false), in(14, true)}},
		{"acknowledged behind the row", SessionRow{Inflight: []Inflight{in(11, false), in(12, false)}},
			[]Event{EventDelivered(nil, "s", 0, []Inflight{in(11, false)}), EventDelivered(nil, "s", 0, []Inflight{in(12, false)}), EventAcked(nil, "s", []Acked{{11, true}, {12, true}})},
			nil},
		{"around the end of the identifiers", SessionRow{Inflight: []Inflight{in(65535, false)}},
			[]Event{EventDelivered(nil, "s", 0, []Inflight{in(65535, false)}), EventDelivered(nil, "s", 0, []Inflight{in(1, false)})},
			[]Inflight{in(65535, false), in(1, false)}},
		{"a new connection counts from what is in flight", SessionRow{Inflight: []Inflight{in(7, true)}},
			[]Event{EventOpened("s", 5, false, Never, nil, 0), EventDelivered(nil, "s", 0, []Inflight{in(8, false)})},
			[]Inflight{in(7, true), in(8, false)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			row, ok := decodeRow("s", tc.row.encode(nil))
			if !ok {
				t.Fatal("the row does not come back from the index")
			}
			for i, e := range tc.events {
				apply(row, Pos(i+1), e)
			}
			if !slices.Equal(row.Inflight, tc.want) {
				t.Errorf("in flight %+v\nwant %+v", row.Inflight, tc.want)
			}
		})
	}
}

// RouteUpTo brings the view behind a record that a sync holds back.
func TestRouteUpToWaitsForTheSync(t *testing.T) {
	always := ClassAlways
	disk := storagetest.New()
	var sync atomic.Bool // a sync may begin
	begun, goOn := make(chan struct{}), make(chan struct{})
	disk.SetStep(func(op, _ string) {
		if op == string(segmenttest.Flush) && sync.CompareAndSwap(true, false) {
			close(begun)
			<-goOn
		}
	})
	l := openTest(t, storagetest.Dir, Options{FS: disk.Log, IndexFS: disk.IndexFS(), SegmentSize: 64 << 10, ClassRules: []ClassRule{{"slow", always}}})
	defer func() { _ = l.Close() }()
	sync.Store(true)
	first := []Message{{Publisher: "p", Topic: []byte("slow"), Payload: []byte("x")}}
	if _, _, err := l.AppendMessages(first); err != nil || first[0].Err != nil {
		t.Fatal(err, first[0].Err)
	}
	synced := make(chan error)
	go func() { synced <- l.Sync() }()
	<-begun
	publish(t, l, "quick", "y", false) // acknowledged, and held back behind the other
	head := l.Head()
	if l.Routed() >= head {
		t.Fatal("the record behind one that waits for its sync is routed")
	}
	routed := make(chan error)
	go func() { routed <- l.RouteUpTo(head) }()
	close(goOn)
	if err := <-routed; err != nil || l.Routed() < head {
		t.Fatalf("routed up to %d of %d, %v", l.Routed(), head, err)
	}
	if err := <-synced; err != nil {
		t.Fatal(err)
	}
}

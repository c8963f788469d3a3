package storage

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairnmq/segment"
)

// Golden segments pin each version of the format: files that were written by
// a released program are read by every later one, to the same listing. A file
// that exists is never written again; a new version gets a new directory.
var update = flag.Bool("update", false, "write golden files that do not exist")

const goldenDir = "../testdata/segments/v1"

// goldenSegment builds a segment out of the same bytes every time.
func goldenSegment(t *testing.T, dir string, base Pos, fill func(add func(h segment.Head, body []byte)), sealed bool) {
	t.Helper()
	var id [16]byte
	copy(id[:], "golden-log-id-01")
	wall := time.Date(2024, 5, 17, 12, 0, 0, 0, time.UTC).UnixNano()
	seg, err := segment.Create(segment.OS{}, dir, segment.FileHead{LogID: id, Base: base, Size: 16 << 10, Salt: 0xC0FFEE, Boot: 3, Created: wall})
	if err != nil {
		t.Fatal(err)
	}
	set := segment.NewSet(segment.OS{}, 1)
	set.Add(seg)
	var ta tally
	n := 0
	fill(func(h segment.Head, body []byte) {
		h.Wall, h.Boot, h.Mono = wall+int64(n)*1e9, 3, int64(n)*1000
		copy(seg.Reserve(len(body)), body)
		pos := seg.Commit(len(body), &h)
		ta.count(&Record{Pos: pos, Head: h, Body: body}, base)
		n++
	})
	if sealed {
		topics, _ := scanTopics(seg)
		seal := segment.Seal{Records: ta.records, Messages: ta.messages, Topics: uint64(len(topics)), First: ta.first, Last: ta.last}
		if err := seg.WriteSeal(segment.OS{}, seal, segment.Head{Wall: wall + 1e12, Boot: 3, Mono: 1e6}); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
}

func goldenMessage(m Message) (segment.Head, []byte) {
	b := make([]byte, m.bodyLen())
	m.encode(b)
	return segment.Head{Kind: KindMessage, Flags: m.flags(), ID: m.PacketID, Expiry: m.Expiry}, b
}

func fillAllKinds(add func(segment.Head, []byte)) {
	event := func(e Event) { add(segment.Head{Kind: e.Kind, Flags: e.Flags, ID: e.ID}, e.Body) }
	will := &Will{Topic: "gone/c1", Payload: []byte("offline"), Props: []byte{1, 1}, QoS: 1, Retain: true, HasExpiry: true, Expiry: 60, Delay: 5}
	event(Event{Kind: KindBoot, Body: []byte{0, 0x80, 0x80, 0x40}})
	event(EventOpened("c1", 5, true, 3600, will, 1<<20))
	event(EventOpened("c2", 4, false, Never, nil, 1<<20))
	event(EventSubscribed("c1", []Sub{{Filter: "a/#", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2, ID: 7}, {Filter: "b/+", QoS: 1}}))
	event(EventUnsubscribed("c1", []string{"b/+"}))
	add(goldenMessage(Message{Publisher: "p", Topic: []byte("a/0"), Payload: []byte("qos 0")}))
	add(goldenMessage(Message{Publisher: "p", Topic: []byte("a/1"), Payload: []byte("qos 1, retained, expires"), QoS: 1, Retain: true, HasExpiry: true, Expiry: 120}))
	add(goldenMessage(Message{Publisher: "p", Topic: []byte("a/2"), Props: []byte{0x26, 0, 1, 'k', 0, 1, 'v'}, Payload: []byte("qos 2 with a property"), QoS: 2, PacketID: 513}))
	add(goldenMessage(Message{Publisher: "c2", Topic: []byte("a/1"), QoS: 1, Retain: true}))
	add(goldenMessage(Message{Publisher: "c1", Topic: []byte("gone/c1"), Payload: []byte("offline"), QoS: 1, Will: true}))
	add(goldenMessage(Message{Publisher: "", Topic: []byte("long"), Payload: []byte(strings.Repeat("0123456789", 400))}))
	h, body := goldenMessage(Message{Publisher: "p", Topic: []byte("r"), Payload: []byte("carried"), Retain: true})
	h.Flags |= FlagCarried
	add(h, append([]byte{0x40, 0, 0x10, 0, 0, 0, 0, 0}, body...))
	event(EventDelivered(nil, "c1", 1<<20+4096, []Inflight{{ID: 1, Pos: 1<<20 + 512, QoS: 1}, {ID: 65535, Pos: 1<<20 + 64, QoS: 2, Retained: true}}))
	event(EventAcked(nil, "c1", []Acked{{ID: 1, Done: true}, {ID: 65535}}))
	event(EventReleased(nil, "p", []uint16{513}))
	event(EventClosed("c1", 3600, true, 1<<20+4096))
	event(EventEnded("c2"))
	loss := Loss{Cause: CauseRetention, Readers: []string{"c1", "c2"}, From: 1 << 20, To: 2 << 20, Count: 12, Bytes: 3456, Detail: "budget of 4294967296 bytes"}
	event(Event{Kind: KindLoss, Body: loss.encode()})
	event(Event{Kind: KindShutdown})
}

// fillGroups holds what shared subscriptions add.
func fillGroups(add func(segment.Head, []byte)) {
	event := func(e Event) { add(segment.Head{Kind: e.Kind, Flags: e.Flags, ID: e.ID}, e.Body) }
	event(EventOpened("c1", 5, true, 3600, nil, 1<<20))
	event(EventSubscribed("c1", []Sub{{Filter: goldenGroup, QoS: 2, ID: 7}, {Filter: "b", QoS: 1}}))
	event(EventOpened("c2", 4, true, 0, nil, 1<<20))
	event(EventSubscribed("c2", []Sub{{Filter: goldenGroup, QoS: 1}}))
	event(EventGroup(goldenGroup, true, 1<<20+700))
	event(EventDealt(nil, goldenGroup, 1<<20+1024, []Pos{1<<20 + 800, 1<<20 + 896}, []Dealt{
		{ID: "c1", List: []Inflight{{ID: 65535, Pos: 1<<20 + 768, QoS: 2}, {ID: 1, Pos: 1<<20 + 960, QoS: 1}}},
		{ID: "c2", List: []Inflight{{ID: 9, Pos: 1<<20 + 832, QoS: 1}}},
	}))
	event(EventDelivered(nil, "c1", 1<<20+2048, []Inflight{{ID: 2, Pos: 1<<20 + 1536, QoS: 1}}))
	event(EventReturned("c2", goldenGroup, []Inflight{{ID: 9, Pos: 1<<20 + 832, QoS: 1}}))
	event(EventUnsubscribed("c2", []string{goldenGroup}))
	event(EventEnded("c2"))
	event(EventDealt(nil, goldenGroup, 1<<20+1024, nil, []Dealt{{ID: "c1", List: []Inflight{{ID: 3, Pos: 1<<20 + 832, QoS: 1}}}}))
	event(EventAcked(nil, "c1", []Acked{{ID: 1, Done: true}, {ID: 65535}}))
	event(EventGroup(goldenGroup, false, 1<<20+4096))
	event(EventClosed("c1", 3600, false, 1<<20+4096))
}

const goldenGroup = "$share/workers/jobs/+/#"

// listing is a segment file in words.
func listing(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	row := &SessionRow{ID: "c1"}
	group := &GroupRow{Name: goldenGroup}
	rec, err := segment.Recover(filepath.Base(path), b, 0, func(rec Record) error {
		fmt.Fprintf(&out, "%d %s flags=%02x id=%d expiry=%d wall=%d boot=%d mono=%d", rec.Pos, KindName(rec.Kind), rec.Flags, rec.ID, rec.Expiry, rec.Wall, rec.Boot, rec.Mono)
		switch rec.Kind {
		case KindMessage:
			m, err := DecodeMessage(&rec)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " publisher=%q topic=%q props=%x payload=%q original=%d\n", m.Publisher, m.Topic, m.Props, m.Payload, m.Original)
		case KindLoss:
			x, ok := DecodeLoss(rec.Body)
			fmt.Fprintf(&out, " %v %v %d..%d %d messages, %d bytes, %q %v\n", x.Cause, x.Readers, x.From, x.To, x.Count, x.Bytes, x.Detail, ok)
		default:
			fmt.Fprintf(&out, " session=%q body=%x\n", eventSession(&rec), rec.Body)
		}
		for range eventGroups(&rec) {
			gone := group.apply(&rec)
			view, ok := DecodeEvent(&rec)
			fmt.Fprintf(&out, "    group: online=%v members=%v next=%d open=%v gone=%v; %q %v\n", group.Online, group.Members, group.Next, group.Open, gone, view.String(), ok)
		}
		if string(eventSession(&rec)) == "c1" || rec.Kind == KindDealt {
			gone := row.apply(&rec)
			fmt.Fprintf(&out, "    c1: version=%d expiry=%d online=%v will=%s subs=%+v next=%d inflight=%v gone=%v\n",
				row.Version, row.Expiry, row.Online, willText(row.Will), row.Subs, row.Next, inflightText(row.Inflight), gone)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "log %q base=%d size=%d salt=%08x boot=%d created=%d\n", rec.Head.LogID, rec.Head.Base, rec.Head.Size, rec.Head.Salt, rec.Head.Boot, rec.Head.Created)
	fmt.Fprintf(&out, "end=%d sealed=%v seal=%+v torn=%d damages=%d\n", rec.End, rec.Sealed, rec.Seal, rec.Torn, len(rec.Damages))
	return out.String()
}

func inflightText(list []Inflight) string {
	words := make([]string, len(list))
	for i, f := range list {
		words[i] = fmt.Sprintf("{ID:%d Pos:%v QoS:%d Retained:%v Received:%v}", f.ID, f.Pos, f.QoS, f.Retained, f.Received)
		if f.Group != "" {
			words[i] += " of " + f.Group
		}
	}
	return fmt.Sprint(words)
}

func willText(w *Will) string {
	if w == nil {
		return "none"
	}
	return fmt.Sprintf("%+v", *w)
}

func TestGoldenSegments(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	files, err := filepath.Glob(filepath.Join(goldenDir, "*"+segment.Suffix))
	if err != nil || len(files) < 3 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, path := range files {
		want, err := os.ReadFile(path + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		if got := listing(t, path); got != string(want) {
			t.Errorf("%s reads as\n%s\nwant\n%s", path, got, want)
		}
	}
}

// What is written today is what the golden files hold, byte for byte.
func TestGoldenSegmentsAreStillWritten(t *testing.T) {
	dir := t.TempDir()
	fillGolden(t, dir)
	files, _ := filepath.Glob(filepath.Join(dir, "*"+segment.Suffix))
	for _, path := range files {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(goldenDir, filepath.Base(path)))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s is not what it was (%v)", filepath.Base(path), err)
		}
	}
}

func fillGolden(t *testing.T, dir string) {
	goldenSegment(t, dir, 1<<20, fillAllKinds, true)
	goldenSegment(t, dir, 1<<20+16<<10, func(func(segment.Head, []byte)) {}, true)
	goldenSegment(t, dir, 1<<20+48<<10, fillGroups, true)
	// In use when the power went: the last record is torn.
	base := Pos(1<<20 + 32<<10)
	goldenSegment(t, dir, base, fillAllKinds, false)
	path := filepath.Join(dir, segment.FileName(base))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := segment.Recover(path, b, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	b[rec.End-segment.RecordHead+9] ^= 1 // flags of the shutdown mark
	if err := os.WriteFile(path, b, 0o640); err != nil {
		t.Fatal(err)
	}
}

func writeGolden(t *testing.T) {
	tmp := t.TempDir()
	fillGolden(t, tmp)
	if err := os.MkdirAll(goldenDir, 0o755); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(tmp, "*"+segment.Suffix))
	for _, from := range files {
		if _, err := os.Stat(filepath.Join(goldenDir, filepath.Base(from))); err == nil {
			continue
		}
		to := filepath.Join(goldenDir, filepath.Base(from))
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		writeNew(t, to, b)
		writeNew(t, to+".txt", []byte(listing(t, to)))
	}
}

// writeNew refuses to write over a file.
func writeNew(t *testing.T, path string, b []byte) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

package storage

import (
	"testing"
)

// FuzzDecoders feeds arbitrary bytes to everything that reads record bodies
// and index rows: none panics or asks for memory that the input does not back,
// and what decodes as a session row encodes to something that decodes alike.
func FuzzDecoders(f *testing.F) {
	row := SessionRow{ID: "a", Next: 99, Subs: []Sub{{Filter: "x/#", QoS: 1, ID: 7, Since: 5}},
		Inflight: []Inflight{{ID: 3, Pos: 50, QoS: 2, Received: true}}, Inbound: []uint16{4}, Will: &Will{Topic: "w", Delay: 3}}
	f.Add(row.encode(nil), uint8(KindMessage), uint8(FlagCarried))
	f.Add(EventSubscribed("a", row.Subs).Body, uint8(KindSubscribed), uint8(0))
	f.Add(EventDelivered(nil, "a", 9, row.Inflight).Body, uint8(KindDelivered), uint8(0))
	f.Add((&Loss{Cause: CauseDamage, From: 1, To: 9, Readers: []string{"a"}}).encode(), uint8(KindLoss), uint8(0))
	dealt := []Inflight{{ID: 1, Pos: 70, QoS: 1}, {ID: 2, Pos: 60, QoS: 2, Group: "$share/g/x"}}
	f.Add(EventDealt(nil, "$share/g/x", 99, []Pos{4, 9}, []Dealt{{"a", dealt}, {"b", nil}}).Body, uint8(KindDealt), uint8(0))
	f.Add(EventReturned("a", "$share/g/x", dealt).Body, uint8(KindReturned), uint8(0))
	f.Add(EventSubscribed("a", []Sub{{Filter: "$share/g/x"}}).Body, uint8(KindSubscribed), uint8(0))
	f.Add((&GroupRow{Members: []string{"a", "b"}, Next: 9, Open: []Pos{1, 5}}).encode(nil), uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, kind, flags uint8) {
		rec := Record{Pos: 10, Body: b}
		rec.Kind, rec.Flags = Kind(kind), flags
		if m, err := DecodeMessage(&rec); err == nil && len(m.Topic)+len(m.Props)+len(m.Payload)+len(m.Publisher) > len(b) {
			t.Fatal("the parts of a message are larger than its body")
		}
		_ = eventSession(&rec)
		(&SessionRow{}).apply(&rec)
		_, _ = DecodeEvent(&rec)
		for _, name := range eventGroups(&rec) {
			(&GroupRow{Name: name}).apply(&rec)
		}
		if r, ok := decodeGroupRow("$share/g/x", b); ok {
			again, ok := decodeGroupRow("$share/g/x", r.encode(nil))
			if !ok || string(again.encode(nil)) != string(r.encode(nil)) {
				t.Fatalf("group %+v decodes again as %+v", r, again)
			}
		}
		_, _ = DecodeLoss(b)
		_, _ = decodeSegmentRow(b)
		if _, _, enc, ok := decodePostingsRow(b); ok {
			eachPosting(enc, func(uint32) bool { return true })
		}
		if r, ok := decodeRow("a", b); ok {
			again, ok := decodeRow("a", r.encode(nil))
			if !ok || string(again.encode(nil)) != string(r.encode(nil)) {
				t.Fatalf("row %+v decodes again as %+v", r, again)
			}
		}
	})
}

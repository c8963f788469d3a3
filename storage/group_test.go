package storage

import (
	"fmt"
	"slices"
	"testing"
)

// applyAll replays events from a position on to a session and a group, as
// they stood in the index.
func applyAll(row *SessionRow, group *GroupRow, at Pos, events ...Event) {
	for i, e := range events {
		rec := Record{Pos: at + Pos(i)*64, Body: e.Body}
		rec.Kind = e.Kind
		if string(eventSession(&rec)) == row.ID || e.Kind == KindDealt {
			row.apply(&rec)
		}
		if slices.Contains(eventGroups(&rec), group.Name) {
			group.apply(&rec)
		}
	}
}

const testGroup = "$share/g/a/#"

// A row that was taken while a record was on its way holds what the record
// says already: replaying it must not give an identifier twice. (Found by
// reading: the window then counted all 65,535 as in use.)
func TestReplayingWhatTheRowHoldsAlreadyChangesNothing(t *testing.T) {
	list := []Inflight{{ID: 65535, Pos: 10, QoS: 1}, {ID: 1, Pos: 20, QoS: 2}, {ID: 2, Pos: 30, QoS: 1}}
	row := &SessionRow{ID: "c", Inflight: slices.Clone(list[:2])}
	applyAll(row, &GroupRow{}, 100, EventDelivered(nil, "c", 40, list))
	if fmt.Sprint(row.Inflight) != fmt.Sprint(list) {
		t.Errorf("in flight %v, want %v", row.Inflight, list)
	}
}

// Two readers give out identifiers of one window, and their records can be in
// the log the other way round.
func TestInFlightIsInTheOrderOfTheIdentifiers(t *testing.T) {
	row := &SessionRow{ID: "c"}
	applyAll(row, &GroupRow{Name: testGroup}, 100,
		EventDelivered(nil, "c", 40, []Inflight{{ID: 65534, Pos: 1}, {ID: 1, Pos: 3}}),
		EventDealt(nil, testGroup, 50, nil, []Dealt{{"b", []Inflight{{ID: 7, Pos: 9}}}, {"c", []Inflight{{ID: 65535, Pos: 2}, {ID: 2, Pos: 4}}}}))
	var ids []uint16
	for _, f := range row.Inflight {
		ids = append(ids, f.ID)
	}
	if !slices.Equal(ids, []uint16{65534, 65535, 1, 2}) {
		t.Errorf("identifiers %v", ids)
	}
	if row.Inflight[1].Group != testGroup || row.Inflight[0].Group != "" {
		t.Errorf("groups of %+v", row.Inflight)
	}
}

// Wherever the rows of a session and of a group were taken, replaying what
// follows brings both to the same state.
func TestAGroupIsReplayedFromWhereverItsRowIs(t *testing.T) {
	events := []Event{
		EventSubscribed("c", []Sub{{Filter: testGroup, QoS: 1}, {Filter: "x"}}),
		EventSubscribed("d", []Sub{{Filter: testGroup, QoS: 1}}),
		EventGroup(testGroup, true, 5),
		EventDealt(nil, testGroup, 40, []Pos{22, 28}, []Dealt{{"c", []Inflight{{ID: 1, Pos: 20, QoS: 1}, {ID: 2, Pos: 30, QoS: 2}}}, {"d", []Inflight{{ID: 1, Pos: 25, QoS: 1}}}}),
		EventAcked(nil, "c", []Acked{{ID: 2}}),
		EventReturned("c", testGroup, []Inflight{{ID: 1, Pos: 20, QoS: 1}}),
		EventDealt(nil, testGroup, 40, nil, []Dealt{{"d", []Inflight{{ID: 2, Pos: 20, QoS: 1}, {ID: 3, Pos: 28, QoS: 1}}}}),
		EventUnsubscribed("d", []string{"x", testGroup}),
		EventGroup(testGroup, false, 60),
	}
	var rows []*SessionRow
	var groups []*GroupRow
	for n := range len(events) + 1 {
		row, group := &SessionRow{ID: "c"}, &GroupRow{Name: testGroup}
		applyAll(row, group, 1000, events[:n]...)
		rows, groups = append(rows, row), append(groups, group)
	}
	last := len(events)
	want := fmt.Sprintf("%+v %+v", rows[last], groups[last])
	if g := groups[last]; fmt.Sprint(g.Members, g.Next, g.Open, g.Online) != "[c] 60 [22] false" {
		t.Fatalf("group %+v", g)
	}
	for i := range rows {
		for j := range groups {
			row, _ := decodeRow("c", rows[i].encode(nil))
			group, ok := decodeGroupRow(testGroup, groups[j].encode(nil))
			if !ok {
				t.Fatal("the row does not decode")
			}
			applyAll(row, group, 1000, events...)
			if got := fmt.Sprintf("%+v %+v", row, group); got != want {
				t.Errorf("session of step %d, group of step %d: %s\nwant %s", i, j, got, want)
			}
		}
	}
}

package storage

import (
	"fmt"
	"slices"
	"testing"

	"cairnmq/storage/filter"
)

// TestSelectFindsExactlyWhatAScanFinds compares the positions that the index
// gives for some filters with those that reading everything gives.
func TestSelectFindsExactlyWhatAScanFinds(t *testing.T) {
	l := openTest(t, t.TempDir(), small())
	defer l.Close()
	for i := range 5000 {
		publish(t, l, fmt.Sprintf("site/%d/sensor/%d", i%20, i%37), fmt.Sprintf("%050d", i), false)
	}
	l.settle()
	for _, filters := range [][]string{
		{"site/3/sensor/3"}, {"site/3/#"}, {"+/+/sensor/7"}, {"site/3/#", "site/+/sensor/3"}, {"nothing/#"},
	} {
		var want []Pos
		r := l.NewReader()
		for pos := Pos(0); ; {
			rec, next, err := r.Next(pos)
			if err == ErrEnd {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			pos = next
			if rec.Kind != KindMessage {
				continue
			}
			m, _ := DecodeMessage(&rec)
			if slices.ContainsFunc(filters, func(f string) bool { return filter.Match(f, string(m.Topic)) }) {
				want = append(want, rec.Pos)
			}
		}
		r.Release()
		var got []Pos
		narrow := 0
		pos := l.Oldest()
		for {
			sel, ok := l.Select(filters, pos)
			if !ok {
				break
			}
			narrow++
			got = append(got, sel.Positions...)
			pos = sel.To
		}
		if narrow < 5 {
			t.Fatalf("%v: only %d segments were answered by the index", filters, narrow)
		}
		upTo := func(list []Pos) []Pos {
			i, _ := slices.BinarySearch(list, pos)
			return list[:i]
		}
		if !slices.Equal(got, upTo(want)) {
			t.Fatalf("%v: index finds %d, a scan %d", filters, len(got), len(upTo(want)))
		}
	}
	if _, ok := l.Select([]string{"#"}, l.Oldest()); ok {
		t.Fatal("a filter that matches everything was not left to a scan")
	}
}

//go:build linux

package load

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestCheckerFindsPlanted gives one subscription messages in which faults were
// planted, and wants exactly these back.
func TestCheckerFindsPlanted(t *testing.T) {
	a, b := stream{0, 1}, stream{1, 0}
	for _, tc := range []struct {
		name      string
		seen      []missed
		published [4]uint32 // 0/0, 0/1 (a), 1/0 (b), 1/1
		want      Faults
	}{
		{"all in order, streams interleaved", []missed{{a, 0}, {b, 0}, {b, 1}, {a, 1}}, [4]uint32{0, 2, 2, 0}, Faults{}},
		{"nothing published, nothing seen", nil, [4]uint32{}, Faults{}},
		{"one lost in the middle", []missed{{a, 0}, {a, 2}}, [4]uint32{0, 3, 0, 0}, Faults{Lost: 1}},
		{"the first lost", []missed{{a, 1}}, [4]uint32{0, 2, 0, 0}, Faults{Lost: 1}},
		{"the last lost", []missed{{a, 0}}, [4]uint32{0, 2, 0, 0}, Faults{Lost: 1}},
		{"a whole stream lost", []missed{{a, 0}}, [4]uint32{0, 1, 3, 0}, Faults{Lost: 3}},
		{"lost in the middle and at the end", []missed{{a, 0}, {a, 3}}, [4]uint32{0, 6, 0, 0}, Faults{Lost: 4}},
		{"repeated at once", []missed{{a, 0}, {a, 0}, {a, 1}}, [4]uint32{0, 2, 0, 0}, Faults{Repeated: 1}},
		{"repeated later", []missed{{a, 0}, {a, 1}, {a, 2}, {a, 0}}, [4]uint32{0, 3, 0, 0}, Faults{Repeated: 1}},
		{"two exchanged", []missed{{a, 1}, {a, 0}}, [4]uint32{0, 2, 0, 0}, Faults{Misordered: 1}},
		{"one late by three", []missed{{a, 1}, {a, 2}, {a, 3}, {a, 0}}, [4]uint32{0, 4, 0, 0}, Faults{Misordered: 1}},
		{"late, then repeated", []missed{{a, 1}, {a, 0}, {a, 0}}, [4]uint32{0, 2, 0, 0}, Faults{Misordered: 1, Repeated: 1}},
		{"lost in one stream, repeated in the other", []missed{{a, 1}, {b, 0}, {b, 0}}, [4]uint32{0, 2, 1, 0}, Faults{Lost: 1, Repeated: 1}},
		{"order between streams is free", []missed{{b, 0}, {b, 1}, {a, 0}}, [4]uint32{0, 1, 2, 0}, Faults{}},
		{"never published", []missed{{a, 0}, {a, 1}}, [4]uint32{0, 1, 0, 0}, Faults{Damaged: 1}},
		{"unknown publisher", []missed{{stream{2, 0}, 0}}, [4]uint32{}, Faults{Damaged: 1}},
		{"unknown topic", []missed{{stream{0, 2}, 0}}, [4]uint32{}, Faults{Damaged: 1}},
	} {
		c := NewChecker(2, 2)
		for _, m := range tc.seen {
			c.Saw(m.stream, m.seq)
		}
		if got := c.Faults(tc.published[:]); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestCheckerRandom plants random faults into a long random interleaving and
// counts them while planting.
func TestCheckerRandom(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		const publishers, topics = 3, 2
		var want Faults
		var published [publishers * topics]uint32
		c := NewChecker(publishers, topics)
		for range 2000 {
			at := r.IntN(len(published))
			s := stream{uint16(at / topics), uint16(at % topics)}
			seq := published[at]
			published[at]++
			switch r.IntN(20) {
			case 0: // lost
				want.Lost++
			case 1: // repeated
				want.Repeated++
				c.Saw(s, seq)
				c.Saw(s, seq)
			case 2: // the next one overtakes it
				want.Misordered++
				published[at]++
				c.Saw(s, seq+1)
				c.Saw(s, seq)
			default:
				c.Saw(s, seq)
			}
		}
		if got := c.Faults(published[:]); got != want {
			t.Fatalf("seed %d: %v, want %v", seed, got, want)
		}
	}
}

func TestCheckerForgets(t *testing.T) {
	c := NewChecker(1, 1)
	c.Saw(stream{}, maxMissing+10)
	if got, want := c.Faults([]uint32{maxMissing + 11}), (Faults{Lost: maxMissing + 10}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestStamp(t *testing.T) {
	filler := newFiller(64)
	b := append(make([]byte, MinPayload), filler...)
	want := stamp{stream{65535, 12345}, 4_000_000_000, 1 << 60}
	putStamp(b, want)
	if got := readStamp(b); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !intact(b, filler) {
		t.Error("a whole payload is called damaged")
	}
	if intact(b[:63], filler) {
		t.Error("a short payload is called whole")
	}
	b[40] ^= 1
	if intact(b, filler) {
		t.Error("a flipped bit goes unnoticed")
	}
}

// TestGroupFindsPlanted is the same for two members that share a subscription.
func TestGroupFindsPlanted(t *testing.T) {
	type got struct {
		member int
		seq    uint32
	}
	for _, tc := range []struct {
		name      string
		seen      []got
		published uint32
		want      Faults
	}{
		{"in turns", []got{{0, 0}, {1, 1}, {0, 2}, {1, 3}}, 4, Faults{}},
		{"one member is ahead", []got{{0, 0}, {0, 3}, {1, 1}, {1, 2}}, 4, Faults{}},
		{"nothing published, nothing seen", nil, 0, Faults{}},
		{"one lost in the middle", []got{{0, 0}, {1, 2}}, 3, Faults{Lost: 1}},
		{"the last lost", []got{{0, 0}, {1, 1}}, 3, Faults{Lost: 1}},
		{"both get it", []got{{0, 0}, {1, 0}, {0, 1}}, 2, Faults{Repeated: 1}},
		{"one gets it twice", []got{{0, 0}, {0, 0}, {1, 1}}, 2, Faults{Repeated: 1}},
		{"two of one member exchanged", []got{{0, 0}, {1, 3}, {1, 1}, {0, 2}}, 4, Faults{Misordered: 1}},
		{"never published", []got{{0, 0}, {1, 1}}, 1, Faults{Damaged: 1}},
		{"one invented, one lost", []got{{0, 0}, {1, 2}}, 2, Faults{Damaged: 1}},
		{"a number from nowhere", []got{{0, 0}, {1, 4e9}}, 1, Faults{Damaged: 1}},
	} {
		g := newGroup(1)
		members := [2]*Checker{NewChecker(1, 1), NewChecker(1, 1)}
		for _, m := range members {
			m.group = g
		}
		for _, s := range tc.seen {
			members[s.member].Saw(stream{}, s.seq)
		}
		f := g.faults([]uint32{tc.published})
		for _, m := range members {
			f.add(m.Faults([]uint32{tc.published}))
		}
		if f != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, f, tc.want)
		}
	}
}

// TestCheckerOfAPart must count what it was not to get, and not miss what is
// not for it.
func TestCheckerOfAPart(t *testing.T) {
	c := newPartChecker(3, 2, 4) // topic 2 of publisher 0, topic 0 of publisher 1
	for _, s := range []stream{{0, 2}, {1, 0}, {1, 1}, {0, 1}} {
		c.Saw(s, 0)
	}
	published := []uint32{9, 9, 1, 2, 9, 9}
	if got, want := c.Faults(published), (Faults{Lost: 1, Damaged: 2}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestScheduleKeepsItsTimes: messages that a late pass makes due carry the
// times at which they should have been sent, or the delay would hide.
func TestScheduleKeepsItsTimes(t *testing.T) {
	a, b := &publisher{}, &publisher{}
	s := &schedule{publishers: []*publisher{a, b}, interval: 10, start: 100, running: true}
	s.deal(95)
	s.deal(145)
	if want := []int64{100, 120, 140}; !slices.Equal(a.due, want) {
		t.Errorf("%v, want %v", a.due, want)
	}
	if want := []int64{110, 130}; !slices.Equal(b.due, want) {
		t.Errorf("%v, want %v", b.due, want)
	}
	if s.nextDue() != 150 {
		t.Errorf("next at %d", s.nextDue())
	}
}

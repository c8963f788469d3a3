//go:build linux

package main

import (
	"strings"
	"testing"
)

// sent is a book in which a stream has n messages, all acknowledged.
func sent(topic int, qos byte, n int) (*book, *stream) {
	b := newBook(2)
	s := b.stream(label{publisher: 1, topic: topic, qos: qos})
	for range n {
		s.acknowledge(s.next().seq, false)
	}
	return b, s
}

// TestJudge lets a broker do everything wrong that it can do.
func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		name    string
		qos     byte  // of publisher and subscriber
		deliver []int // numbers of messages
		gapless bool
		wrong   string
		missing int
	}{
		{"all", 2, []int{0, 1, 2, 3}, false, "", 0},
		{"lost", 2, []int{0, 1, 3}, false, "", 1},
		{"all lost", 1, nil, false, "", 4},
		{"qos 0 may be lost", 0, []int{2}, false, "", 0},
		{"qos 0 twice", 0, []int{2, 2}, false, "came twice", 0},
		{"qos 1 twice", 1, []int{0, 1, 0, 1, 2, 3}, false, "", 0},
		{"qos 2 twice", 2, []int{0, 1, 0}, false, "came twice", 0},
		{"overtaken", 1, []int{0, 2, 1}, false, "came behind 2", 0},
		{"gap for one who was always there", 1, []int{1, 3}, true, "is missing", 0},
		{"one who came late", 1, []int{2, 3}, true, "", 2},
		{"invented", 1, []int{7}, false, "never sent", 0},
		{"one who came late, and what is sent again", 1, []int{2, 1, 2, 3}, true, "", 2},
		{"qos 2 is not sent again", 2, []int{2, 1}, true, "came behind 2", 0},
	} {
		b, s := sent(0, tc.qos, 4)
		j := newJudge(b, "t/#", tc.qos)
		j.gapless, j.late = tc.gapless, tc.gapless
		var err error
		for _, n := range tc.deliver {
			l := s.label
			l.seq = n
			if err = j.deliver("t/1/0", l.payload(), tc.qos); err != nil {
				break
			}
		}
		switch {
		case tc.wrong == "" && err != nil, tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.wrong)
		case tc.wrong == "":
			if n, _ := j.missing(); n != tc.missing {
				t.Errorf("%s: %d missing, want %d", tc.name, n, tc.missing)
			}
		}
	}
}

func TestJudgeOfOneMessage(t *testing.T) {
	b, s := sent(0, 1, 1)
	l := s.label
	good := l.payload()
	for _, tc := range []struct {
		name, topic, filter, wrong string
		payload                    []byte
		qos                        byte
	}{
		{"sound", "t/1/0", "t/+/0", "", good, 1},
		{"another topic", "t/1/1", "t/#", "damaged", good, 1},
		{"a byte", "t/1/0", "t/#", "damaged", append(good[:len(good)-1:len(good)-1], good[len(good)-1]+1), 1},
		{"cut", "t/1/0", "t/#", "damaged", good[:len(good)-1], 1},
		{"no label", "t/1/0", "t/#", "nobody's", []byte("x"), 1},
		{"not subscribed to", "t/1/0", "t/2/#", "is not for", good, 1},
		{"another qos", "t/1/0", "t/#", "at QoS 2", good, 2},
	} {
		err := newJudge(b, tc.filter, 2).deliver(tc.topic, tc.payload, tc.qos)
		if tc.wrong == "" && err != nil || tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.wrong)
		}
	}
	s.acknowledge(0, true)
	if err := newJudge(b, "t/#", 2).deliver("t/1/0", good, 1); err == nil {
		t.Error("a refused message is delivered and nobody minds")
	}
}

func TestShelf(t *testing.T) {
	s := &shelf{empty: []bool{false, false, true, false}, acked: 1}
	for _, tc := range []struct {
		got, from, to int
		good          bool
	}{
		{1, 1, 3, true}, {3, 1, 3, true}, {none, 1, 3, true}, // the empty one is among those under way
		{0, 1, 3, false}, {2, 1, 3, false}, {none, 1, 1, false}, {none, 3, 3, false}, {4, 1, 3, false},
		{none, -1, 0, true}, // none was acknowledged
	} {
		if err := s.judge(tc.got, tc.from, tc.to); (err == nil) != tc.good {
			t.Errorf("got %d, from %d to %d: %v", tc.got, tc.from, tc.to, err)
		}
	}
}

func TestWills(t *testing.T) {
	b := &wills{all: map[string]*will{}}
	due, not := b.open("due"), b.open("not")
	b.expect(due, 1, 1)
	if n, _ := b.missing(); n != 1 {
		t.Errorf("%d missing", n)
	}
	for _, tc := range []struct {
		key  string
		good bool
	}{{"due", true}, {"due", false}, {"nobody's", false}, {"not", true}} {
		if err := b.deliver([]byte(tc.key)); (err == nil) != tc.good {
			t.Errorf("%s: %v", tc.key, err)
		}
	}
	b.expect(not, 0, 0)
	if key, ok := b.wrong(); !ok || key != "not" {
		t.Errorf("a will that was not due came and nobody minds: %q", key)
	}
}

func TestLedger(t *testing.T) {
	l := ledger{
		10: {Position: 10, Cause: "retention", Readers: []string{"a", "b"}, Messages: 5, From: 1, To: 9},
		20: {Position: 20, Cause: "retention", Readers: []string{"a"}, Messages: 3, From: 4, To: 9}, // the same once more
		30: {Position: 30, Cause: "retention", Readers: []string{"a"}, Messages: 2, From: 9, To: 15},
		40: {Position: 40, Cause: "expiry", Readers: []string{"a"}, Messages: 9, From: 9, To: 15},
	}
	if a, b, c := l.lost("a"), l.lost("b"), l.lost("c"); a != 5 || b != 5 || c != 0 {
		t.Errorf("lost: %d, %d, %d", a, b, c)
	}
	if n := l.largest("a"); n != 9 {
		t.Errorf("largest %d", n)
	}
}

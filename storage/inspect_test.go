package storage

import (
	"encoding/json"
	"testing"
)

var eventViews = []struct {
	event Event
	text  string
	json  string
}{
	{EventOpened("c", 5, true, 60, &Will{Topic: "w", Payload: []byte("bye"), QoS: 1, Retain: true, Delay: 2}, 100),
		"version=5 clean_start=true expiry=1m0s will=w qos1 3B cursor=100",
		`{"client":"c","version":5,"clean_start":true,"session_expiry":60,"will":{"topic":"w","qos":1,"retain":true,"delay":2,"bytes":3},"cursor":100}`},
	{EventClosed("c", Never, true, 200), "expiry=never will_pending=true cursor=200",
		`{"client":"c","session_expiry":4294967295,"will_pending":true,"cursor":200}`},
	{EventEnded("c"), "", `{"client":"c"}`},
	{EventSubscribed("c", []Sub{{Filter: "a/#", QoS: 2, NoLocal: true, RetainHandling: 1, ID: 9}, {Filter: "b"}}), "a/# qos2 b qos0",
		`{"client":"c","subscriptions":[{"filter":"a/#","qos":2,"no_local":true,"retain_handling":1,"id":9},{"filter":"b","qos":0}]}`},
	{EventUnsubscribed("c", []string{"a/#"}), "a/#", `{"client":"c","filters":["a/#"]}`},
	{EventDelivered(nil, "c", 300, []Inflight{{ID: 1, Pos: 250, QoS: 1}, {ID: 2, Pos: 260, QoS: 2}}), "1->250 2->260 cursor=300",
		`{"client":"c","cursor":300,"delivered":[{"packet_id":1,"position":250,"qos":1},{"packet_id":2,"position":260,"qos":2}]}`},
	{EventAcked(nil, "c", []Acked{{ID: 1, Done: true}, {ID: 2}}), "1 done 2 received",
		`{"client":"c","acked":[{"packet_id":1,"done":true},{"packet_id":2,"done":false}]}`},
	{EventReleased(nil, "c", []uint16{7, 8}), "7 8", `{"client":"c","packet_ids":[7,8]}`},
}

func TestDecodeEventSaysWhatWasWritten(t *testing.T) {
	for _, row := range eventViews {
		rec := Record{Body: row.event.Body}
		rec.Kind = row.event.Kind
		v, ok := DecodeEvent(&rec)
		b, err := json.Marshal(v)
		if !ok || err != nil || v.String() != row.text || string(b) != row.json {
			t.Errorf("%s: %q\n %s, ok %v, %v", KindName(row.event.Kind), v.String(), b, ok, err)
		}
		if !v.Concerns("c") || v.Concerns("d") {
			t.Errorf("%s is about %q", KindName(row.event.Kind), v.Client)
		}
	}
}

func TestDecodeEventOfALossConcernsItsReaders(t *testing.T) {
	x := Loss{Cause: CauseRetention, Readers: []string{"a", "b"}, From: 1, To: 2, Count: 3}
	rec := Record{Pos: 77, Body: x.encode()}
	rec.Kind, rec.Wall = KindLoss, 5
	v, ok := DecodeEvent(&rec)
	if !ok || v.Loss.At != 77 || v.Loss.Count != 3 || !v.Concerns("b") || v.Concerns("c") {
		t.Fatalf("%+v %v", v.Loss, ok)
	}
}

func TestDecodeEventOfACutBodyIsNotOK(t *testing.T) {
	for _, row := range eventViews {
		for n := range len(row.event.Body) {
			rec := Record{Body: row.event.Body[:n]}
			rec.Kind = row.event.Kind
			if _, ok := DecodeEvent(&rec); ok {
				t.Errorf("%s cut to %d of %d bytes was accepted", KindName(row.event.Kind), n, len(row.event.Body))
			}
		}
	}
	rec := Record{Body: []byte{1}}
	rec.Kind = 200
	if _, ok := DecodeEvent(&rec); ok {
		t.Error("an unknown kind was accepted")
	}
}

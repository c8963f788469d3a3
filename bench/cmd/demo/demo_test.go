//go:build linux

package main

import (
	"testing"
)

func TestReadStreams(t *testing.T) {
	streams, err := readStreams("../../../testdata/weather/seattle-weather-hourly-normals.csv")
	if err != nil {
		t.Fatal(err)
	}
	if len(streams) != 3 {
		t.Fatalf("%d sensors", len(streams))
	}
	for i, topic := range []string{"seattle/pressure", "seattle/temperature", "seattle/wind"} {
		if s := streams[i]; s.topic != topic || len(s.payloads) != 8759 {
			t.Errorf("%s: %d readings", s.topic, len(s.payloads))
		}
	}
	if got, want := streams[0].payloads[0], `{"seq":1,"time":"2010-01-01T01:00:00","value":1016.6}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestChecker(t *testing.T) {
	s := stream{topic: "seattle/wind"}
	for n := 1; n <= 4; n++ {
		s.payloads = append(s.payloads, payload(n, "2010-01-01T01:00:00", 3.8))
	}
	p := s.payloads
	all := []bool{true, true, true, true}
	for name, row := range map[string]struct {
		deliver []string
		acked   []bool
		want    tally
	}{
		"all":                       {p, all, tally{acknowledged: 4, delivered: 4}},
		"lost":                      {[]string{p[0], p[1], p[3]}, all, tally{acknowledged: 4, delivered: 3, lost: 1}},
		"not acknowledged, missing": {p[:2], []bool{true, true, false, false}, tally{acknowledged: 2, delivered: 2}},
		"not acknowledged, there":   {p, []bool{true, true, true, false}, tally{acknowledged: 3, delivered: 4}},
		"sent again": {[]string{p[0], p[1], p[2], p[1], p[2], p[3]}, all,
			tally{acknowledged: 4, delivered: 4, repeated: 2}},
		"overtaken": {[]string{p[0], p[2], p[1], p[3]}, all, tally{acknowledged: 4, delivered: 4, misordered: 1}},
		"altered": {[]string{p[0], p[1], p[2], payload(4, "2010-01-01T01:00:00", 3.9), "", `{"seq":5}`}, all,
			tally{acknowledged: 4, delivered: 3, lost: 1, altered: 3}},
	} {
		c := newChecker(s)
		for _, x := range row.deliver {
			c.deliver(x)
		}
		if got := c.finish(row.acked); got != row.want {
			t.Errorf("%s: %+v, want %+v", name, got, row.want)
		}
		if wantBad := row.want.lost+row.want.misordered+row.want.altered > 0; c.bad() != wantBad {
			t.Errorf("%s: bad is %t", name, c.bad())
		}
	}
}

// TestPublisherReadsTheDebugOutput of a mosquitto_pub that was disconnected.
func TestPublisherReadsTheDebugOutput(t *testing.T) {
	acks := 0
	p := newPublisher(stream{topic: "seattle/wind", payloads: make([]string, 6)}, clients{}, 10, func() { acks++ })
	p.lineOf = make(map[uint16]int)
	p.sent = []int{1, 3, 4, 5} // 0 and 2 were acknowledged to an earlier process
	for _, line := range []string{
		"Client demo-wind sending CONNECT",
		"Client demo-wind received CONNACK (0)",
		"Client demo-wind sending PUBLISH (d0, q1, r0, m1, 'seattle/wind', ... (53 bytes))",
		"Client demo-wind sending PUBLISH (d0, q1, r0, m2, 'seattle/wind', ... (53 bytes))",
		"Client demo-wind received PUBACK (Mid: 1, RC:0)",
		"Client demo-wind sending CONNECT",
		"Client demo-wind received CONNACK (0)",
		"Client demo-wind sending PUBLISH (d1, q1, r0, m2, 'seattle/wind', ... (53 bytes))",
		"Client demo-wind sending PUBLISH (d0, q1, r0, m3, 'seattle/wind', ... (53 bytes))",
		"Client demo-wind sending PUBLISH (d0, q1, r0, m4, 'seattle/wind', ... (53 bytes))",
		"Client demo-wind received PUBACK (Mid: 2, RC:0)",
		"Client demo-wind received PUBACK (Mid: 2, RC:0)",
		"Client demo-wind received PUBACK (Mid: 3, RC:151)",
		"Client demo-wind received PUBACK (Mid: 4, RC:0)",
		"Client demo-wind received PUBACK (Mid: 9, RC:0)",
	} {
		p.line([]byte(line))
	}
	for i, want := range []bool{false, true, false, true, false, true} {
		if p.acked[i] != want {
			t.Errorf("reading %d: acknowledged is %t", i+1, p.acked[i])
		}
	}
	if acks != 3 {
		t.Errorf("%d acknowledgements counted", acks)
	}
}

package packet

import (
	"bytes"
	"reflect"
	"testing"
)

func FuzzReadFrame(f *testing.F) {
	for _, rec := range readRecorded(f) {
		f.Add(rec.raw, 0)
		f.Add(rec.raw[:len(rec.raw)/2], 100)
	}
	f.Fuzz(func(t *testing.T, b []byte, max int) {
		frame, need, ok, err := ReadFrame(b, max)
		switch {
		case err != nil && ok:
			t.Fatal("a frame and an error")
		case ok && (frame.Size > len(b) || frame.Size < 2+len(frame.Body) || max > 0 && frame.Size > max):
			t.Fatalf("%+v of %d bytes with limit %d", frame, len(b), max)
		case !ok && err == nil && need <= len(b):
			t.Fatalf("%d bytes are there, yet needs %d", len(b), need)
		case ok:
			// The frame does not depend on what follows.
			if _, _, again, _ := ReadFrame(b[:frame.Size], max); !again {
				t.Fatal("the frame alone is no frame")
			}
		}
	})
}

// FuzzDecode: nothing panics, and what decodes survives encoding and decoding.
func FuzzDecode(f *testing.F) {
	for _, rec := range readRecorded(f) {
		f.Add(byte(rec.version), rec.raw[0], mustFrame(f, rec.raw).Body)
	}
	for _, v := range versions {
		for _, p := range samples(v) {
			b := p.Append(nil, v)
			f.Add(byte(v), b[0], mustFrame(f, b).Body)
		}
	}
	f.Fuzz(func(t *testing.T, level, first byte, body []byte) {
		v := versions[level%3]
		p, err := Decode(v, Frame{Type: Type(first >> 4), Flags: first & 15, Body: body})
		if err != nil {
			return
		}
		if c, ok := p.(*Connect); ok {
			v = c.Version
		}
		b := p.Append(nil, v)
		again, err := Decode(v, mustFrame(t, b))
		if err != nil {
			t.Fatalf("%v: %x was written but not read: %v", v, b, err)
		}
		if !reflect.DeepEqual(again, p) {
			t.Fatalf("%v:\n%+v\nbecame\n%+v", v, p, again)
		}
	})
}

// FuzzPublish follows a PUBLISH through the broker: in, split into what travels
// on, and out again.
func FuzzPublish(f *testing.F) {
	for _, rec := range readRecorded(f) {
		if Type(rec.raw[0]>>4) == PUBLISH {
			f.Add(byte(rec.version), rec.raw[0]&15, mustFrame(f, rec.raw).Body)
		}
	}
	f.Fuzz(func(t *testing.T, level, flags byte, body []byte) {
		v := versions[level%3]
		var in, out Publish
		if err := in.Decode(v, flags&15, body); err != nil {
			return
		}
		d := Delivery{Dup: in.Dup, QoS: in.QoS, Retain: in.Retain, Topic: in.Topic, PacketID: in.PacketID,
			Props: in.AppendEndToEnd(nil), HasExpiry: in.HasExpiry, Expiry: in.Expiry, Alias: in.TopicAlias,
			SubscriptionIDs: []uint32{1, 1000}, Payload: in.Payload}
		b := d.Append(nil, v)
		if len(b) != d.Size(v) {
			t.Fatalf("size %d, wrote %d", d.Size(v), len(b))
		}
		frame := mustFrame(t, b)
		if err := out.DecodeFromServer(v, frame.Flags, frame.Body); err != nil {
			t.Fatalf("%x became %x: %v", body, b, err)
		}
		if !bytes.Equal(in.AppendEndToEnd(nil), out.AppendEndToEnd(nil)) || !bytes.Equal(in.Payload, out.Payload) || !bytes.Equal(in.Topic, out.Topic) {
			t.Fatalf("%+v became %+v", in, out)
		}
	})
}

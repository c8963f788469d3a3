package conformance

import (
	"testing"

	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Chapters 3.1.2.5 to 3.1.2.7 and 3.1.3.2: the will.

func will(w packet.Will) mqtttest.Option { return mqtttest.Will(w) }

func TestTheWillIsPublishedHoweverTheConnectionEnds(t *testing.T) {
	proves(t, "MQTT-3.1.2-7 MQTT-3.1.2-8 MQTT-3.1.2-10 MQTT-3.14.4-3", "MQTT311-3.1.2-8 MQTT311-3.1.2-10 MQTT311-3.1.2-12 MQTT311-3.14.4-3")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		watch := s.connect(t, v, "watch")
		watch.Subscribe(2, "will")
		w := will(packet.Will{Topic: "will", Payload: []byte("gone"), QoS: 1})
		for _, row := range []struct {
			name  string
			end   func(c *client)
			comes bool
			only5 bool
		}{
			{"the connection is cut", func(c *client) { c.Drop() }, true, false},
			{"a protocol error", func(c *client) { c.SendRaw([]byte{0x36, 3, 0, 1, 'a'}) }, true, false},
			{"a second CONNECT", func(c *client) { c.Send(mqtttest.ConnectPacket("c", v)) }, true, false},
			{"taken over", func(c *client) { s.connect(t, v, "c").Disconnect() }, true, false},
			{"DISCONNECT with will", func(c *client) { c.Send(&packet.Disconnect{Code: packet.DisconnectWithWill}) }, true, true},
			{"DISCONNECT with an error", func(c *client) { c.Send(&packet.Disconnect{Code: packet.UnspecifiedError}) }, true, true},
			{"DISCONNECT", func(c *client) { c.Disconnect() }, false, false},
		} {
			if row.only5 && v != v5 {
				continue
			}
			t.Run(row.name, func(t *testing.T) {
				c := s.connect(t, v, "c", w)
				c.Ping()
				row.end(c)
				if row.comes {
					watch.Receive("will", "gone", 1)
				}
				gone(c)
				// Who comes again without a will leaves none, and the old one is not published twice.
				c = s.connect(t, v, "c")
				c.Ping()
				c.Drop()
				s.connect(t, v, "c").Disconnect()
				silent(watch)
			})
		}
	})
}

func TestTheWillIsPublishedAsItWasGiven(t *testing.T) {
	proves(t, "MQTT-3.1.2-14 MQTT-3.1.2-15", "MQTT311-3.1.2-16 MQTT311-3.1.2-17 MQTT311-3.1.2-9")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		for qos := range byte(3) {
			for _, keep := range []bool{false, true} {
				topic := "will/" + v.String()
				watch := s.connect(t, v, "watch")
				watch.Subscribe(2, "will/#")
				c := s.connect(t, v, "c", will(packet.Will{Topic: topic, Payload: []byte("w"), QoS: qos, Retain: keep}))
				c.Drop()
				if watch.Receive(topic, "w", qos).Retain {
					t.Error("the retain flag on the way to a subscription that was there")
				}
				late := s.connect(t, v, "late")
				late.Subscribe(2, "will/#")
				if keep {
					if !late.Receive(topic, "w", qos).Retain {
						t.Error("no retain flag")
					}
				}
				silent(late)
				publish(late, retained(topic, "", 0))
				late.Receive(topic, "", 0)
				watch.Receive(topic, "", 0)
				late.Disconnect()
				watch.Disconnect()
			}
		}
	})
}

func TestAWillOfMQTT5HasItsProperties(t *testing.T) {
	proves(t, "MQTT-3.1.3-10")
	s := start(t)
	watch := s.connect(t, v5, "watch")
	watch.Subscribe(1, "will")
	user := []packet.UserProperty{{Name: "b", Value: "2"}, {Name: "a", Value: "1"}, {Name: "b", Value: "2"}, {Name: "", Value: ""}}
	c := s.connect(t, v5, "c", will(packet.Will{Topic: "will", Payload: []byte("w"), QoS: 1, Props: packet.Properties{
		PayloadFormat: ptr[byte](1), MessageExpiry: ptr[uint32](1000), ContentType: ptr("text"), ResponseTopic: ptr("answer"),
		CorrelationData: []byte{0, 255}, User: user, WillDelay: ptr[uint32](0)}}))
	c.Drop()
	p := properties(t, watch.Receive("will", "w", 1))
	if *p.PayloadFormat != 1 || p.MessageExpiry == nil || *p.MessageExpiry > 1000 || *p.MessageExpiry < 900 || *p.ContentType != "text" || *p.ResponseTopic != "answer" ||
		string(p.CorrelationData) != "\x00\xff" || p.WillDelay != nil {
		t.Errorf("got %+v", p)
	}
	sameUser(t, p.User, user)
}

// A will that waits is given up when its client is back in time.
func TestADelayedWillIsGivenUpWhenTheClientIsBack(t *testing.T) {
	proves(t, "MQTT-3.1.3-9 MQTT-3.1.2-8")
	s := start(t)
	watch := s.connect(t, v5, "watch")
	watch.Subscribe(1, "will")
	delayed := will(packet.Will{Topic: "will", Payload: []byte("late"), QoS: 1, Props: packet.Properties{WillDelay: ptr[uint32](3600)}})
	c := s.connect(t, v5, "c", mqtttest.Expiry(7200), delayed)
	c.Drop()
	c = s.resume(t, v5, "c")
	c.Disconnect()
	silent(watch)
	// But the end of the session does not wait.
	c = s.connect(t, v5, "d", mqtttest.Expiry(7200), delayed)
	c.Drop()
	s.connect(t, v5, "d")
	watch.Receive("will", "late", 1)
	s.connect(t, v5, "e", delayed).Drop() // a session that ends at once
	watch.Receive("will", "late", 1)
	silent(watch)
}

func sameUser(t *testing.T, got, want []packet.UserProperty) {
	t.Helper()
	same := len(got) == len(want)
	for i := range got {
		same = same && got[i] == want[i]
	}
	if !same {
		t.Errorf("user properties %q, want %q", got, want)
	}
}

package conformance

import (
	"fmt"
	"testing"

	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Clients of all versions talk to one another, and everything that can be carried is carried.
func TestEveryVersionTalksToEveryOther(t *testing.T) {
	proves(t, "MQTT-3.3.4-1 MQTT-3.8.4-8 MQTT-3.3.2-17 MQTT-3.3.2-18", "MQTT311-3.3.4-1 MQTT311-3.8.4-6 MQTT311-7.0.0-2")
	s := start(t)
	user := []packet.UserProperty{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}, {Name: "b", Value: "1"}}
	all := packet.Properties{PayloadFormat: ptr[byte](1), MessageExpiry: ptr[uint32](3000), ContentType: ptr("text/plain"),
		ResponseTopic: ptr("re"), CorrelationData: []byte{7}, User: user}
	type way struct {
		name string
		send func(t *testing.T, from packet.Version, m *packet.Publish, c func() *client) *client
	}
	// live: to a subscription that is there; retained: to one that comes later; away: to a session that waits; will: as
	// the last message of a client.
	ways := []way{
		{"live", func(t *testing.T, from packet.Version, m *packet.Publish, sub func() *client) *client {
			c := sub()
			publish(s.connect(t, from, "p"), m)
			return c
		}},
		{"retained", func(t *testing.T, from packet.Version, m *packet.Publish, sub func() *client) *client {
			m.Retain = true
			p := s.connect(t, from, "p")
			publish(p, m)
			p.Ping() // QoS 0 has no answer of its own
			return sub()
		}},
		{"away", func(t *testing.T, from packet.Version, m *packet.Publish, sub func() *client) *client {
			c := sub()
			c.Disconnect()
			publish(s.connect(t, from, "p"), m)
			return s.resume(t, c.Version, c.ID)
		}},
		{"will", func(t *testing.T, from packet.Version, m *packet.Publish, sub func() *client) *client {
			c := sub()
			w := packet.Will{Topic: string(m.Topic), Payload: m.Payload, QoS: m.QoS}
			if from == v5 {
				w.Props = all
			}
			s.connect(t, from, "p", will(w)).Drop()
			return c
		}},
	}
	for _, how := range ways {
		for _, from := range versions {
			for _, to := range versions {
				t.Run(fmt.Sprintf("%s, %v to %v", how.name, from, to), func(t *testing.T) {
					for qos := range byte(3) {
						for granted := range byte(3) {
							if how.name == "away" && min(qos, granted) == 0 {
								continue // whether it waits is the server's choice
							}
							topic := fmt.Sprintf("%s/%v/%v/%d/%d", how.name, from, to, qos, granted)
							id := topic
							if to == v31 {
								id = fmt.Sprintf("%s%v%d%d", how.name, from, qos, granted)
							}
							m := message(topic, "\x00payload\xff", qos)
							if from == v5 {
								m = with(m, all)
							}
							c := how.send(t, from, m, func() *client {
								c := s.resume(t, to, id)
								c.Subscribe(granted, topic)
								return c
							})
							got := c.Receive(topic, "\x00payload\xff", min(qos, granted))
							if got.Retain != (how.name == "retained") || got.Dup {
								t.Errorf("got %s", mqtttest.Words(got))
							}
							if to != v5 {
								if len(got.Props) > 0 || got.HasExpiry {
									t.Errorf("got %s", mqtttest.Words(got))
								}
							} else if p := properties(t, got); from == v5 {
								if *p.PayloadFormat != 1 || p.MessageExpiry == nil || *p.MessageExpiry > 3000 || *p.ContentType != "text/plain" ||
									*p.ResponseTopic != "re" || string(p.CorrelationData) != "\x07" {
									t.Errorf("got %+v", p)
								}
								sameUser(t, p.User, user)
							} else if len(got.Props) > 0 {
								t.Errorf("properties out of nowhere: %+v", p)
							}
							c.Disconnect()
						}
					}
				})
			}
		}
	}
}

// What only MQTT 5 knows does not hinder the others on the same topics.
func TestOptionsOfMQTT5BesideOlderClients(t *testing.T) {
	proves(t, "MQTT-3.8.3-3 MQTT-3.3.1-13 MQTT-3.3.4-3", "MQTT311-3.3.1-9")
	s := start(t)
	five, four, three := s.connect(t, v5, "five"), s.connect(t, v311, "four"), s.connect(t, v31, "three")
	five.SubscribeWith(7, packet.Subscription{Filter: "a", QoS: 1, NoLocal: true, RetainAsPublished: true})
	four.Subscribe(1, "a")
	three.Subscribe(1, "a")
	for _, from := range versions {
		p := s.connect(t, from, "p")
		publish(p, retained("a", "x", 1))
		if m := five.Receive("a", "x", 1); !m.Retain || len(m.SubscriptionIDs) != 1 {
			t.Errorf("got %s", mqtttest.Words(m))
		}
		for _, c := range []*client{four, three} {
			if m := c.Receive("a", "x", 1); m.Retain {
				t.Errorf("got %s", mqtttest.Words(m))
			}
		}
	}
	five.Send(message("a", "own", 0))
	four.Receive("a", "own", 0)
	three.Receive("a", "own", 0)
	silent(five)
}

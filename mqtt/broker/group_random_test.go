package broker

import (
	"fmt"
	"math/rand"
	"os"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// worker is a member of a group as its client knows it.
type worker struct {
	id         string
	clean      bool
	c          *mqtttest.Client // nil while it is away
	subscribed bool
	open       []*packet.Publish // of QoS 1, not acknowledged
	received   map[uint16]bool   // of QoS 2: PUBREC was sent, or is to be
	released   []uint16          // PUBREL has come
}

// shift is a broker with workers, and what they have had.
type shift struct {
	*rig
	rnd     *rand.Rand
	p       *mqtttest.Client
	workers []*worker
	sent    []byte // the QoS of each message
	got     map[string]int
}

func (x *shift) connect(w *worker) {
	limit := mqtttest.ReceiveMaximum(uint16(1 + x.rnd.Intn(8)))
	if w.clean {
		w.c = x.rig.connect(packet.V5, w.id, limit)
		w.subscribed, w.received = false, map[uint16]bool{}
	} else {
		w.c, _ = x.resume(packet.V5, w.id, limit, mqtttest.Expiry(1_000_000))
	}
	w.open, w.released = nil, nil
}

func (x *shift) subscribe(w *worker) {
	qos := byte(2)
	if w.clean {
		qos = 1 // of QoS 2 it would take messages with it [MQTT-4.8.2-5]
	}
	w.c.Send(&packet.Subscribe{PacketID: w.c.NextID(), Subscriptions: []packet.Subscription{{Filter: someGroup, QoS: qos}}})
	w.subscribed = true
}

// take handles what has come for a worker.
func (x *shift) take(w *worker) (some bool) {
	w.c.Send(&packet.Pingreq{})
	for {
		switch m := w.c.Next().(type) {
		case *packet.Pingresp:
			return some
		case *packet.Publish:
			some = true
			if m.QoS == 1 {
				x.got[string(m.Payload)]++
				w.open = append(w.open, m)
				continue
			}
			if !w.received[m.PacketID] {
				x.got[string(m.Payload)]++
			} else if !m.Dup {
				x.t.Fatalf("%s: identifier %d is used again before its PUBREL", w.id, m.PacketID)
			}
			w.received[m.PacketID] = true
			w.c.Send(ack(packet.PUBREC, m.PacketID))
		case *packet.Ack:
			some = true
			delete(w.received, m.PacketID)
			if m.Code == packet.Success {
				w.released = append(w.released, m.PacketID)
			}
		}
	}
}

// acknowledge does what is open, or some of it.
func (x *shift) acknowledge(w *worker, all bool) {
	for len(w.open) > 0 && (all || x.rnd.Intn(3) > 0) {
		i := x.rnd.Intn(len(w.open))
		w.c.Send(ack(packet.PUBACK, w.open[i].PacketID))
		w.open = append(w.open[:i], w.open[i+1:]...)
	}
	for len(w.released) > 0 && (all || x.rnd.Intn(3) > 0) {
		w.c.Send(ack(packet.PUBCOMP, w.released[0]))
		w.released = w.released[1:]
	}
}

func (x *shift) publish(n int) {
	var list []*packet.Publish
	for range n {
		qos := byte(1 + x.rnd.Intn(2))
		list = append(list, mqtttest.Message(fmt.Sprint("t/", x.rnd.Intn(6)), fmt.Sprint(len(x.sent)), qos))
		x.sent = append(x.sent, qos)
	}
	publishAll(x.p, list...)
}

func (x *shift) again(how func()) {
	how()
	for _, w := range x.workers {
		w.c = nil
	}
	x.p = x.rig.connect(packet.V5, "p")
}

func (x *shift) step() {
	w := x.workers[x.rnd.Intn(len(x.workers))]
	switch op := x.rnd.Intn(40); {
	case op < 12:
		x.publish(1 + x.rnd.Intn(12))
	case w.c == nil:
		x.connect(w)
	case op < 20:
		x.take(w)
	case op < 26:
		x.acknowledge(w, false)
	case op < 30:
		x.subscribe(w)
	case op < 32:
		w.c.Send(&packet.Unsubscribe{PacketID: w.c.NextID(), Filters: []string{someGroup}})
	case op < 35:
		x.drop(w.c)
		w.c = nil
	case op < 37:
		w.c.Send(&packet.Disconnect{})
		x.away(w.id)
		w.c = nil
	case op == 37:
		if err := x.Broker.log.Checkpoint(); err != nil {
			x.t.Fatal(err)
		}
	case op == 38:
		x.again(x.restart)
	default:
		x.again(x.kill)
	}
}

// Whatever members do, and however the broker ends, nothing of QoS 1 or 2 is
// lost to a group that has a persistent member; and while no session ends,
// nothing of QoS 2 comes twice.
func TestAGroupLosesNothingWhateverItsMembersDo(t *testing.T) {
	strategies := []config.Strategy{config.RoundRobin, config.Random, config.Sticky, config.HashClient, config.HashTopic, config.LeastInflight}
	seeds := int64(6)
	if os.Getenv("CAIRNMQ_LONG") != "" {
		seeds = 60
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			clean := (seed+seed/6)%2 == 1
			x := &shift{rnd: rand.New(rand.NewSource(seed)), got: map[string]int{}}
			x.rig = start(t, func(c *config.Config) {
				c.Shared.Strategy = strategies[seed%6]
				c.Sessions.Outbox = 16
				c.Storage.SegmentSize, c.Limits.MaxPacketSize = 64*config.KiB, 16*config.KiB
			})
			x.p = x.rig.connect(packet.V5, "p")
			keeper := &worker{id: "keeper", received: map[uint16]bool{}}
			x.connect(keeper)
			x.subscribe(keeper)
			x.take(keeper)
			x.drop(keeper.c)
			keeper.c = nil
			for i := range 4 {
				x.workers = append(x.workers, &worker{id: fmt.Sprint("w", i), clean: clean && i%2 == 1, received: map[uint16]bool{}})
			}
			for range 150 {
				x.step()
			}
			x.workers = append(x.workers, keeper)
			for deadline := time.Now().Add(mqtttest.Patience); ; {
				some := false
				for _, w := range x.workers {
					if w.clean && w.c != nil {
						x.drop(w.c) // what it had goes to the others
						w.c = nil
					}
					if w.clean {
						continue
					}
					if w.c == nil {
						x.connect(w)
					}
					some = x.take(w) || some
					x.acknowledge(w, true)
				}
				if !some && len(x.got) == len(x.sent) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d of %d messages have come", len(x.got), len(x.sent))
				}
			}
			if clean {
				return
			}
			for i, qos := range x.sent {
				if n := x.got[fmt.Sprint(i)]; n != 1 && qos == 2 {
					t.Errorf("message %d has come %d times", i, n)
				}
			}
		})
	}
}

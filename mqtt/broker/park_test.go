package broker

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// parked reports whether a client's connection has no goroutine just now.
func (r *rig) parked(id string) bool {
	c := r.clients.get(id).c
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	return c.deadlines.parking.id != 0
}

// park makes the broker believe that a client has long been silent.
func (r *rig) park(ids ...string) {
	r.t.Helper()
	if r.lot == nil {
		r.t.Skip("no epoll here")
	}
	for _, id := range ids {
		r.clients.get(id).c.lastRead.Store(instant() - int64(2*parkAfter))
	}
	r.wakeHousekeeper()
	for _, id := range ids {
		eventually(r.t, id+" is parked", func() bool { return r.parked(id) })
	}
}

func TestASilentConnectionNeedsNoGoroutine(t *testing.T) {
	for _, v := range versions {
		t.Run(v.String(), func(t *testing.T) {
			r := start(t)
			a, b := r.connect(v, "a"), r.connect(v, "b")
			a.Subscribe(2, "t/#")
			r.park("a")
			a.Ping() // [MQTT-3.12.4-1]
			if r.parked("a") {
				t.Fatal("a has just been heard")
			}

			// Messages reach it where it is; its acknowledgements wake it.
			for qos := byte(0); qos < 3; qos++ {
				r.park("a", "b")
				b.Publish(mqtttest.Message("t/x", fmt.Sprint("to a silent client ", qos), qos))
				a.Receive("t/x", fmt.Sprint("to a silent client ", qos), qos)
			}

			// A packet in two halves.
			r.park("a")
			whole := (&packet.Pingreq{}).Append(nil, v)
			a.SendRaw(whole[:1])
			eventually(t, "it is awake", func() bool { return !r.parked("a") })
			a.SendRaw(whole[1:])
			mqtttest.Expect[*packet.Pingresp](a)
		})
	}
}

func TestAParkedConnectionEnds(t *testing.T) {
	r := start(t)
	w := r.connect(packet.V5, "watcher")
	w.Subscribe(1, "will/#")
	will := func(topic string) mqtttest.Option {
		return mqtttest.Will(packet.Will{Topic: topic, Payload: []byte("gone"), QoS: 1})
	}

	c := r.connect(packet.V5, "cut", will("will/cut"))
	r.park("cut")
	c.Drop()
	w.Receive("will/cut", "gone", 1)

	c = r.connect(packet.V5, "late", will("will/late"), mqtttest.KeepAlive(8))
	r.park("late")
	r.clients.get("late").c.lastRead.Store(instant() - int64(13*time.Second))
	r.wakeHousekeeper()
	c.ExpectDisconnect(packet.KeepAliveTimeout) // [MQTT-3.1.2-22]
	w.Receive("will/late", "gone", 1)

	c = r.connect(packet.V5, "twice")
	r.park("twice")
	again := r.connect(packet.V5, "twice")
	c.ExpectDisconnect(packet.SessionTakenOver) // [MQTT-3.1.4-3]
	r.park("twice")

	r.close()
	again.ExpectDisconnect(packet.ServerShuttingDown)
}

// Connections are parked again and again while they are in use.
func TestParkingLosesNothing(t *testing.T) {
	r := start(t)
	if r.lot == nil {
		t.Skip("no epoll here")
	}
	const pairs, each = 4, 150
	stop := make(chan struct{})
	var parking, clients sync.WaitGroup
	parking.Add(1)
	go func() {
		defer parking.Done()
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, s := range r.clients.all() {
				s.c.lastRead.Store(instant() - int64(2*parkAfter))
			}
			r.wakeHousekeeper()
		}
	}()
	for i := range pairs {
		topic := fmt.Sprint("t/", i)
		sub, pub := r.connect(packet.V5, fmt.Sprint("s", i)), r.connect(packet.V311, fmt.Sprint("p", i))
		sub.Subscribe(2, topic)
		clients.Add(2)
		go func() {
			defer clients.Done()
			for n := range each {
				pub.Publish(mqtttest.Message(topic, fmt.Sprint(n), byte(n%2)))
			}
		}()
		go func() {
			defer clients.Done()
			for n := range each {
				sub.Receive(topic, fmt.Sprint(n), byte(n%2))
			}
		}()
	}
	clients.Wait()
	close(stop)
	parking.Wait()
}

package broker

import (
	"sync/atomic"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
	"cairnmq/segment/segmenttest"
	"cairnmq/storage"
	"cairnmq/storage/storagetest"
)

// Found by killing the broker under load: the message acknowledged last lay
// behind another one that waited for its sync, so a new subscriber got the
// retained message before it, and then that one as if it were new.
func TestASubscriptionBeginsBehindWhatWasAcknowledged(t *testing.T) { // [MQTT-3.3.1-9]
	disk := storagetest.New()
	var hold atomic.Bool
	begun, goOn := make(chan struct{}), make(chan struct{})
	disk.SetStep(func(op, _ string) {
		if op == string(segmenttest.Flush) && hold.CompareAndSwap(true, false) {
			close(begun)
			<-goOn
		}
	})
	r := startOn(t, disk, func(c *config.Config) {
		c.Durability.Sessions = config.ClassOS
		c.Durability.Rules = []config.DurabilityRule{{Filter: "slow", Class: config.ClassAlways}}
	})
	p, slow, s := r.connect(packet.V5, "p"), r.connect(packet.V5, "slow"), r.connect(packet.V5, "s")
	p.Publish(mqtttest.Retained("a", "old", 1))
	hold.Store(true)
	slow.Send(&packet.Publish{Topic: []byte("slow"), QoS: 1, PacketID: 1})
	<-begun
	p.Publish(mqtttest.Retained("a", "new", 1)) // acknowledged: its class asks for no sync
	before := r.clients.get("s").c.lastRead.Load()
	s.Send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "a", QoS: 1}}})
	eventually(t, "the broker reads the SUBSCRIBE", func() bool { return r.clients.get("s").c.lastRead.Load() != before })
	close(goOn)
	s.Expect(&packet.Suback{PacketID: 1, Codes: []packet.ReasonCode{1}})
	if m := s.Receive("a", "new", 1); !m.Retain {
		t.Errorf("got %s, want the retain flag", mqtttest.Words(m))
	}
	s.ExpectNothing()
	slow.Expect(ack(packet.PUBACK, 1))
}

// startOn opens a broker on a simulated disk.
func startOn(t testing.TB, disk *storagetest.Disk, edit ...func(*config.Config)) *rig {
	t.Helper()
	cfg := config.Default()
	cfg.Storage.Dir = storagetest.Dir
	cfg.Storage.SegmentSize = 64 * config.KiB
	cfg.Limits.MaxPacketSize = 16 * config.KiB
	cfg.Storage.CheckpointInterval = config.Duration(time.Hour)
	cfg.Servers[0].Listen = "127.0.0.1:0"
	for _, f := range edit {
		f(cfg)
	}
	r := &rig{t: t, cfg: cfg, log: &mqtttest.Lines{}, machine: func(o *storage.Options) { o.FS, o.IndexFS = disk.Log, disk.IndexFS() }}
	r.open()
	t.Cleanup(func() { r.close() })
	return r
}

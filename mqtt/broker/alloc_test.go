package broker

import (
	"io"
	"net"
	"runtime"
	"testing"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

func TestLiveDeliveryAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for qos := range byte(2) {
		for _, how := range []struct {
			kept   bool
			filter string
		}{{false, "a/+"}, {true, "a/+"}, {false, "$share/g/a/+"}, {true, "$share/g/a/+"}} {
			kept := how.kept
			r := start(t, func(c *config.Config) { c.Storage.SegmentSize = 64 * config.MiB }) // one is enough
			var o []mqtttest.Option
			if kept {
				o = persistent(packet.V5)
			}
			s := r.connect(packet.V5, "s", o...)
			s.Subscribe(qos, how.filter)
			p := r.connect(packet.V5, "p")
			const burst, rounds = 100, 1000
			var out, acks, in []byte
			for i := range burst {
				m := mqtttest.Message("a/b", "0123456789abcdef0123456789abcdef", qos)
				m.PacketID = uint16(i + 1)
				out = m.Append(out, packet.V5)
			}
			in = make([]byte, len(out))
			puback := make([]byte, 0, 4*burst)
			got := make([]byte, 4*burst)
			round := func() {
				write(t, p.Conn, out)
				if qos == 1 {
					read(t, p.Conn, got)
				}
				read(t, s.Conn, in)
				if qos == 1 {
					acks = puback[:0]
					for at := 0; at < len(in); at += len(in) / burst {
						acks = append(acks, 0x40, 2, in[at+7], in[at+8]) // behind type, length and "a/b"
					}
					write(t, s.Conn, acks)
				}
			}
			for range 100 {
				round()
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range rounds {
				round()
			}
			runtime.ReadMemStats(&after)
			each := float64(after.Mallocs-before.Mallocs) / (burst * rounds)
			t.Logf("qos %d, persistent %v, %s: %.4f allocations per message", qos, kept, how.filter, each)
			if each >= 0.01 {
				t.Errorf("qos %d, persistent %v, %s: %.4f allocations per message", qos, kept, how.filter, each)
			}
			r.close()
		}
	}
}

func write(t *testing.T, c net.Conn, b []byte) {
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c net.Conn, b []byte) {
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
}

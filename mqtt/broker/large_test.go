package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
	"cairnmq/storage"
)

// pattern is what large payloads are made of. Its length is a prime, so bytes
// that are out of place show.
var pattern = func() []byte {
	b := make([]byte, 65521)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}()

// patterned reads n bytes of the pattern, again and again.
func patterned(n int) io.Reader { return io.LimitReader(&repeat{}, int64(n)) }

type repeat struct{ at int }

func (r *repeat) Read(b []byte) (int, error) {
	n := copy(b, pattern[r.at:])
	r.at = (r.at + n) % len(pattern)
	return n, nil
}

// sendLarge publishes with QoS 1 in MQTT 3.1.1 what is never in memory as a
// whole.
func sendLarge(c *mqtttest.Client, topic string, payload int) {
	c.T.Helper()
	b := packet.AppendPublishHeader(nil, packet.V311, 1<<1, 2+len(topic)+2+payload)
	b = append(b, byte(len(topic)>>8), byte(len(topic)))
	b = append(append(b, topic...), 0, 7)
	_ = c.Conn.SetDeadline(time.Now().Add(10 * mqtttest.Patience))
	if _, err := io.Copy(c.Conn, io.MultiReader(bytes.NewReader(b), patterned(payload))); err != nil {
		c.T.Fatal(err)
	}
	c.Expect(ack(packet.PUBACK, 7))
}

// receiveLarge expects such a message and acknowledges it.
func receiveLarge(c *mqtttest.Client, topic string, payload int) {
	c.T.Helper()
	_ = c.Conn.SetDeadline(time.Now().Add(10 * mqtttest.Patience))
	head := packet.AppendPublishHeader(nil, packet.V311, 1<<1, 2+len(topic)+2+payload)
	rest := make([]byte, len(head)+2+len(topic)+2)
	if _, err := io.ReadFull(c.Stream(), rest); err != nil {
		c.T.Fatal(err)
	}
	if id := len(rest) - 2; !bytes.HasPrefix(rest, head) || string(rest[len(head)+2:id]) != topic {
		c.T.Fatalf("%s: the message begins with % x", c.ID, rest)
	}
	want := &repeat{}
	b, expected := make([]byte, 1<<20), make([]byte, 1<<20)
	for left := payload; left > 0; {
		n, err := c.Stream().Read(b[:min(left, len(b))])
		if err != nil {
			c.T.Fatalf("%s: %d bytes before the end: %v", c.ID, left, err)
		}
		_, _ = io.ReadFull(want, expected[:n])
		if !bytes.Equal(b[:n], expected[:n]) {
			c.T.Fatalf("%s: wrong bytes at %d", c.ID, payload-left)
		}
		left -= n
	}
	c.SendRaw([]byte{0x40, 2, rest[len(rest)-2], rest[len(rest)-1]})
}

// The largest message that MQTT can express goes through a log of small
// segments, to a subscriber that is there and to one that comes back, and is
// in memory once while it is received, and not at all while it is sent. One
// that cannot be told of it, because two bytes more do not fit into a packet,
// has it in the ledger.
func TestTheLargestMessageGoesThroughSmallSegments(t *testing.T) {
	remaining := packet.MaxPacketSize - 5
	if raceEnabled || testing.Short() {
		remaining = 24 << 20 // the race detector takes several times the memory
	}
	r := start(t, func(c *config.Config) {
		c.Storage.MaxBytes = 1280 * config.MiB
		c.Limits.MaxPacketSize = config.Size(packet.MaxPacketSize)
	})
	payload := remaining - 2 - len("a") - 2
	live, _ := r.resume(packet.V311, "live")
	away, _ := r.resume(packet.V311, "away")
	five := r.connect(packet.V5, "five", mqtttest.MaximumPacketSize(uint32(remaining+5)))
	for _, c := range []*mqtttest.Client{live, away, five} {
		c.Subscribe(1, "#")
	}
	r.drop(away)
	p := r.connect(packet.V311, "p")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	sendLarge(p, "a", payload)
	receiveLarge(live, "a", payload)
	runtime.ReadMemStats(&after)
	// Growing by doubling takes the size twice in all, and once at a time.
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(payload)/4*9+(8<<20); got > most {
		t.Errorf("a message of %d bytes took %d in memory, at most %d are needed", payload, got, most)
	}
	r.drop(live)
	p.Publish(mqtttest.Message("a", "behind", 1))
	away, _ = r.resume(packet.V311, "away")
	receiveLarge(away, "a", payload)
	away.Receive("a", "behind", 1)
	five.Receive("a", "behind", 1)
	eventually(t, "the ledger has it", func() bool { return has(r.losses(), "too-large [five] 1") })
}

// Messages of many segments' size in every QoS and version: live, retained,
// queued for who is away, over an end in order and over a kill.
func TestMessagesLargerThanSegments(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 3<<20/16)
	for _, v := range versions {
		t.Run(v.String(), func(t *testing.T) {
			r := start(t, func(c *config.Config) { c.Storage.SegmentSize = 64 * config.KiB })
			p, c := r.connect(v, "p"), r.connect(v, "c")
			away, _ := r.resume(v, "away")
			for _, c := range []*mqtttest.Client{c, away} {
				c.Subscribe(2, "#")
			}
			r.drop(away)
			for qos := range byte(3) {
				p.Publish(mqtttest.Retained(fmt.Sprint("q/", qos), large, qos))
				c.Receive(fmt.Sprint("q/", qos), large, qos)
				p.Publish(mqtttest.Message("small", "between", qos))
				c.Receive("small", "between", qos)
			}
			r.restart()
			late := r.connect(v, "late")
			late.Subscribe(2, "q/#")
			for range 3 {
				m := mqtttest.Expect[*packet.Publish](late)
				late.Acknowledge(m)
				if !m.Retain || string(m.Payload) != large {
					t.Fatalf("retained: %s", mqtttest.Words(m))
				}
			}
			r.kill()
			away, _ = r.resume(v, "away")
			for i := 0; i < 6; {
				switch x := away.Next().(type) {
				case *packet.Publish:
					if topic, payload := fmt.Sprint("q/", i/2), large; i%2 == 0 && (string(x.Topic) != topic || string(x.Payload) != payload) || x.QoS != byte(i/2) {
						t.Fatalf("message %d: %s", i, mqtttest.Words(x))
					}
					i++
					if x.QoS > 0 {
						away.Send(ack(packet.PUBACK+packet.Type(x.QoS)-1, x.PacketID))
					}
				case *packet.Ack:
					away.Send(ack(packet.PUBCOMP, x.PacketID))
				}
			}
		})
	}
}

// A large message that finds no room holds back its publisher, or is refused;
// smaller ones go on.
func TestALargeMessageWithoutRoomStopsNobodyElse(t *testing.T) {
	r := start(t, func(c *config.Config) {
		c.Storage.SegmentSize, c.Storage.MaxBytes = 64*config.KiB, 4*config.MiB
		c.Retention = []config.Retention{{Filter: "#", OnFull: config.RejectNew}}
	})
	s, _ := r.resume(packet.V5, "s")
	s.Subscribe(1, "#")
	r.drop(s)
	five, other := r.connect(packet.V5, "five"), r.connect(packet.V311, "other")
	large := strings.Repeat("x", 900<<10)
	sent := 0
	for code := packet.Success; code == packet.Success; sent++ {
		m := mqtttest.Message("a", large, 1)
		m.PacketID = five.NextID()
		five.Send(m)
		code = mqtttest.Expect[*packet.Ack](five).Code
		if code != packet.Success && code != packet.QuotaExceeded || sent > 10 {
			t.Fatalf("message %d: %v", sent, code)
		}
	}
	four := r.connect(packet.V311, "four")
	m := mqtttest.Message("a", large, 1)
	m.PacketID = 1
	four.Send(m)
	eventually(t, "the publisher is held back", func() bool { return strings.Contains(r.log.String(), "publisher held back") })
	other.Publish(mqtttest.Message("b", "small", 1))
	five.Publish(mqtttest.Message("b", "small", 1))

	s, _ = r.resume(packet.V5, "s")
	for range sent - 1 {
		s.Receive("a", large, 1)
	}
	s.Receive("b", "small", 1)
	s.Receive("b", "small", 1)
	four.Expect(ack(packet.PUBACK, 1))
	s.Receive("a", large, 1)
}

// Before MQTT 5 there is no way to say no, and what will never fit must not
// be acknowledged.
func TestAMessageThatCannotBeTakenEndsTheConnection(t *testing.T) {
	for _, err := range []error{storage.ErrUnmappable, storage.ErrTooLarge} {
		s := &session{version: packet.V311, in: new(batch)}
		s.in.msgs = []storage.Message{{}, {Err: fmt.Errorf("%w: 200 MB", err)}}
		var e *packet.Error
		if got := s.cannotTake(); !errors.As(got, &e) || e.Code != packet.PacketTooLarge || !strings.Contains(e.Reason, "200 MB") {
			t.Errorf("%v: %v", err, got)
		}
		if s.version = packet.V5; s.cannotTake() != nil {
			t.Errorf("%v: a client of MQTT 5 is told in its answer", err)
		}
	}
}

// Only a message may be large: of other packets much more is made in memory
// than they take on the wire.
func TestPacketsThatAreNoMessagesAreBounded(t *testing.T) { // 0x95
	r := start(t)
	for _, v := range versions {
		c := r.connect(v, "c")
		c.SendRaw([]byte{0x82, 0x80, 0x80, 0x40}) // SUBSCRIBE of 1 MiB and a few bytes
		c.ExpectDisconnect(packet.PacketTooLarge)
		c = r.dial(v)
		c.SendRaw([]byte{0x10, 0x80, 0x80, 0x40})
		c.ExpectClosed()
	}
	if r.log.Count("the limit is 1048576") == 0 {
		t.Error("the limit is not in the log")
	}
}

// The read buffer grows with what has come, ends where the packet ends, and
// goes back.
func TestTheReadBufferGrowsWithWhatHasCome(t *testing.T) {
	here, there := net.Pipe()
	defer func() { _ = here.Close() }()
	c := newConn(here, new(stats))
	c.maxPacket = 1 << 20
	m := mqtttest.Message("a", strings.Repeat("x", 700_000), 0)
	text := m.Append(nil, packet.V311)
	go func() {
		_, _ = there.Write(append(text, 0xc0, 0)) // and a PINGREQ
		_ = there.Close()
	}()
	for {
		if c.w > c.r {
			f, ok, err := c.frame()
			if err != nil {
				t.Fatal(err)
			}
			if len(c.buf) > max(readBufSize, 2*c.w) || len(c.buf) > max(readBufSize, len(text)) {
				t.Fatalf("a buffer of %d bytes for %d that have come of %d", len(c.buf), c.w, len(text))
			}
			if ok {
				if f.Size != len(text) || !bytes.Equal(c.buf[:f.Size], text) || c.w != f.Size {
					t.Fatalf("%d bytes in a buffer with %d", f.Size, c.w)
				}
				c.consumed(f.Size)
				break
			}
		}
		if err := c.fill(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.fill(); err != nil || len(c.buf) != readBufSize || c.w != 2 {
		t.Fatalf("behind it: %d bytes in a buffer of %d, %v", c.w, len(c.buf), err)
	}
}

// What packets that are being received take together is bounded: who finds
// nothing left waits, whoever has it is not held up, and small ones need none.
func TestMemoryForLargePacketsIsShared(t *testing.T) {
	const size = 600 << 10
	r := start(t, func(c *config.Config) {
		c.Limits.MaxPacketSize, c.Limits.ReceiveMemory = config.MiB, config.MiB
	})
	waiting := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " waiting"), func() bool {
			r.receipt.mu.Lock()
			defer r.receipt.mu.Unlock()
			return len(r.receipt.queue) == n && len(r.receipt.holders) == 1
		})
	}
	var text []byte
	m := mqtttest.Message("a", strings.Repeat("x", size), 1)
	m.PacketID = 1
	text = m.Append(text, packet.V5)
	half := func(id string) *mqtttest.Client {
		c := r.connect(packet.V5, id)
		c.SendRaw(text[:size/2])
		return c
	}
	first := half("first")
	waiting(0)
	second := half("second")
	waiting(1)
	third := half("third")
	waiting(2)
	fourth := half("fourth")
	waiting(3)
	small := r.connect(packet.V5, "small")
	small.Publish(mqtttest.Message("a", strings.Repeat("x", 60<<10), 1))

	first.SendRaw(text[size/2:])
	first.Expect(ack(packet.PUBACK, 1))
	waiting(2)
	// Who waits can be put out, and who goes in the middle gives back.
	r.connect(packet.V5, "third").Disconnect()
	waiting(1)
	third.Drop()
	r.drop(second)
	waiting(0)
	fourth.SendRaw(text[size/2:])
	fourth.Expect(ack(packet.PUBACK, 1))
	first.Send(m)
	first.Expect(ack(packet.PUBACK, 1))

	// Who stops in the middle makes way.
	r.receipt.mu.Lock()
	r.receipt.stall = time.Nanosecond
	r.receipt.mu.Unlock()
	stopped := half("stopped")
	waiting(0)
	first.Send(m)
	first.Expect(ack(packet.PUBACK, 1))
	r.away(stopped.ID)
	if r.log.Count("stopped in the middle of a large packet") != 1 {
		t.Error("the log does not say why")
	}
}

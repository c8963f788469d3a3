package broker

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
	"cairnmq/storage"
)

// values reads what is on its way and belongs to $SYS.
func values(c *mqtttest.Client, retained bool) map[string]string {
	c.T.Helper()
	got := make(map[string]string)
	c.Send(&packet.Pingreq{})
	for {
		switch p := c.Next().(type) {
		case *packet.Pingresp:
			return got
		case *packet.Publish:
			if !strings.HasPrefix(string(p.Topic), "$SYS/broker/") || p.QoS != 0 || p.Retain != retained {
				c.T.Fatalf("got %s", mqtttest.Words(p))
			}
			if _, twice := got[string(p.Topic)]; twice {
				c.T.Errorf("%s comes twice", p.Topic)
			}
			got[strings.TrimPrefix(string(p.Topic), "$SYS/broker/")] = string(p.Payload)
		default:
			c.T.Fatalf("got %s", mqtttest.Words(p))
		}
	}
}

func number(t *testing.T, values map[string]string, name string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(values[name], 10, 64)
	if err != nil {
		t.Errorf("%s is %q", name, values[name])
	}
	return n
}

// seldom leaves it to the test when $SYS topics are made.
func seldom(c *config.Config) { c.Sys.Interval = config.Duration(time.Hour) }

// The names that people know from Mosquitto are there, and say what has happened.
func TestSYSTopics(t *testing.T) {
	r := start(t, seldom)
	away, _ := r.resume(packet.V5, "away")
	away.Subscribe(1, "a/#", "b")
	r.drop(away)
	p := r.connect(packet.V311, "p")
	s := r.connect(packet.V5, "s")
	s.Subscribe(1, "a/#")
	const n = 7
	for range n {
		p.Publish(mqtttest.Message("a/x", "12345", 1))
		s.Receive("a/x", "12345", 1)
	}
	p.Publish(mqtttest.Retained("kept", "x", 1))
	p.Publish(mqtttest.Message("$app", "x", 1)) // dropped
	s.Ping()
	c := r.connect(packet.V5, "watcher")
	c.Subscribe(0, "$SYS/#")
	got := values(c, true)
	for name, want := range map[string]int64{
		"clients/connected": 3, "clients/disconnected": 1, "clients/total": 4, "clients/maximum": 3, "clients/expired": 0,
		"publish/messages/received": n + 2, "publish/messages/sent": n, "publish/messages/dropped": 1,
		"publish/bytes/received": 5*n + 1, "retained messages/count": 1, "subscriptions/count": 4,
		"messages/stored": n + 1, "store/messages/count": n + 1, "messages/inflight": 0,
		"readers/count": 3, "log/losses/rows": 0, "log/losses/messages": 0,
	} {
		if x := number(t, got, name); x != want {
			t.Errorf("%s: %d, want %d", name, x, want)
		}
	}
	for _, name := range []string{
		"bytes/received", "bytes/sent", "messages/received", "messages/sent", "heap/current", "heap/maximum",
		"log/head", "log/committed", "log/oldest", "log/segments", "log/disk/bytes", "log/disk/budget", "store/messages/bytes",
	} {
		if number(t, got, name) <= 0 {
			t.Errorf("%s: %s", name, got[name])
		}
	}
	if in, out := number(t, got, "messages/received"), number(t, got, "messages/sent"); in < 2*n+8 || out < 2*n+8 {
		t.Errorf("packets: %d received, %d sent", in, out)
	}
	if number(t, got, "log/head") != int64(r.Broker.log.Head()) || number(t, got, "log/disk/budget") != int64(r.cfg.Storage.MaxBytes) {
		t.Errorf("head %s, budget %s", got["log/head"], got["log/disk/budget"])
	}
	if !strings.HasPrefix(got["version"], "cairnmq version ") || !strings.HasSuffix(got["uptime"], " seconds") {
		t.Errorf("version %q, uptime %q", got["version"], got["uptime"])
	}
	var worst struct {
		Client   string
		Online   bool
		Bytes    int64
		Position storage.Pos
	}
	if err := json.Unmarshal([]byte(got["readers/lag/1"]), &worst); err != nil || worst.Client != "away" || worst.Online ||
		worst.Bytes <= 0 || worst.Bytes != number(t, got, "readers/lag/maximum") || worst.Position+storage.Pos(worst.Bytes) != r.Broker.log.Committed() {
		t.Errorf("the reader that is furthest behind: %v %s", err, got["readers/lag/1"])
	}
}

// Only what has changed is told, each value once for a client however many of its subscriptions match, and nothing of
// it is in the log.
func TestSYSTopicsTellWhatHasChanged(t *testing.T) {
	r := start(t, seldom)
	c := r.connect(packet.V5, "c")
	for i, x := range []packet.Subscription{{Filter: "$SYS/broker/clients/+"}, {Filter: "$SYS/broker/clients/connected", QoS: 2, RetainAsPublished: true}, {Filter: "$SYS/+/uptime"}} {
		x.RetainHandling = 2
		c.SubscribeWith(uint32(i+1), x)
	}
	r.reportSys()
	for _, v := range publishes(c) { // the first round tells everything
		if string(v.Topic) == "$SYS/broker/clients/connected" {
			if len(v.SubscriptionIDs) != 2 || !v.Retain || v.QoS != 0 { // [MQTT-3.3.4-3], [MQTT-3.3.4-4], [MQTT-3.3.1-13]
				t.Errorf("got %s", mqtttest.Words(v))
			}
		} else if v.Retain { // [MQTT-3.3.1-12]
			t.Errorf("got %s", mqtttest.Words(v))
		}
	}
	head := r.Broker.log.Head()
	r.skew.Add(int64(time.Minute))
	r.reportSys()
	if got := values(c, false); len(got) != 1 || !strings.HasSuffix(got["uptime"], " seconds") {
		t.Errorf("a minute later: %v", got)
	}
	if r.Broker.log.Head() != head {
		t.Error("it is written to the log")
	}
	r.connect(packet.V5, "d")
	r.reportSys()
	var topics []string
	for _, v := range publishes(c) {
		if string(v.Topic) != "$SYS/broker/uptime" { // which has changed if a second has passed
			topics = append(topics, string(v.Topic)+"="+string(v.Payload))
		}
	}
	if got := strings.Join(topics, " "); got != "$SYS/broker/clients/connected=2 $SYS/broker/clients/maximum=2 $SYS/broker/clients/total=2" {
		t.Errorf("another client: %s", got)
	}
	c.Send(&packet.Unsubscribe{PacketID: 9, Filters: []string{"$SYS/+/uptime", "$SYS/broker/clients/+", "$SYS/broker/clients/connected"}})
	mqtttest.Expect[*packet.Unsuback](c)
	r.connect(packet.V5, "e")
	r.reportSys()
	c.ExpectNothing()
}

func publishes(c *mqtttest.Client) (list []*packet.Publish) {
	c.T.Helper()
	c.Send(&packet.Pingreq{})
	for {
		p := c.Next()
		if _, end := p.(*packet.Pingresp); end {
			return list
		}
		list = append(list, p.(*packet.Publish))
	}
}

// A session that comes back goes on being told; a client that takes small packets gets no large one, and one that does
// not read is not sent more and more.
func TestSYSTopicsOfSessions(t *testing.T) {
	r := start(t, seldom)
	c, _ := r.resume(packet.V5, "c")
	c.Subscribe(0, "$SYS/broker/uptime")
	values(c, true)
	r.drop(c)
	c, _ = r.resume(packet.V5, "c")
	c.ExpectNothing()
	r.skew.Add(int64(time.Minute))
	r.reportSys()
	if got := values(c, false); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	small := r.connect(packet.V5, "small", mqtttest.MaximumPacketSize(40))
	small.Subscribe(0, "$SYS/#")
	for name, v := range values(small, true) { // [MQTT-3.1.2-24]
		if len("$SYS/broker/"+name)+len(v)+5 > 40 {
			t.Errorf("%s=%s is too large", name, v)
		}
	}
	s := r.clients.get("small")
	d := packet.Delivery{Topic: []byte("$SYS/broker/uptime"), Payload: []byte("x")}
	s.mu.Lock() // as if the socket took nothing
	for range 10_000 {
		s.queueSysLocked(&d)
	}
	waiting := len(s.ctrl)
	s.mu.Unlock()
	if waiting > sysLimit+d.Size(packet.V5) {
		t.Errorf("%d bytes wait", waiting)
	}
	s.kick(false)
	if got := publishes(small); len(got) != waiting/d.Size(packet.V5) {
		t.Errorf("%d of %d bytes have come", len(got)*d.Size(packet.V5), waiting)
	}
	small.ExpectNothing()
}

func TestSYSTopicsCanBeTurnedOff(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Sys.Interval = 0 })
	c := r.connect(packet.V5, "c")
	c.Subscribe(0, "$SYS/#")
	c.ExpectNothing()
}

// With many readers there are topics for the worst of them only.
func TestTheReadersThatAreFurthestBehind(t *testing.T) {
	r := readers{committed: 1000, most: 3}
	for i := range 100 {
		r.add(lag{Client: strconv.Itoa(i), Position: storage.Pos(950 + (i*37)%100)}, 1, 0)
	}
	r.add(lag{Client: "reads nothing", Position: 1}, 0, 0)
	if r.count != 100 || r.lagging != 50 || len(r.worst) != 3 {
		t.Errorf("%+v", r)
	}
	for i, want := range []int64{50, 49, 48} {
		if r.worst[i].Bytes != want {
			t.Errorf("rank %d: %+v", i, r.worst[i])
		}
	}
}

// A rate that lasts is what the averages come to; one that is over is forgotten, by the short ones first.
func TestLoadAverages(t *testing.T) {
	var l load
	count := int64(0)
	for range 600 {
		count += 100
		l.observe(count, 10*time.Second)
	}
	for i, x := range l.average {
		if math.Abs(x-600) > 1 {
			t.Errorf("%s: %v", loadTimes[i].name, x)
		}
	}
	for range 6 {
		l.observe(count, 10*time.Second)
	}
	for i, want := range []float64{600 / math.E, 600 * math.Exp(-1./5), 600 * math.Exp(-1./15)} {
		if math.Abs(l.average[i]-want) > 1 {
			t.Errorf("%s: %v, want %v", loadTimes[i].name, l.average[i], want)
		}
	}
	before := l
	l.observe(count+5, 0)
	l.observe(count+5, -time.Hour)
	if l != before {
		t.Error("a clock that stands or goes back changes something")
	}
}

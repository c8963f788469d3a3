package broker

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
)

// await is the next value of a channel.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(mqtttest.Patience):
		t.Fatalf("still not: %s", what)
	}
	panic("not reached")
}

func done3(t *testing.T, what string, token paho3.Token) {
	t.Helper()
	if !token.WaitTimeout(mqtttest.Patience) || token.Error() != nil {
		t.Fatalf("%s: %v", what, token.Error())
	}
}

// fixed gives the broker an address that stays over a restart.
func fixed(t *testing.T) func(*config.Config) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	return func(c *config.Config) { c.Servers[0].Listen = addr }
}

func TestPahoForMQTT311(t *testing.T) {
	r := start(t, fixed(t))
	messages := make(chan paho3.Message, 100)
	lost := make(chan error, 1)
	client := func(id string, edit func(*paho3.ClientOptions)) paho3.Client {
		o := paho3.NewClientOptions().AddBroker("tcp://" + r.Addr("main").String()).SetClientID(id).SetCleanSession(false).
			SetAutoReconnect(false).SetConnectionLostHandler(func(_ paho3.Client, err error) { lost <- err }).
			SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) { messages <- m })
		if edit != nil {
			edit(o)
		}
		c := paho3.NewClient(o)
		done3(t, "connect", c.Connect())
		return c
	}
	s := client("s", nil)
	done3(t, "subscribe", s.Subscribe("a/#", 2, nil))
	p := client("p", func(o *paho3.ClientOptions) { o.SetWill("a/will", "gone", 1, false) })
	for qos := range byte(3) {
		done3(t, "publish", p.Publish("a/b", qos, qos == 1, fmt.Sprint("qos ", qos)))
		if m := await(t, "message", messages); m.Qos() != qos || string(m.Payload()) != fmt.Sprint("qos ", qos) {
			t.Fatalf("got qos %d, %q", m.Qos(), m.Payload())
		}
	}
	late := client("late", nil)
	done3(t, "subscribe", late.Subscribe("a/b", 1, nil))
	if m := await(t, "retained message", messages); !m.Retained() || string(m.Payload()) != "qos 1" {
		t.Fatalf("got %q, retained %v", m.Payload(), m.Retained())
	}
	// Paho acknowledges by the way, and forgets to when it is to disconnect.
	for id, c := range map[string]paho3.Client{"late": late, "s": s} {
		eventually(t, id+" has acknowledged everything", func() bool { _, _, n := r.clients.get(id).progress(); return n == 0 })
		c.Disconnect(0)
		r.away(id)
	}
	done3(t, "publish", p.Publish("a/b", 2, false, "while away"))
	r.clients.get("p").c.leave() // the connection is lost
	await(t, "the loss is noticed", lost)
	r.away("p")
	r.restart()
	s = client("s", nil)
	if m := await(t, "message", messages); string(m.Payload()) != "while away" {
		t.Fatalf("got %q", m.Payload())
	}
	if m := await(t, "will", messages); m.Topic() != "a/will" || string(m.Payload()) != "gone" {
		t.Fatalf("got %q", m.Payload())
	}
	s.Disconnect(0)
}

func TestPahoForMQTT5(t *testing.T) {
	r := start(t, fixed(t))
	ctx, cancel := context.WithTimeout(context.Background(), mqtttest.Patience)
	defer cancel()
	messages := make(chan *paho5.Publish, 100)
	client := func(id string, clean bool, edit func(*paho5.Connect)) (*paho5.Client, *paho5.Connack) {
		nc, err := net.Dial("tcp", r.Addr("main").String())
		if err != nil {
			t.Fatal(err)
		}
		c := paho5.NewClient(paho5.ClientConfig{Conn: nc, OnPublishReceived: []func(paho5.PublishReceived) (bool, error){
			func(m paho5.PublishReceived) (bool, error) { messages <- m.Packet; return true, nil }}})
		expiry := uint32(3600)
		connect := &paho5.Connect{ClientID: id, CleanStart: clean, KeepAlive: 30, Properties: &paho5.ConnectProperties{SessionExpiryInterval: &expiry}}
		if edit != nil {
			edit(connect)
		}
		a, err := c.Connect(ctx, connect)
		if err != nil {
			t.Fatal(err)
		}
		return c, a
	}
	s, _ := client("s", true, nil)
	if _, err := s.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "a/#", QoS: 2}}}); err != nil {
		t.Fatal(err)
	}
	p, _ := client("p", true, func(c *paho5.Connect) {
		c.WillMessage = &paho5.WillMessage{Topic: "a/will", Payload: []byte("gone"), QoS: 1}
	})
	for qos := range byte(3) {
		m := &paho5.Publish{Topic: "a/b", QoS: qos, Payload: []byte("x"), Retain: qos == 2,
			Properties: &paho5.PublishProperties{ContentType: "text/plain", User: paho5.UserProperties{{Key: "k", Value: "v"}}}}
		if _, err := p.Publish(ctx, m); err != nil {
			t.Fatal(err)
		}
		if m := await(t, "message", messages); m.QoS != qos || m.Properties.ContentType != "text/plain" || m.Properties.User.Get("k") != "v" {
			t.Fatalf("got %v", m)
		}
	}
	late, _ := client("late", true, nil)
	if _, err := late.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "a/b", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	if m := await(t, "retained message", messages); !m.Retain {
		t.Fatalf("got %v", m)
	}
	if err := s.Disconnect(&paho5.Disconnect{}); err != nil {
		t.Fatal(err)
	}
	r.away("s")
	if err := p.Disconnect(&paho5.Disconnect{ReasonCode: 4}); err != nil {
		t.Fatal(err)
	}
	r.away("p")
	r.restart()
	s, a := client("s", false, nil)
	if !a.SessionPresent {
		t.Fatal("no session")
	}
	if m := await(t, "will", messages); m.Topic != "a/will" || string(m.Payload) != "gone" {
		t.Fatalf("got %v", m)
	}
	_ = s.Disconnect(&paho5.Disconnect{})
}

func TestMosquittoClients(t *testing.T) {
	for _, tool := range []string{"mosquitto_pub", "mosquitto_sub"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	r := start(t)
	_, port, _ := net.SplitHostPort(r.Addr("main").String())
	for _, v := range []string{"31", "311", "5"} {
		args := []string{"-p", port, "-V", "mqttv" + v}
		topic := "m/" + v
		pub := func(more ...string) {
			t.Helper()
			if out, err := exec.Command("mosquitto_pub", append(append(args[:4:4], "-t", topic), more...)...).CombinedOutput(); err != nil {
				t.Fatalf("mosquitto_pub: %v: %s", err, out)
			}
		}
		pub("-q", "1", "-r", "-m", "kept")
		sub := exec.Command("mosquitto_sub", append(args[:4:4], "-t", topic, "-q", "2", "-C", "4", "-i", "sub-"+v)...)
		out, err := sub.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := sub.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		next := func() string {
			lines.Scan()
			return strings.TrimSpace(lines.Text())
		}
		got := []string{next()} // so it has subscribed
		for qos := range 3 {
			pub("-q", fmt.Sprint(qos), "-m", fmt.Sprint("qos", qos))
			got = append(got, next())
		}
		if want := "kept qos0 qos1 qos2"; strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, want %q", v, got, want)
		}
		if err := sub.Wait(); err != nil {
			t.Errorf("mosquitto_sub: %v", err)
		}
	}
}

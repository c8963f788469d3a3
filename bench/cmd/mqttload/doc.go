//go:build linux

// Mqttload measures an MQTT broker, or several side by side.
//
// Against a broker that runs already (it should hold nothing yet):
//
//	mqttload -addr 127.0.0.1:1883 -pid 4711 fanin10
//
// Starting each broker anew with an empty data directory for every run, in
// shuffled order, and printing medians:
//
//	mqttload -rounds 3 -broker mosquitto -broker 'new=./cairnmq' fanin10 pairs10
//
// A broker is given as name=command. The command may contain {dir} and {port},
// and {mosquitto.conf}, {mosquitto-stored.conf}, {cairnmq.toml}, {nats.conf} or
// {rumqttd.toml} for the path of a configuration that is written there. A
// command that is only a path to mosquitto, cairnmq, nats-server, rumqttd, mochi
// or floor is completed.
//
// The arguments are scenarios, with other numbers too:
//
//	fanin10        10 publishers, one subscriber to all of them
//	pairs10, pair  publishers with a subscriber each
//	fanout100      one publisher, 100 subscribers
//	publish10      10 publishers, nobody subscribed
//	rtt            one publisher with one message in flight
//	shared4        10 publishers, a shared subscription of 4
//	topics1000000  fan-in over a million topics
//	subs100000     100,000 subscriptions, two thirds with wildcards
//	store          publish for a session that is away, then deliver to it
//	offline1000    publish while 1,000 sessions on # are away
//	kill50000      store, SIGKILL, start again, deliver (needs -broker)
//	beside1000     latency while 1,000 MB go to a slow subscriber
//	retained50000  set retained messages, then deliver them
//	idle10000      connections that do nothing
//
// The flags change all of them.
//
// The status is non-zero if any run failed: lost, repeated, misordered or
// damaged messages, or no end.
package main

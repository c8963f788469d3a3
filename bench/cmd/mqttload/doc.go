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
// and {mosquitto.conf} or {cairnmq.toml} for the path of a configuration that
// is written there. A command that is only a path to mosquitto or cairnmq is
// completed.
//
// The arguments are scenarios: fanin10, pairs10, pair1, fanout100, publish10,
// rtt, store, offline100, retained50000, idle10000, with other numbers too.
// The flags change all of them.
//
// The status is non-zero if any run failed: lost, repeated, misordered or
// damaged messages, or no end.
package main

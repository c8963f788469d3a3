// Package bench holds the programs that measure brokers; it has no code of
// its own.
//
//	wire           the few MQTT packets a load needs, encoded and decoded here
//	broker         starts, stops and kills a broker process and reads its figures
//	load           the generator: sockets, publishers, subscribers, scenarios;
//	               it is "cairnmq bench", too
//	chart          draws figures as SVG
//	cmd/mqttload   one scenario against one broker, or several side by side
//	cmd/study      all tables and charts of docs/benchmarks.md
//	cmd/torture    kills the broker under load, and counts what was lost
//	cmd/figures    restart time, idle memory and the price of offline sessions
//	cmd/floor      a bound: the least a Go program can do with the same traffic
//	cmd/demo       readings through a SIGKILL
//	peers          other brokers, in a module of their own
//
// Nothing here imports the broker's own packages, so a mistake in its codec or
// its store cannot hide behind the same mistake in the measuring program.
//
// # How a number is taken
//
// A run starts the broker fresh with an empty data directory, connects, loads
// it for a warm-up (0.7 s), then measures (2 s), then stops publishing and
// waits for everything outstanding. Comparisons run several rounds with the
// order of the brokers shuffled in each, and report medians.
//
// Broker and generator run on the same machine over loopback, so the cores a
// generator burns are missing to the broker; it is one thread, and its own CPU
// time per message is printed beside the broker's. CPU time comes from the
// process's CPU clock, which counts nanoseconds and includes threads that have
// ended, not from clock ticks.
//
// Every message carries its publisher, topic and sequence number, and every
// subscriber checks every one of them. A run that lost, repeated, reordered or
// damaged a message is no measurement: it is printed as FAILED and the program
// ends with a non-zero status.
//
// The programs need Linux (epoll, /proc).
package bench

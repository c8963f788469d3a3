//go:build linux

// Demo shows with real programs and real readings that acknowledged means
// kept: the broker, and mosquitto_pub and mosquitto_sub as its clients.
//
//	demo [-window 100] /path/to/cairnmq readings.csv
//
// A subscriber makes a persistent session and goes away. Then every reading is
// published at QoS 1, one publisher for each sensor. When half of them are
// acknowledged the broker gets SIGKILL; it is started again, and publishing
// goes on. At last the subscriber comes back and reads what it missed.
//
// # What is counted
//
// A reading is acknowledged when its publisher has printed the PUBACK. Lost
// are readings that were acknowledged and not delivered. A reading may be
// delivered again, because the publisher sends again what was not acknowledged
// when the broker was killed, and QoS 1 allows it: that is counted as repeated,
// wherever it comes. Out of order is a reading whose first delivery comes after
// that of a later one of its topic. Every payload is compared with what was
// published.
//
// The end of the readings is a message of its own on the topic seattle/end,
// published after all of them: when it arrives, everything that was to come
// has come, and nothing is left to waiting.
//
// The status is non-zero if a reading was lost, misordered or altered, or if
// it takes longer than -limit.
package main

//go:build linux

// Study takes the figures of docs/benchmarks.md: each subcommand measures one
// part of that page and writes it between the part's markers, with the machine,
// the versions and the date.
//
//	study peers     CairnMQ in its classes, other brokers and the floor program, interleaved
//	study scaling   one core and two; what grows with connections, subscriptions, topics, sessions, backlog
//	study small     a small device: one core, 64 MiB, 8 MiB segments; bytes to disk per byte of payload
//	study smoke     every scenario for a moment against CairnMQ, only to see that all are clean
//
// Usually through make: bench-peers, bench-scaling, bench-small, bench-smoke. A
// broker whose program is not there is left out with a word about it.
//
// peers keeps every run as a line of JSON in -out, and with -resume goes on
// where an earlier one ended; -render only writes the page from that file.
//
// The status is non-zero if CairnMQ lost, repeated, reordered or damaged a
// message. Faults of the others are in the table.
package main

// Package peers is a module of its own: what it depends on, two brokers to be
// measured beside ours, is no business of the product's go.mod. It has no code;
// mochi is a main program around the library mochi-mqtt, and nats-server is
// built as it is (the tool line in go.mod pins its version).
package peers

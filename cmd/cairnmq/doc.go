// Command cairnmq is the broker and the tools around its log.
//
// Each command is a file of its own that reads its flags and calls what does
// the work: mqtt/broker, storage/inspect, mqtt/config. docs/cli.md shows every
// command with its output.
package main

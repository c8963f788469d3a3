//go:build linux

// Figures measures what a broker that stores everything must be good at, and
// prints one table in Markdown:
//
//   - the time from the start of the program to the first accepted client,
//     after a SIGKILL, with a backlog of each size given;
//   - the memory of a broker that has nothing to do;
//   - memory and CPU time per published message with many offline sessions
//     that are subscribed to everything, against none.
//
// Usage:
//
//	figures [-backlog 1GB,10GB] [-sessions 10000] /path/to/cairnmq
//
// Instead of the path it takes any broker as mqttload does, name=command.
// After the last restart the backlog is delivered and checked, unless -verify=false.
// The status is non-zero if anything was lost.
package main

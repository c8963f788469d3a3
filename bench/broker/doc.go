//go:build linux

// Package broker runs a broker as a child process for a measurement: it fills
// in the command line, writes a configuration where the broker needs one,
// starts it on a free loopback port, and stops or kills it. It also reads what
// the kernel knows about a process: CPU time, resident memory, bytes written.
//
// The package knows some brokers by name, for the sake of short command lines
// and of limits that are the same in every comparison; any other is given as a
// command with {dir} and {port} in it.
package broker

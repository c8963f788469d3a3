// Package session is one client's delivery state: which packet identifiers
// are in flight to it, how many more it takes, and which QoS 2 messages from
// it are not yet released.
//
// It promises the packet identifier rules of QoS 1 and 2 and of flow control,
// and nothing else: no sockets, no clock, no storage, no lock. Events go in,
// answers come out; the owner serialises the calls.
package session

// Package broker is the server: connections, sessions, routing and delivery.
//
// # Promise
//
// A PUBACK, PUBREC, SUBACK or UNSUBACK leaves only after the record that it
// answers meets its durability class (inbound.go, subscribe.go). A session is
// a cursor on the log: while its client is away it costs a row in the index
// and nothing when a message is published. A slow or stopped subscriber holds
// nobody up and takes no memory beyond its outbox: it falls back to reading
// the log (catchup.go). A malformed packet closes the connection that sent it,
// with the reason code of the standard, and disturbs nobody else.
//
// # The way of a message
//
//	conn.go      bytes are read into a pooled buffer
//	inbound.go   all packets in it are parsed and appended as one batch
//	router.go    whoever appended reads what is committed, once, and puts an
//	             entry of 24 bytes into the outbox of each session that matches
//	deliver.go   the session's flusher encodes from the mapping and writes
//
// A shared subscription (group.go) takes the place of a session up to its
// outbox; dealing.go then chooses a member for each message (picker.go), gives
// it a packet identifier there, writes that down, and hands it to the member's
// flusher (shares.go). groups.go says who is a member.
//
// # Goroutines
//
// One for each listener, one for each connection, which reads; one for each
// session that has something to send and whose socket is not ready for it
// (flushing), which ends when there is nothing left; one housekeeper, and one
// that reports ($SYS topics). Shutdown (Broker.Close) ends them in this order:
// listeners, connections, housekeeper and reporter, log.
//
// # Locks
//
// groups.mu, the view of the log (storage.Log.WithView, Sink), group.mu and
// session.mu are taken in this order. Nothing is appended and nothing is
// written to the index under the last two: the log may have to wait for its
// keeper, and the keeper asks groups and sessions for their state.
package broker

//go:build linux

// Package load drives an MQTT broker with many clients from one thread and
// checks every message that comes back.
//
// A Loop owns all sockets and is used by one goroutine, which is tied to its
// thread while it measures. A pass of the loop lets every publisher write
// what its window allows, flushes, and reads what has arrived. When a pass
// brought little the next one waits, by default 200 µs and up to five times
// that while the broker has plenty left to do, so that work gathers into
// batches instead of being done in crumbs at the broker's expense. For the
// same reason a publisher waits until a quarter of its window is free. At a
// fixed rate and for round trips there are no pauses: the loop sleeps until
// something arrives or becomes due. Nothing is allocated per message.
//
// A message's payload names its stream (publisher and topic), its number in
// it, and when it was sent. A Checker per subscription compares the numbers
// with the order in which they must come, so loss, repetition and reordering
// are found for each subscriber by itself.
//
// At a fixed rate a message's time is the moment it was due, whether or not it
// could be sent then, so that a broker which holds up the sender does not hide
// behind it ("coordinated omission"). How late the generator itself was is in
// the figures, too.
//
// A Scenario says what to do, Run does it to a Target and returns a Result.
// RunFresh starts a broker for it. The Target may be on another machine, behind
// TLS or ask for a password; a Scenario with CleanUp leaves nothing behind.
package load

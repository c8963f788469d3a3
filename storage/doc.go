// Package storage is the engine of CairnMQ: one log of segments, and an index
// that is a view of it.
//
// # Promise
//
// Append returns positions in one order that never changes. Wait returns nil
// only after the records meet their durability class. Readers see a record
// only once its class is met (Committed). Opening after any end of the process
// or the machine yields what was promised, in time that does not depend on
// the backlog: the index is opened and the log is replayed from the
// checkpoint. What cannot be read is fenced, reported and kept for study. What
// is dropped is written down in the loss ledger.
//
// # Order
//
// Data, then view, then acknowledgement: a record is appended to the active
// segment (append.go), synced if its class asks for it (sync.go), then read
// by the view in order (view.go), which keeps postings and retained messages
// and hands the record to the router. The index (Pebble) is written at a
// checkpoint, after the log up to there was synced (checkpoint.go), so it
// never knows more than the disk.
//
// # Who may do what
//
// Append is safe for many goroutines and serialised by one short critical
// section per batch. The view is advanced by whoever appended, one at a time,
// and by a goroutine that follows the syncs. One goroutine, the keeper, does
// everything slow: preparing the next segment, sealing, checkpoints,
// retention. One more, the syncer, does nothing but sync.
package storage

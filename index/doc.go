// Package index keeps a materialised view of the log: small rows that answer
// quickly what the log could only answer by being read.
//
// # Promise
//
// After a crash the index holds exactly what some prefix of the applied
// batches made of it, and that prefix reaches at least to the last Flush that
// returned nil. A batch is never seen in part. Nothing here is a second
// write-ahead log: what a crash takes away, the owner replays from the log,
// starting at Meta.Checkpoint. Replaying must therefore be idempotent, because
// the index may be further ahead than its checkpoint says: a memtable that
// fills up is flushed without being asked. Put SetCheckpoint into the batch
// that holds the last event it covers, and call Flush before Pending grows
// past a quarter of the memtable, and that happens rarely.
//
// Damage is reported, never papered over: an operation that meets it returns
// an error that wraps ErrDamaged, Failed is closed, and the owner sets the
// directory aside and rebuilds. Two kinds of damage cannot be told from a crash
// and are not reported: the last edit of the MANIFEST torn off, and an empty
// directory. The first shows an older prefix (its Checkpoint is smaller than
// the owner remembers), the second shows an index without Meta.
//
// # Keys
//
// A key is one prefix byte, then fixed-width big-endian fields, then at most
// one field of free length, which always comes last. So keys sort as their
// fields do, and no field needs escaping even when one topic or client id
// begins another.
//
//	prefix  fields             value                      derived or primary
//	m v                        table version, Meta        derived (log id: segment headers)
//	m c                        checkpoint, 8 bytes        derived (0 means replay all)
//	s       base               segment row                derived
//	p       base, topic        postings                   derived
//	r       topic              position, 8 bytes          derived
//	c       client id          session row                primary for what is older than the oldest segment
//	o       client id          nothing: it was online     derived from the checkpoint on
//	d       time, client id    nothing: it is due then    derived from session rows
//	n       reader name        reader row                 primary, as sessions
//	l       position           loss row                   derived while its segment stands
//
// base and position are log positions; time is in Unix milliseconds with the
// sign bit flipped, so that times before 1970 sort first. Rows are opaque here:
// their owner versions them with Meta.Format. The table above has its own
// version in the first byte of the "m v" value; a newer one gives ErrNewer.
//
// # Concurrency
//
// An Index may be used by many goroutines at once, a Batch by one. Iterations
// see the moment at which they began. Functions given to an iteration may call
// the index, but not Close, and must not keep the slices they are given.
package index

package index

import "errors"

// Opening.
var (
	// ErrNewer: the files, or the key table in them, were written by a later
	// version of this program. They are whole; do not set them aside.
	ErrNewer = errors.New("index was written by a newer version")

	// ErrLocked: another process, or another Index, has the directory open.
	ErrLocked = errors.New("index is locked by another process")
)

// Using.
var (
	// ErrDamaged: stored bytes are missing or are not what was written. It may
	// come from Open and from every read. Set the directory aside and rebuild.
	ErrDamaged = errors.New("index is damaged")

	// ErrFatal: the index cannot become durable any more in this process,
	// because it is unknown what an append to the MANIFEST left on the disk.
	// Reads still work. Only opening again, best in a new process, helps.
	ErrFatal = errors.New("index can no longer be made durable")

	// ErrReadOnly: a write to an index opened with Options.ReadOnly.
	ErrReadOnly = errors.New("index is open for reading only")

	// ErrClosed: an operation after Close.
	ErrClosed = errors.New("index is closed")
)

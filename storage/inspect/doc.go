// Package inspect reads a data directory without the broker: no index, no
// lock, nothing written. The directory may belong to a running broker, be a
// copy of one, or be a folder of segment files out of which some are missing.
//
// It promises to show every sound record once and in order, to name every
// range that cannot be read, and to end whatever the files hold. Memory does
// not depend on the size of the log.
//
// Two things it cannot know. It reads the files and not the broker's committed
// position, so a record of class always may show here a moment before it is
// durable. And a record's time is what the clock said: where the clock was
// set, times do not follow the order of positions, and whole segments are
// judged by the times of their making and sealing.
package inspect

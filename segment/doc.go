// Package segment is the file format of the CairnMQ log and its mapping into
// memory.
//
// # Promise
//
// A segment is a file of fixed size into which records are appended. What
// Append has returned survives the death of the process without a system
// call, because the bytes are in a shared mapping and belong to the kernel. It
// survives a power cut once Sync has returned. Whatever happened, reading
// yields whole, checked records in the order in which they were appended, or
// a Damage that names the range that could not be read; never a record that
// was not written.
//
// # Lifetime of bytes
//
// Records handed out by a Segment are slices of the mapping. They are valid
// while the caller holds a pin (Set.Pin, Segment.Unpin) and not a moment
// longer: reading them later can be a fault that ends the process. Whoever
// keeps bytes copies them.
//
// # Positions
//
// A Pos is the byte position of a record in one endless log. A segment holds
// the positions from its base on; the file is named after the base, twenty
// digits and ".seg". The base of the following segment is the base plus the
// reserved size, even when the segment was sealed early, so positions are
// never used twice and a few are never used at all.
//
// # Segment file, version 1
//
// Integers are little-endian.
//
//	offset 0
//	+-------------------+---------+-------+---------+
//	| magic "CAIRNSEG"  | version | hdrlen| crc32c  |   8 + 2 + 2 + 4
//	+-------------------+---------+-------+---------+
//	| log id                                        |   16
//	+-----------------------+-----------------------+
//	| base                  | size                  |   8 + 8
//	+-----------+-----+-----+-----------------------+
//	| salt      | boot|  0  | created (unix ns)     |   4 + 2 + 2 + 8
//	+-----------+-----+-----+-----------------------+
//	offset 64: first record
//
// # Record
//
// Every record begins at a multiple of 8. The length counts header and body
// but not the padding behind them.
//
//	 0        4        8    9    10   12        16
//	+--------+--------+----+----+----+---------+
//	| length | crc32c |kind|flag| id | expiry  |
//	+--------+--------+----+----+----+---------+
//	| wall clock, unix ns     | boot, monotonic|   8 + (2 + 6 bytes, ms)
//	+-------------------------+----------------+
//	| body: length - 32 bytes, then 0..7 zeros |
//	+------------------------------------------+
//
// A length of zero means "not written": reserved space reads as the end. The
// checksum (Castagnoli) covers everything from the kind to the end of the
// body and starts from the segment's salt xor the length, so a record that an
// older file left in the same blocks does not pass for a new one.
//
// The last record of a sealed segment is a seal (KindSeal): what the segment
// holds, in numbers. A sealed file is cut behind it.
//
// # Disk
//
// We assume that a sync that returned without an error put the range on
// stable storage; that a failed sync may have thrown the pages away, so that
// a second, successful one proves nothing (a failed sync is final); that
// sectors of 512 bytes are written whole or not at all, in any order; and
// that creating, renaming and removing are durable only after the directory
// was synced.
package segment

package index

import "encoding/binary"

// The prefixes of the key table in doc.go.
const (
	prefixMeta     = 'm'
	prefixSegment  = 's'
	prefixPostings = 'p'
	prefixRetained = 'r'
	prefixSession  = 'c'
	prefixOnline   = 'o'
	prefixDue      = 'd'
	prefixReader   = 'n'
	prefixLoss     = 'l'
)

// The two rows under prefixMeta.
var (
	keyMeta       = []byte{prefixMeta, 'v'}
	keyCheckpoint = []byte{prefixMeta, 'c'}
)

const (
	posKeyLen    = 1 + 8 // prefix, position
	signBit      = 1 << 63
	checkpointSz = 8
)

// appendPosKey appends prefix and pos.
func appendPosKey(dst []byte, prefix byte, pos uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, prefix), pos)
}

// appendNameKey appends prefix and name, which runs to the end of the key.
func appendNameKey(dst []byte, prefix byte, name string) []byte {
	return append(append(dst, prefix), name...)
}

// appendPostingsKey appends the key of topic in the segment at base.
func appendPostingsKey[T string | []byte](dst []byte, base uint64, topic T) []byte {
	return append(appendPosKey(dst, prefixPostings, base), topic...)
}

// appendDueKey appends the key of id, due at unix millisecond at.
func appendDueKey(dst []byte, at int64, id string) []byte {
	return append(appendPosKey(dst, prefixDue, uint64(at)^signBit), id...)
}

// splitPosKey undoes appendPosKey.
func splitPosKey(key []byte, prefix byte) (pos uint64, ok bool) {
	pos, rest, ok := splitPosNameKey(key, prefix)
	return pos, ok && len(rest) == 0
}

// splitPosNameKey undoes appendPostingsKey, and appendDueKey but for the time.
func splitPosNameKey(key []byte, prefix byte) (pos uint64, name []byte, ok bool) {
	if len(key) < posKeyLen || key[0] != prefix {
		return 0, nil, false
	}
	return binary.BigEndian.Uint64(key[1:posKeyLen]), key[posKeyLen:], true
}

// splitDueKey undoes appendDueKey.
func splitDueKey(key []byte) (at int64, id []byte, ok bool) {
	pos, id, ok := splitPosNameKey(key, prefixDue)
	return int64(pos ^ signBit), id, ok
}

// splitNameKey undoes appendNameKey.
func splitNameKey(key []byte, prefix byte) (name []byte, ok bool) {
	if len(key) == 0 || key[0] != prefix {
		return nil, false
	}
	return key[1:], true
}

// successor returns the least key greater than every key that begins with
// prefix. A prefix is never empty and never all 0xff, because its first byte is
// one of the letters above, so there always is one.
func successor(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			next := append([]byte(nil), prefix[:i+1]...)
			next[i]++
			return next
		}
	}
	panic("index: key without a prefix letter")
}

// tableVersion is the version of the key table in doc.go.
const tableVersion = 1

// metaLen is: table version, format, log id.
//
//	0        1           5                 21
//	+--------+-----------+-----------------+
//	| table  | format BE | log id          |
//	+--------+-----------+-----------------+
const metaLen = 1 + 4 + 16

func appendMeta(dst []byte, m Meta) []byte {
	dst = append(dst, tableVersion)
	dst = binary.BigEndian.AppendUint32(dst, m.Format)
	return append(dst, m.LogID[:]...)
}

// decodeMeta leaves Checkpoint alone: it has a row of its own, because it moves
// all the time and the rest never does.
func decodeMeta(row []byte) (m Meta, ok bool) {
	if len(row) != metaLen || row[0] != tableVersion {
		return m, false
	}
	m.Format = binary.BigEndian.Uint32(row[1:])
	copy(m.LogID[:], row[5:])
	return m, true
}

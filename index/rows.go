package index

import "encoding/binary"

// Segments: one opaque row by the segment's base position.

// SetSegment stores the row of the segment at base.
func (b *Batch) SetSegment(base uint64, row []byte) { b.set(b.posKey(prefixSegment, base), row) }

// DeleteSegment removes the row and all postings of the segment at base.
func (b *Batch) DeleteSegment(base uint64) {
	b.delete(b.posKey(prefixSegment, base))
	postings := b.posKey(prefixPostings, base)
	b.deleteRange(postings, successor(postings))
}

// Segment returns the row of the segment at base.
func (x *Index) Segment(base uint64) (row []byte, ok bool, err error) {
	return x.get(appendPosKey(nil, prefixSegment, base))
}

// Segments calls fn for every segment, in order.
func (x *Index) Segments(fn func(base uint64, row []byte) error) error {
	return x.scanPos(prefixSegment, 0, fn)
}

// Postings: what the owner encodes, by segment and topic.

// SetPostings stores the postings of topic in the segment at base.
func (b *Batch) SetPostings(base uint64, topic []byte, enc []byte) {
	b.key = appendPostingsKey(b.key[:0], base, topic)
	b.set(b.key, enc)
}

// Postings returns the postings of topic in the segment at base.
func (x *Index) Postings(base uint64, topic string) (enc []byte, ok bool, err error) {
	return x.get(appendPostingsKey(nil, base, topic))
}

// PostingTopics calls fn for every topic of the segment at base that begins
// with prefix, in byte order.
func (x *Index) PostingTopics(base uint64, prefix string, fn func(topic, enc []byte) error) error {
	lo := appendPostingsKey(nil, base, prefix)
	return x.scan(lo, lo, func(key, enc []byte) error {
		_, topic, ok := splitPosNameKey(key, prefixPostings)
		if !ok {
			return x.wrong(key)
		}
		return fn(topic, enc)
	})
}

// Retained: position of the retained message, by topic.

// SetRetained stores where the retained message of topic is.
func (b *Batch) SetRetained(topic string, pos uint64) {
	b.set(b.nameKey(prefixRetained, topic), b.pos(pos))
}

// DeleteRetained removes topic.
func (b *Batch) DeleteRetained(topic string) { b.delete(b.nameKey(prefixRetained, topic)) }

// Retained returns where the retained message of topic is.
func (x *Index) Retained(topic string) (pos uint64, ok bool, err error) {
	return x.getPos(appendNameKey(nil, prefixRetained, topic))
}

// RetainedPrefix calls fn for every retained topic that begins with prefix, in
// byte order.
func (x *Index) RetainedPrefix(prefix string, fn func(topic []byte, pos uint64) error) error {
	return x.RetainedAfter(prefix, "", fn)
}

// RetainedAfter is RetainedPrefix for the topics that come after the topic
// after, so that a long list can be read in parts.
func (x *Index) RetainedAfter(prefix, after string, fn func(topic []byte, pos uint64) error) error {
	lo := appendNameKey(nil, prefixRetained, prefix)
	from := lo
	if after != "" && after >= prefix {
		// No topic contains a zero byte, so this is the next possible key.
		from = append(appendNameKey(nil, prefixRetained, after), 0)
	}
	return x.scan(lo, from, func(key, value []byte) error {
		topic, ok := splitNameKey(key, prefixRetained)
		if !ok || len(value) != 8 {
			return x.wrong(key)
		}
		return fn(topic, binary.BigEndian.Uint64(value))
	})
}

// Sessions: one opaque row by client id.

// SetSession stores the row of client id.
func (b *Batch) SetSession(id string, row []byte) { b.set(b.nameKey(prefixSession, id), row) }

// DeleteSession removes the row of client id, and its online mark. Due times
// are not removed: only the owner, who reads the row, knows them.
func (b *Batch) DeleteSession(id string) {
	b.delete(b.nameKey(prefixSession, id))
	b.ClearOnline(id)
}

// Session returns the row of client id.
func (x *Index) Session(id string) (row []byte, ok bool, err error) {
	return x.get(appendNameKey(nil, prefixSession, id))
}

// Sessions calls fn for every session, in byte order of the ids.
func (x *Index) Sessions(fn func(id string, row []byte) error) error {
	return x.scanNames(prefixSession, fn)
}

// SetOnline notes that client id is connected, for whoever starts after a crash.
func (b *Batch) SetOnline(id string) { b.set(b.nameKey(prefixOnline, id), nil) }

// ClearOnline undoes SetOnline.
func (b *Batch) ClearOnline(id string) { b.delete(b.nameKey(prefixOnline, id)) }

// Online calls fn for every client noted as connected.
func (x *Index) Online(fn func(id string) error) error {
	return x.scanNames(prefixOnline, func(id string, _ []byte) error { return fn(id) })
}

// SetDue notes that something is to be done for client id at unix millisecond at.
func (b *Batch) SetDue(at int64, id string) {
	b.key = appendDueKey(b.key[:0], at, id)
	b.set(b.key, nil)
}

// DeleteDue undoes SetDue with the same arguments.
func (b *Batch) DeleteDue(at int64, id string) {
	b.key = appendDueKey(b.key[:0], at, id)
	b.delete(b.key)
}

// Due calls fn for everything due at until or before, earliest first.
func (x *Index) Due(until int64, fn func(at int64, id string) error) error {
	return x.scanTo([]byte{prefixDue}, successor(appendDueKey(nil, until, "")),
		func(key, _ []byte) error {
			at, id, ok := splitDueKey(key)
			if !ok {
				return x.wrong(key)
			}
			return fn(at, string(id))
		})
}

// Readers (shared groups, uplinks, named consumers): one opaque row by name.

// SetReader stores the row of the reader called name.
func (b *Batch) SetReader(name string, row []byte) { b.set(b.nameKey(prefixReader, name), row) }

// DeleteReader removes the row of the reader called name.
func (b *Batch) DeleteReader(name string) { b.delete(b.nameKey(prefixReader, name)) }

// Reader returns the row of the reader called name.
func (x *Index) Reader(name string) (row []byte, ok bool, err error) {
	return x.get(appendNameKey(nil, prefixReader, name))
}

// Readers calls fn for every reader, in byte order of the names.
func (x *Index) Readers(fn func(name string, row []byte) error) error {
	return x.scanNames(prefixReader, fn)
}

// Losses: the ledger, one opaque row by the position of its record in the log.

// SetLoss stores the row of the loss recorded at pos.
func (b *Batch) SetLoss(pos uint64, row []byte) { b.set(b.posKey(prefixLoss, pos), row) }

// DeleteLosses removes the losses recorded before pos, when their segments go.
func (b *Batch) DeleteLosses(before uint64) {
	b.deleteRange([]byte{prefixLoss}, appendPosKey(nil, prefixLoss, before))
}

// Losses calls fn for every loss recorded at from or after, in order.
func (x *Index) Losses(from uint64, fn func(pos uint64, row []byte) error) error {
	return x.scanPos(prefixLoss, from, fn)
}

// scanPos iterates over the rows whose key is prefix and a position.
func (x *Index) scanPos(prefix byte, from uint64, fn func(pos uint64, row []byte) error) error {
	return x.scan([]byte{prefix}, appendPosKey(nil, prefix, from), func(key, row []byte) error {
		pos, ok := splitPosKey(key, prefix)
		if !ok {
			return x.wrong(key)
		}
		return fn(pos, row)
	})
}

// scanNames iterates over the rows whose key is prefix and a name.
func (x *Index) scanNames(prefix byte, fn func(name string, row []byte) error) error {
	return x.scan([]byte{prefix}, []byte{prefix}, func(key, row []byte) error {
		name, ok := splitNameKey(key, prefix)
		if !ok {
			return x.wrong(key)
		}
		return fn(string(name), row)
	})
}

package index

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Batch collects changes that are seen together or not at all. Later changes
// win over earlier ones. It belongs to one goroutine.
type Batch struct {
	x   *Index
	b   *pebble.Batch
	key []byte // scratch
	val [checkpointSz]byte
	err error // the first refusal; Apply returns it
}

// NewBatch returns an empty batch.
func (x *Index) NewBatch() *Batch {
	return &Batch{x: x, b: x.db.NewBatch()}
}

// perRow is what a row costs in a memtable beyond its bytes in the batch.
const perRow = 64

// Apply makes the changes visible, not durable, and empties the batch. On an
// error nothing was changed and the batch is as it was.
func (b *Batch) Apply() error {
	if b.err != nil {
		return b.err
	}
	x := b.x
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	if x.opts.ReadOnly {
		return ErrReadOnly
	}
	if b.b.Empty() {
		return nil
	}
	if err := x.health.fatalErr(); err != nil {
		return err
	}
	// Pebble would wait for the disk, however long, once its queue is full.
	if _, err := x.health.flushState(); err != nil && x.pending.Load() >= x.opts.MemTableBytes {
		return fmt.Errorf("apply to index: memtables are full and cannot be flushed: %w", err)
	}
	size := int64(b.b.Len()) + perRow*int64(b.b.Count())
	if err := x.db.Apply(b.b, pebble.NoSync); err != nil {
		return fmt.Errorf("apply to index: %w", err)
	}
	x.pending.Add(size)
	b.b.Reset()
	return nil
}

// Reset forgets the changes.
func (b *Batch) Reset() {
	b.b.Reset()
	b.err = nil
}

// Len returns how many changes there are, and Size how many bytes they take.
func (b *Batch) Len() int  { return int(b.b.Count()) }
func (b *Batch) Size() int { return b.b.Len() }

// SetMeta stores m, its checkpoint included.
func (b *Batch) SetMeta(m Meta) {
	b.set(keyMeta, appendMeta(nil, m))
	b.SetCheckpoint(m.Checkpoint)
}

// SetCheckpoint stores where replay has to start.
func (b *Batch) SetCheckpoint(pos uint64) { b.set(keyCheckpoint, b.pos(pos)) }

func (b *Batch) set(key, value []byte)     { b.note(b.b.Set(key, value, nil)) }
func (b *Batch) delete(key []byte)         { b.note(b.b.Delete(key, nil)) }
func (b *Batch) deleteRange(lo, hi []byte) { b.note(b.b.DeleteRange(lo, hi, nil)) }

func (b *Batch) note(err error) {
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("change to index: %w", err)
	}
}

// pos encodes a position; the result holds until the next call.
func (b *Batch) pos(pos uint64) []byte {
	binary.BigEndian.PutUint64(b.val[:], pos)
	return b.val[:]
}

// posKey and nameKey build a key; the result holds until the next call.
func (b *Batch) posKey(prefix byte, pos uint64) []byte {
	b.key = appendPosKey(b.key[:0], prefix, pos)
	return b.key
}

func (b *Batch) nameKey(prefix byte, name string) []byte {
	b.key = appendNameKey(b.key[:0], prefix, name)
	return b.key
}

package storage

import (
	"path/filepath"
)

// Checkpoint makes the index durable up to the position that the view has
// reached, so that a restart replays only what follows.
//
// The order is what keeps the index from knowing more than the disk: collect
// the rows, sync the log behind everything that they reflect, write the rows
// and the position, flush. Nobody else writes to the index from the sync to
// the flush.
func (l *Log) Checkpoint() error {
	v := &l.view
	v.Lock()
	pos := v.pos
	l.writeRetainedLocked()
	v.Unlock()

	l.gate.Lock()
	defer l.gate.Unlock()
	b := l.index.NewBatch()
	for _, src := range l.sources.snapshot() {
		if row, persist := src.Snapshot(true); row != nil && persist {
			putSession(b, row)
		}
	}
	if err := l.Sync(); err != nil {
		return err
	}
	b.SetCheckpoint(uint64(pos))
	if err := b.Apply(); err != nil {
		return err
	}
	if err := l.index.Flush(); err != nil {
		return err
	}
	l.seq.Lock()
	l.seq.checkpoint = pos
	l.seq.Unlock()
	l.log.Debug("checkpoint", "pos", pos)
	return nil
}

func (l *Log) dirtySinceCheckpoint() bool {
	l.seq.Lock()
	defer l.seq.Unlock()
	return l.Head() > l.seq.checkpoint
}

// rebuildMark in the data directory asks the next start to rebuild the index.
const rebuildMark = "index.rebuild"

func (l *Log) markForRebuild() {
	m, err := l.o.FS.Create(filepath.Join(l.dir, rebuildMark), 4096)
	if err == nil {
		err = m.Unmap()
	}
	if err != nil {
		l.log.Warn("cannot mark the index for rebuilding", "error", err)
	}
}

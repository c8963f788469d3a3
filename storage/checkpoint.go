package storage

import (
	"errors"
	"io/fs"
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
	err := l.writeRetainedLocked()
	v.Unlock()
	if err != nil {
		return err
	}

	l.gate.Lock()
	defer l.gate.Unlock()
	b := l.index.NewBatch()
	// After a checkpoint that failed, the sources think that they were saved.
	onlyDirty := !l.gate.failed
	l.gate.failed = true
	for _, src := range l.sources.snapshot() {
		row, persist := src.Snapshot(onlyDirty)
		if row == nil {
			continue
		}
		// A source in the middle of an append does not yet show its effect,
		// even if it is not one to keep: it is replayed from there.
		pos = min(pos, row.AsOf)
		if persist {
			l.keepDue(row)
			putSession(b, row)
		}
	}
	for _, src := range l.sources.groupSnapshot() {
		if row := src.SnapshotGroup(onlyDirty); row != nil {
			pos = min(pos, row.AsOf)
			putGroup(b, row)
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
	l.gate.failed = false
	l.seq.Lock()
	l.seq.checkpoint = max(l.seq.checkpoint, pos)
	l.seq.Unlock()
	l.log.Debug("checkpoint", "pos", pos)
	return nil
}

// keepDue lets a source's row replace the due time that the index holds from
// before the session was opened.
func (l *Log) keepDue(row *SessionRow) {
	old, ok, err := l.LoadSession(row.ID)
	if err != nil {
		l.indexTrouble(err)
	} else if ok {
		row.KeepDue(old)
	}
}

// checkpointCovers reports whether a restart replays nothing before pos.
func (l *Log) checkpointCovers(pos Pos) bool {
	l.seq.Lock()
	defer l.seq.Unlock()
	return l.seq.checkpoint >= pos
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
		err = errors.Join(m.Unmap(), l.o.FS.SyncDir(l.dir))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		l.log.Warn("cannot mark the index for rebuilding", "error", err)
	}
}

package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// Metrics is a snapshot of counters and sizes.
type Metrics struct {
	DiskBytes      int64 // all files, also those about to be removed
	Tables         int64
	Level0Tables   int64 // what checkpoints wrote and no compaction has merged
	CacheBytes     int64
	CacheHits      int64
	CacheMisses    int64
	MemTableBytes  int64 // reserved, not used
	PendingBytes   int64 // see Pending
	Flushes        int64
	FlushedBytes   int64 // written to tables by flushes since Open
	Compactions    int64
	CompactedBytes int64 // written to tables by compactions since Open
}

// Metrics returns the numbers of this moment; none after Close.
func (x *Index) Metrics() Metrics {
	if x.enter() != nil {
		return Metrics{}
	}
	defer x.leave()
	p := x.db.Metrics()
	m := Metrics{
		DiskBytes:     int64(p.DiskSpaceUsage()),
		Level0Tables:  p.Levels[0].TablesCount,
		CacheBytes:    p.BlockCache.Size,
		CacheHits:     p.BlockCache.Hits,
		CacheMisses:   p.BlockCache.Misses,
		MemTableBytes: int64(p.MemTable.Size),
		PendingBytes:  x.Pending(),
		Flushes:       p.Flush.Count,
		Compactions:   p.Compact.Count,
	}
	for _, level := range p.Levels {
		m.Tables += level.TablesCount
		m.FlushedBytes += int64(level.TableBytesFlushed)
		m.CompactedBytes += int64(level.TableBytesCompacted)
	}
	return m
}

// Verify reads every table from the disk and every row, and returns the first
// damage it meets, with its file or key. It reads beside other users and takes
// as long as that takes.
func (x *Index) Verify() error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	if err := x.verifyTables(); err != nil {
		return x.readError("verify index", err)
	}
	return x.verifyRows()
}

// verifyTables checks the checksum of every block of every table.
func (x *Index) verifyTables() error {
	levels, err := x.db.SSTables()
	if err != nil {
		return err
	}
	for _, level := range levels {
		for _, table := range level {
			name := fmt.Sprintf("%s.sst", table.BackingSSTNum)
			err := x.verifyTable(x.opts.FS.PathJoin(x.dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				if live, lerr := x.live(table); lerr != nil || !live {
					continue // compacted away meanwhile
				}
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func (x *Index) live(wanted pebble.SSTableInfo) (bool, error) {
	levels, err := x.db.SSTables()
	for _, level := range levels {
		for _, table := range level {
			if table.BackingSSTNum == wanted.BackingSSTNum {
				return true, nil
			}
		}
	}
	return false, err
}

func (x *Index) verifyTable(path string) error {
	file, err := x.opts.FS.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(file)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	reader, err := sstable.NewReader(context.Background(), readable, x.popts.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(reader.ValidateBlockChecksums(), reader.Close())
}

// verifyRows checks that every row has a place in the key table. Going through
// all of them also checks the order of the keys and what joins the tables.
func (x *Index) verifyRows() error {
	return x.scanTo([]byte{0}, []byte{0xff}, func(key, value []byte) error {
		if !wellFormed(key, value) {
			return x.wrong(key)
		}
		return nil
	})
}

func wellFormed(key, value []byte) bool {
	ok := false
	switch key[0] {
	case prefixMeta:
		switch string(key) {
		case string(keyMeta):
			_, ok = decodeMeta(value)
		case string(keyCheckpoint):
			ok = len(value) == checkpointSz
		}
	case prefixSegment, prefixLoss:
		_, ok = splitPosKey(key, key[0])
	case prefixPostings:
		_, _, ok = splitPosNameKey(key, prefixPostings)
	case prefixRetained:
		ok = len(value) == 8
	case prefixDue:
		_, _, ok = splitDueKey(key)
	case prefixSession, prefixOnline, prefixReader:
		ok = true
	}
	return ok
}

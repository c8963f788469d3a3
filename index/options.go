package index

import (
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// FS is the file system that Pebble works on, named here so that those above
// can pass one through without knowing Pebble.
type FS = vfs.FS

// Options may be zero.
type Options struct {
	// FS is where the files are. Nil is the real file system.
	FS FS
	// Logger gets Pebble's chatter, all of it at debug level. Nil drops it.
	Logger *slog.Logger
	// CacheBytes bounds the cache of blocks read; 0 is DefaultCacheBytes. While
	// memtables are smaller than MemTableBytes, the cache may use their share.
	CacheBytes int64
	// MemTableBytes is how much Pebble collects before it flushes by itself;
	// 0 is DefaultMemTableBytes. Up to stopWrites times as much may be in
	// memory while the disk is slow.
	MemTableBytes int64
	// ReadOnly refuses writes and leaves every file as it is, but the lock.
	ReadOnly bool
}

// Defaults of Options. A memtable starts at 256 KiB and grows only when more
// than half of it is used between two flushes, so an index that is flushed often
// takes little more than its cache, and the busiest 12 MiB.
const (
	DefaultCacheBytes    = 4 << 20
	DefaultMemTableBytes = 4 << 20
)

// pebbleFormat is the newest format whose features are used here: checksummed
// table footers. Raising it is a one-way street for every directory it opens.
const pebbleFormat = pebble.FormatTableFormatV6

const (
	// stopWrites memtables in the queue make Apply wait for the disk.
	stopWrites = 4

	// compactAt is the depth of level 0 that starts a compaction. Every
	// compaction out of level 0 rewrites what it overlaps below, for session
	// rows nearly everything, so waiting for 8 checkpoints rather than
	// Pebble's 2 divides what is written to flash by nearly four. The price,
	// up to 8 tables to ask, is paid by filters.
	compactAt = 16 // Pebble counts a sublevel twice

	// neverStall: when compactions cannot run, because a table is damaged,
	// level 0 grows. Reading slowly is better than an Apply that never returns.
	neverStall = 1 << 20

	// tableBytes is small, so that a compaction that touches few keys rewrites
	// little.
	tableBytes = 1 << 20

	// filterBits per key make one in a hundred wrong. They earn their keep on
	// postings: whoever catches up asks every segment for a topic that few have.
	// Such a miss in 40 MB takes 1.6 us rather than 2.5, and above all reads
	// nothing once the filters, a byte and a quarter a key, are in the cache.
	filterBits = 10

	manifestBytes = 1 << 20 // read whole at Open
	openFiles     = 74      // Pebble's minimum
)

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.MemTableBytes <= 0 {
		o.MemTableBytes = DefaultMemTableBytes
	}
	return o
}

// pebble translates o, whose defaults are set.
func (o Options) pebble(h *health, lock *pebble.Lock) *pebble.Options {
	p := &pebble.Options{
		FS:                 o.FS,
		Lock:               lock,
		Logger:             h,
		EventListener:      h.listener(),
		ReadOnly:           o.ReadOnly,
		FormatMajorVersion: pebbleFormat,
		DisableWAL:         true, // the log is the write-ahead log
		// Pebble takes its memtables, the one in use and one kept for the next,
		// out of the cache's budget; as it is, nothing would be left to cache.
		CacheSize:                   o.CacheBytes + 2*o.MemTableBytes,
		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: stopWrites,
		L0CompactionThreshold:       compactAt,
		L0StopWritesThreshold:       neverStall,
		MaxManifestFileSize:         manifestBytes,
		MaxOpenFiles:                openFiles,
	}
	for i := range p.TargetFileSizes {
		p.TargetFileSizes[i] = tableBytes
	}
	for i := range p.Levels {
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(filterBits)
		// Topics and rows compress well, and a byte not written is a byte saved.
		p.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
	}
	p.Experimental.FileCacheShards = 1
	// Compactions because something is read often would wear the flash out by reading.
	p.Experimental.ReadSamplingMultiplier = -1
	p.EnsureDefaults()
	return p
}

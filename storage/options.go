package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cairnmq/index"
	"cairnmq/segment"
)

// Class is what must have happened to a record before it is acknowledged.
type Class uint8

// The durability classes, weakest first.
const (
	// ClassOS: the record is in the mapping. The kernel writes when it likes.
	ClassOS Class = iota
	// ClassInterval: the record is in the mapping, and is synced within
	// Options.SyncInterval.
	ClassInterval
	// ClassAlways: the record is on stable storage.
	ClassAlways
)

var classNames = [...]string{"os", "interval", "always"}

func (c Class) String() string { return classNames[c] }

// ParseClass reads a class by name.
func ParseClass(s string) (Class, error) {
	for i, name := range classNames {
		if s == name {
			return Class(i), nil
		}
	}
	return 0, fmt.Errorf("durability class %q: want always, interval or os", s)
}

// ClassRule gives messages on matching topics a class.
type ClassRule struct {
	Filter string
	Class  Class
}

// RetentionRule limits what is kept of matching topics.
type RetentionRule struct {
	Filter   string
	MaxBytes int64         // 0: no limit of its own
	MaxAge   time.Duration // 0: no limit of its own
	// RejectNew refuses new messages rather than dropping old ones that a
	// reader still needs.
	RejectNew bool
}

// Options of a log. The zero value of a field means the default in brackets.
type Options struct {
	FS segment.FS // the real one
	// IndexFS is where the index is; FS must see the same files [the real one].
	IndexFS     index.FS
	SegmentSize int64 // 64 MiB
	// MaxBytes is the budget for the whole directory [4 GiB].
	MaxBytes int64
	// MaxAge drops segments whose newest record is older [no limit].
	MaxAge time.Duration
	// SyncInterval is the loss window of ClassInterval [200 ms].
	SyncInterval time.Duration
	DefaultClass *Class // ClassInterval
	ClassRules   []ClassRule
	// SessionClass is the class of session events [the strongest in use].
	SessionClass *Class
	Retention    []RetentionRule
	// CheckpointBytes and CheckpointInterval bound what a restart replays
	// [16 MiB, 10 s].
	CheckpointBytes    int64
	CheckpointInterval time.Duration
	MappedSegments     int // sealed segments that stay mapped unused [4]
	IndexCache         int64
	Now                func() time.Time
	Logger             *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = segment.OS{}
	}
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.SegmentSize, 64<<20)
	def(&o.MaxBytes, 4<<30)
	def(&o.CheckpointBytes, 16<<20)
	def(&o.IndexCache, 4<<20)
	if o.SyncInterval == 0 {
		o.SyncInterval = 200 * time.Millisecond
	}
	if o.CheckpointInterval == 0 {
		o.CheckpointInterval = 10 * time.Second
	}
	if o.MappedSegments == 0 {
		o.MappedSegments = 4
	}
	if o.DefaultClass == nil {
		c := ClassInterval
		o.DefaultClass = &c
	}
	if o.SessionClass == nil {
		c := *o.DefaultClass
		for _, r := range o.ClassRules {
			c = max(c, r.Class)
		}
		o.SessionClass = &c
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Errors when appending.
var (
	// ErrFull: there is no room on the disk or in the budget. It passes by
	// itself when there is room again.
	ErrFull = errors.New("the log has no room")
	// ErrLarge is an ErrFull for this record alone, because it needs a segment
	// larger than usual; smaller ones find room.
	ErrLarge = fmt.Errorf("%w for a record of this size", ErrFull)
	// ErrUnmappable: the record needs a segment that the process has no
	// address space for.
	ErrUnmappable = errors.New("no address space for a record of this size")
	// ErrQuota: a retention rule with reject-new has used up its share.
	ErrQuota = errors.New("the retention rule's share is used up")
	// ErrTooLarge: the record does not fit in any segment, or in the budget.
	ErrTooLarge = errors.New("the record is larger than the log can take")
	// ErrFailed: a sync failed. Nothing may be acknowledged any more; the
	// process must end, and recovery starts from what the disk has.
	ErrFailed = errors.New("the log has failed")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("the log is closed")
)

// Errors when opening.
var (
	// ErrLocked: another process has the directory.
	ErrLocked = errors.New("the data directory is in use by another process")
)

// Errors when reading.
var (
	// ErrGone: the record was dropped by retention, or never was.
	ErrGone = errors.New("no record at this position")
	// ErrEnd: no committed record there yet.
	ErrEnd = segment.ErrEnd
)

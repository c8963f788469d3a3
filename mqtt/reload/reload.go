package reload

import (
	"os"
	"slices"
	"time"
)

const (
	// lookInterval is how often files are looked at.
	lookInterval = time.Second
	// settleTime is how old a file must be for its time to tell: one that was written twice within the clock's
	// grain looks the same after the second time.
	settleTime = 2 * time.Second
)

// Watch knows how files looked when they were last read. It belongs to one goroutine at a time.
type Watch struct {
	paths  []string
	now    func() time.Time
	looked time.Time // when the files were last looked at
	seen   []stamp
	seenAt time.Time // when they were read
}

// New looks at the files. The caller reads them after it.
func New(paths []string, now func() time.Time) *Watch {
	w := &Watch{paths: paths, now: now}
	w.looked, w.seen = now(), w.stamps()
	w.seenAt = w.looked
	return w
}

// Due reports whether it is time to look again. If so, the caller asks Changed.
func (w *Watch) Due() bool {
	now := w.now()
	if since := now.Sub(w.looked); since >= 0 && since < lookInterval {
		return false
	}
	w.looked = now
	return true
}

// Changed reports whether the files may say something else than when they were last read. If so, the caller reads
// them.
func (w *Watch) Changed() bool {
	stamps := w.stamps()
	unsettled := slices.ContainsFunc(w.seen, func(s stamp) bool { return !s.settled(w.seenAt) })
	if slices.EqualFunc(stamps, w.seen, stamp.same) && !unsettled {
		return false
	}
	w.seenAt = w.looked
	w.seen = stamps
	return true
}

// stamp is how a file looked from outside; nil if it was not there.
type stamp struct{ os.FileInfo }

func (s stamp) same(other stamp) bool {
	if s.FileInfo == nil || other.FileInfo == nil {
		return s.FileInfo == other.FileInfo
	}
	return os.SameFile(s.FileInfo, other.FileInfo) && s.Size() == other.Size() && s.ModTime().Equal(other.ModTime())
}

func (s stamp) settled(now time.Time) bool {
	return s.FileInfo == nil || now.Sub(s.ModTime()) >= settleTime
}

func (w *Watch) stamps() []stamp {
	all := make([]stamp, len(w.paths))
	for i, path := range w.paths {
		if info, err := os.Stat(path); err == nil {
			all[i] = stamp{info}
		}
	}
	return all
}

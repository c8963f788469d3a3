package storage

import (
	"errors"
	"sync"

	"cairnmq/segment"
)

// damageBook remembers which ranges have been reported.
type damageBook struct {
	mu   sync.Mutex
	seen map[Pos]bool
}

// ReportDamage writes an unreadable range into the loss ledger, once. The
// bytes stay where they are, for study.
func (l *Log) ReportDamage(d *segment.Damage) {
	l.damage.mu.Lock()
	known := l.damage.seen[d.From]
	if !known {
		if l.damage.seen == nil {
			l.damage.seen = make(map[Pos]bool)
		}
		l.damage.seen[d.From] = true
	}
	l.damage.mu.Unlock()
	if known || l.damageRecorded(d) {
		return
	}
	loss := Loss{Cause: CauseDamage, From: d.From, To: d.To, Bytes: uint64(d.To - d.From), Detail: d.Error()}
	loss.Count = l.postingsBetween(d.From, d.To)
	if err := l.RecordLoss(loss); err != nil {
		l.log.Error("cannot write the loss ledger", "error", err)
	}
}

// damageRecorded reports whether an earlier run has written the range down.
func (l *Log) damageRecorded(d *segment.Damage) bool {
	err := l.Losses(d.From, func(x Loss) error {
		if x.Cause == CauseDamage && x.From == d.From && x.To == d.To {
			return errStop
		}
		return nil
	})
	return errors.Is(err, errStop)
}

// postingsBetween counts the messages that the index knows in a range of a
// sealed segment; zero if it knows nothing.
func (l *Log) postingsBetween(from, to Pos) (n uint64) {
	for _, seg := range l.set.Snapshot() {
		if from >= seg.Base && from < seg.Limit() {
			n += l.postingsIn(seg.Base, from, to)
		}
	}
	return n
}

// postingsIn is postingsBetween for the segment at base.
func (l *Log) postingsIn(base, from, to Pos) (n uint64) {
	topics, err := l.topicCounts(base)
	if err != nil {
		l.indexTrouble(err)
	}
	for i := range topics {
		eachPosting(topics[i].enc, func(off uint32) bool {
			if p := base + Pos(off); p >= from && p < to {
				n++
			}
			return true
		})
	}
	return n
}

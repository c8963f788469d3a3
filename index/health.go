package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// retryPause slows down Pebble, which repeats a failed flush or compaction at
// once and for ever. It is spent with Pebble's own lock held, so it is short.
const retryPause = 50 * time.Millisecond

// health is what Pebble's background goroutines have told us. They hold
// Pebble's locks when they do, so nothing here calls back into Pebble.
type health struct {
	log *slog.Logger

	mu       sync.Mutex
	damage   error         // the first damage met
	fatal    error         // why nothing becomes durable any more
	flush    error         // why the last flush failed; nil once one succeeds
	flushEnd error         // of the flush that has just ended: see backgroundError
	retry    chan struct{} // closed, and replaced, whenever a flush fails

	failed chan struct{} // closed when damage or fatal is first set
	dead   chan struct{} // closed when fatal is set
}

func newHealth(log *slog.Logger) *health {
	return &health{
		log:    log,
		retry:  make(chan struct{}),
		failed: make(chan struct{}),
		dead:   make(chan struct{}),
	}
}

func (h *health) setDamage(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.damage == nil {
		h.damage = err
		h.announceLocked()
	}
}

func (h *health) setFatal(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fatal == nil {
		h.fatal = err
		close(h.dead)
		h.announceLocked()
	}
}

func (h *health) announceLocked() {
	select {
	case <-h.failed:
	default:
		close(h.failed)
	}
}

// err returns the gravest thing known.
func (h *health) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fatal != nil {
		return h.fatal
	}
	return h.damage
}

func (h *health) fatalErr() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fatal
}

// flushState returns why the last flush failed, if it did, and a channel that
// is closed when one fails from now on.
func (h *health) flushState() (retry <-chan struct{}, failure error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.retry, h.flush
}

func (h *health) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: h.backgroundError,
		// Without a handler Pebble calls Fatalf, also when a mere read finds it.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			h.setDamage(fmt.Errorf("%w: %s: %w", ErrDamaged, info.Path, info.Details))
		},
		FlushEnd: func(info pebble.FlushInfo) {
			h.mu.Lock()
			defer h.mu.Unlock()
			// Err is also set when there was nothing to write, and only
			// backgroundError, called next or not at all, tells the two apart.
			h.flushEnd = info.Err
			if info.Err == nil {
				h.flush = nil
			}
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			h.log.Debug("index: writes stall", "reason", info.Reason)
		},
	}
}

func (h *health) backgroundError(err error) {
	h.log.Debug("index: background error", "error", err)
	if isDamage(err) {
		h.setDamage(damaged("background", err))
	}
	h.mu.Lock()
	if h.flushEnd != nil && errors.Is(err, h.flushEnd) {
		h.flush = err
		close(h.retry)
		h.retry = make(chan struct{})
	}
	h.flushEnd = nil
	h.mu.Unlock()
	time.Sleep(retryPause)
}

// Infof is part of pebble.Logger.
func (h *health) Infof(format string, args ...any) { h.debugf(format, args) }

// Errorf is part of pebble.Logger. Errors reach us as errors; this is chatter.
func (h *health) Errorf(format string, args ...any) { h.debugf(format, args) }

func (h *health) debugf(format string, args []any) {
	if h.log.Enabled(context.Background(), slog.LevelDebug) {
		h.log.Debug("index: " + fmt.Sprintf(format, args...))
	}
}

// Fatalf is part of pebble.Logger. Pebble calls it when it cannot go on, and
// takes for granted that the process ends here. It does not: the owner is told,
// and decides. On a goroutine of Pebble's own, going on would repeat the flush
// or compaction and append to a MANIFEST in an unknown state, so the goroutine
// ends, releasing its locks as it goes. On a goroutine that came in through
// this package it must not, and need not: the call returns an error.
func (h *health) Fatalf(format string, args ...any) {
	h.setFatal(fmt.Errorf("%w: %s", ErrFatal, fmt.Sprintf(format, args...)))
	if startedByPebble() {
		runtime.Goexit()
	}
}

// startedByPebble reports whether the function that this goroutine began with
// is Pebble's.
func startedByPebble() bool {
	var pcs [64]uintptr
	first := ""
	for skip := 0; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs[:])
		if n == 0 {
			break
		}
		frames := runtime.CallersFrames(pcs[:n])
		for {
			frame, more := frames.Next()
			if frame.Function != "" && !strings.HasPrefix(frame.Function, "runtime.") {
				first = frame.Function
			}
			if !more {
				break
			}
		}
		if n < len(pcs) {
			break
		}
	}
	return strings.HasPrefix(first, "github.com/cockroachdb/")
}

// isDamage reports whether err, from a read, means that stored bytes are gone
// or wrong. A read that the medium refuses (EIO) counts: the bytes are gone.
func isDamage(err error) bool {
	return pebble.IsCorruptionError(err) ||
		errors.Is(err, ErrDamaged) ||
		errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, io.EOF) ||
		errors.Is(err, syscall.EIO)
}

// isEnvironment reports whether err says something about the machine, not
// about the stored bytes: opening may succeed when that is put right.
func isEnvironment(err error) bool {
	for _, cause := range []error{
		fs.ErrPermission, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// damaged wraps err as ErrDamaged, naming the file if Pebble knows it.
func damaged(op string, err error) error {
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%s: %w", op, err)
	}
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		return fmt.Errorf("%s: %w: %s: %w", op, ErrDamaged, info.Path, err)
	}
	return fmt.Errorf("%s: %w: %w", op, ErrDamaged, err)
}

package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Meta says which log the index is a view of, and up to where.
type Meta struct {
	// Format is the version of the rows the owner writes. The index stores it
	// and leaves comparing it to the owner.
	Format uint32
	// LogID names the log for ever.
	LogID [16]byte
	// Checkpoint is where replay starts: everything before it is in the index.
	Checkpoint uint64
}

// Index is the key table over Pebble. See the package comment for its promise.
type Index struct {
	db       *pebble.DB
	opts     Options
	popts    *pebble.Options
	dir      string
	lock     *pebble.Lock // nil when Pebble created the directory, and locked it
	health   *health
	pending  atomic.Int64
	flushing flushing
	use      use
}

// flushing lets one Flush run at a time.
type flushing struct {
	sync.Mutex
	// unfinished is closed when the flush that a failed Flush began has gone
	// through after all; nil when there is none.
	unfinished <-chan struct{}
}

// use counts the operations under way, so that Close can wait for them: Pebble
// panics when it is used after its Close. (A read lock would not do, because
// functions given to iterations use the index again.)
type use struct {
	sync.Mutex
	count  int
	closed bool
	idle   chan struct{} // closed by the last one out, once closed is set
}

func (x *Index) enter() error {
	x.use.Lock()
	defer x.use.Unlock()
	if x.use.closed {
		return ErrClosed
	}
	x.use.count++
	return nil
}

func (x *Index) leave() {
	x.use.Lock()
	defer x.use.Unlock()
	x.use.count--
	if x.use.closed && x.use.count == 0 {
		close(x.use.idle)
	}
}

// Open opens the index in dir, or creates it unless o.ReadOnly is set. The
// error wraps ErrDamaged when the files are not what was written, ErrNewer when
// a later version wrote them, ErrLocked when somebody has them open, and none
// of these when the machine is at fault (permissions, a full disk).
func Open(dir string, o Options) (*Index, error) {
	x, err := open(dir, o.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", dir, err)
	}
	return x, nil
}

func open(dir string, o Options) (_ *Index, err error) {
	x := &Index{dir: dir, opts: o, health: newHealth(o.Logger)}
	if x.lock, err = lockDir(o.FS, dir); err != nil {
		return nil, err
	}
	if x.lock == nil && o.ReadOnly {
		return nil, fs.ErrNotExist
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.release())
		}
	}()
	if err := inspect(o.FS, dir, o.ReadOnly); err != nil {
		return nil, err
	}
	x.popts = o.pebble(x.health, x.lock)
	if x.db, err = openPebble(dir, x.popts); err != nil {
		return nil, err
	}
	if err := x.health.fatalErr(); err != nil {
		return nil, err
	}
	return x, x.checkTableVersion()
}

// lockDir locks dir, if it exists.
func lockDir(files vfs.FS, dir string) (*pebble.Lock, error) {
	switch _, err := files.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	lock, err := pebble.LockDirectory(dir, files)
	if err == nil {
		return lock, nil
	}
	// For this process's own locks Pebble has only a sentence, no value.
	if errors.Is(err, syscall.EAGAIN) || err.Error() == "lock held by current process" {
		return nil, fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return nil, err
}

// openPebble sorts Pebble's errors. Pebble marks few of them as corruption, so
// what is not the machine's fault is damage. A panic on what it read is damage
// too: no bytes in a file may stop the broker from starting.
func openPebble(dir string, p *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%w: panic: %v", ErrDamaged, r)
		}
	}()
	db, err = pebble.Open(dir, p)
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, pebble.ErrDBDoesNotExist):
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case isEnvironment(err):
		return nil, err
	}
	return nil, damaged("pebble", err)
}

// checkTableVersion refuses a key table of another version.
func (x *Index) checkTableVersion() error {
	row, ok, err := x.get(keyMeta)
	switch {
	case err != nil || !ok:
		return err
	case len(row) > 0 && row[0] > tableVersion:
		return fmt.Errorf("%w: key table version %d, newest known %d", ErrNewer, row[0], tableVersion)
	}
	_, _, err = x.Meta()
	return err
}

// Close waits for the operations under way and closes the files. It flushes
// nothing: what was applied after the last Flush is the log's to replay.
func (x *Index) Close() error {
	x.use.Lock()
	if x.use.closed {
		x.use.Unlock()
		return ErrClosed
	}
	x.use.closed = true
	x.use.idle = make(chan struct{})
	if x.use.count == 0 {
		close(x.use.idle)
	}
	x.use.Unlock()
	<-x.use.idle
	if err := x.release(); err != nil {
		return fmt.Errorf("close index %s: %w", x.dir, err)
	}
	return nil
}

// release gives back what open took.
func (x *Index) release() error {
	// After a fatal error one of Pebble's goroutines is gone that its Close
	// would wait for. Files and lock then stay until the process ends.
	if err := x.health.fatalErr(); err != nil {
		return err
	}
	var errs []error
	if x.db != nil {
		errs = append(errs, x.db.Close())
	}
	if x.lock != nil {
		errs = append(errs, x.lock.Close())
	}
	return errors.Join(errs...)
}

// Failed is closed when the index has met damage, in a read or in the
// background, or cannot become durable any more. Err says which.
func (x *Index) Failed() <-chan struct{} { return x.health.failed }

// Err returns why Failed is closed: an error that wraps ErrDamaged or ErrFatal.
func (x *Index) Err() error { return x.health.err() }

// Meta returns what SetMeta and SetCheckpoint stored; ok is false in an index
// that has never been given a Meta.
func (x *Index) Meta() (m Meta, ok bool, err error) {
	row, ok, err := x.get(keyMeta)
	if err != nil || !ok {
		return Meta{}, false, err
	}
	if m, ok = decodeMeta(row); !ok {
		return Meta{}, false, x.wrong(keyMeta)
	}
	m.Checkpoint, _, err = x.getPos(keyCheckpoint)
	return m, err == nil, err
}

// Flush makes every applied batch durable. When the disk refuses, it returns
// an error and Pebble goes on trying; a later Flush may succeed.
func (x *Index) Flush() error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	if x.opts.ReadOnly {
		return ErrReadOnly
	}
	x.flushing.Lock()
	defer x.flushing.Unlock()
	// While flushing fails, starting another would only queue a memtable more.
	if err := x.awaitFlush(x.flushing.unfinished); err != nil {
		return err
	}
	if err := x.health.fatalErr(); err != nil {
		return err
	}
	covered := x.pending.Load()
	retry, _ := x.health.flushState()
	done, err := x.db.AsyncFlush()
	if err != nil {
		return fmt.Errorf("flush index: %w", err)
	}
	x.flushing.unfinished = done
	if err := x.awaitFlushOr(done, retry); err != nil {
		return err
	}
	x.pending.Add(-covered)
	return nil
}

// awaitFlush waits for done, if there is one, or the next failure.
func (x *Index) awaitFlush(done <-chan struct{}) error {
	retry, _ := x.health.flushState()
	return x.awaitFlushOr(done, retry)
}

func (x *Index) awaitFlushOr(done, retry <-chan struct{}) error {
	if done == nil {
		return nil
	}
	select {
	case <-done:
	case <-retry:
	case <-x.health.dead:
	}
	select {
	case <-done: // even when it first failed
		x.flushing.unfinished = nil
		return nil
	default:
	}
	if err := x.health.fatalErr(); err != nil {
		return err
	}
	_, failure := x.health.flushState()
	if failure == nil {
		failure = errors.New("another flush failed")
	}
	if isDamage(failure) {
		return damaged("flush index", failure)
	}
	return fmt.Errorf("flush index: %w", failure)
}

// Pending returns about how much memory the batches applied since the last
// Flush take. Pebble's first memtables are small, and a flush that it starts by
// itself can come at half of Options.MemTableBytes.
func (x *Index) Pending() int64 { return x.pending.Load() }

// get returns a copy of the value of key.
func (x *Index) get(key []byte) (value []byte, ok bool, err error) {
	ok, err = x.look(key, func(v []byte) { value = append([]byte{}, v...) })
	return value, ok, err
}

// getPos returns the position that key holds.
func (x *Index) getPos(key []byte) (pos uint64, ok bool, err error) {
	size := -1
	ok, err = x.look(key, func(v []byte) {
		if size = len(v); size == 8 {
			pos = binary.BigEndian.Uint64(v)
		}
	})
	if ok && size != 8 {
		return 0, false, x.wrong(key)
	}
	return pos, ok, err
}

// look calls found with the value of key, if there is one.
func (x *Index) look(key []byte, found func(value []byte)) (ok bool, err error) {
	if err := x.enter(); err != nil {
		return false, err
	}
	defer x.leave()
	value, closer, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, x.readError(fmt.Sprintf("read %q", key), err)
	}
	found(value)
	if err := closer.Close(); err != nil {
		return false, x.readError(fmt.Sprintf("read %q", key), err)
	}
	return true, nil
}

// scan calls fn for the keys that begin with prefix, from the given one on, in
// order and as they were when scan began, until fn returns an error.
func (x *Index) scan(prefix, from []byte, fn func(key, value []byte) error) (err error) {
	return x.scanTo(from, successor(prefix), fn)
}

func (x *Index) scanTo(from, to []byte, fn func(key, value []byte) error) (err error) {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return x.readError(fmt.Sprintf("scan from %q", from), err)
	}
	defer func() {
		// Close repeats the iterator's error; fn's own comes first.
		if cerr := it.Close(); cerr != nil && err == nil {
			err = x.readError(fmt.Sprintf("scan from %q", from), cerr)
		}
	}()
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return x.readError(fmt.Sprintf("read %q", it.Key()), err)
		}
		if err := fn(it.Key(), value); err != nil {
			return err
		}
	}
	return nil
}

// readError wraps an error of Pebble's from a read and remembers damage.
func (x *Index) readError(op string, err error) error {
	if !isDamage(err) {
		return fmt.Errorf("%s: %w", op, err)
	}
	err = damaged(op, err)
	x.health.setDamage(err)
	return err
}

// wrong is for a row whose checksum is right and whose shape is not.
func (x *Index) wrong(key []byte) error {
	return x.readError(fmt.Sprintf("row %q", key), fmt.Errorf("%w: not in the key table", ErrDamaged))
}

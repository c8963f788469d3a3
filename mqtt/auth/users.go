package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/reload"
)

var (
	// ErrDenied is the answer to a user or password that is not right. It does not say which.
	ErrDenied = errors.New("user name or password is wrong")
	// ErrBusy is the answer when the context ended before it was anybody's turn to look.
	ErrBusy = errors.New("too many passwords wait to be checked")
)

// Users are those of a password file. It is safe for many goroutines.
type Users struct {
	path    string
	log     *slog.Logger
	now     func() time.Time
	turns   chan struct{} // holds one for each password that is being checked
	key     [32]byte      // of what is remembered
	current atomic.Pointer[users]

	// look guards what follows. Whoever finds it taken goes on with current.
	look      sync.Mutex
	watch     *reload.Watch
	complaint string // the error that was logged last, while it lasts
}

// users is what a file said when it was last good.
type users struct {
	list  map[string]Stored
	decoy Stored

	mu    sync.Mutex
	right map[string][sha256.Size]byte // sums of passwords that were right, by user
}

// Options are what Users are given by their broker.
type Options struct {
	Logger *slog.Logger
	Now    func() time.Time // nil: time.Now
	Checks int              // passwords that are checked at one time; 0: half of the processors
}

// Open reads a password file.
func Open(path string, o Options) (*Users, error) {
	u := &Users{path: path, log: o.Logger, now: o.Now}
	if u.now == nil {
		u.now = time.Now
	}
	checks := o.Checks
	if checks == 0 {
		checks = max(1, runtime.GOMAXPROCS(0)/2)
	}
	u.turns = make(chan struct{}, checks)
	_, _ = rand.Read(u.key[:]) // never fails
	u.watch = reload.New([]string{path}, u.now)
	f, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	u.use(f)
	return u, nil
}

func (u *Users) use(f *File) {
	next := &users{list: f.users, right: make(map[string][sha256.Size]byte)}
	next.decoy = decoyFor(f)
	if old := u.current.Load(); old != nil {
		old.mu.Lock()
		for name, sum := range old.right {
			if s := f.users[name]; s != nil && s.String() == old.list[name].String() {
				next.right[name] = sum
			}
		}
		old.mu.Unlock()
	}
	u.current.Store(next)
	u.log.Info("password file", "path", u.path, "users", f.Len())
}

// decoyFor is what unknown users are checked against: it costs what the first user costs.
func decoyFor(f *File) Stored {
	if names := f.Users(); len(names) > 0 {
		return f.users[names[0]].decoy()
	}
	return (&scramKeys{iterations: DefaultIterations}).decoy()
}

// Refresh takes up a changed file. It is done before each check too; called now and then, it says in time that a file
// cannot be used.
func (u *Users) Refresh() {
	if !u.look.TryLock() {
		return
	}
	defer u.look.Unlock()
	if !u.watch.Due() || !u.watch.Changed() {
		return
	}
	f, err := ReadFile(u.path)
	if err != nil {
		if u.complaint != err.Error() {
			u.complaint = err.Error()
			u.log.Error("the password file has changed and cannot be used; going on with what was read before", logging.Err(err))
		}
		return
	}
	u.complaint = ""
	u.use(f)
}

// Check returns nil if the password is the user's, else ErrDenied, or ErrBusy if ctx ends first.
func (u *Users) Check(ctx context.Context, name string, password []byte) error {
	u.Refresh()
	t := u.current.Load()
	s := t.list[name]
	if s == nil {
		s = t.decoy
	}
	sum := u.sum(name, password)
	if t.remembers(name, sum) {
		return nil
	}
	select {
	case u.turns <- struct{}{}:
	case <-ctx.Done():
		return ErrBusy
	}
	defer func() { <-u.turns }()
	if !s.Verify(password) || t.list[name] == nil {
		return ErrDenied
	}
	t.remember(name, sum)
	return nil
}

// sum stands for a password in memory.
func (u *Users) sum(name string, password []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, u.key[:])
	h.Write([]byte(name))
	h.Write([]byte{0}) // is in no name
	h.Write(password)
	h.Sum(sum[:0])
	return sum
}

func (t *users) remembers(name string, sum [sha256.Size]byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	right, ok := t.right[name]
	return ok && hmac.Equal(right[:], sum[:])
}

func (t *users) remember(name string, sum [sha256.Size]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.right[name] = sum
}

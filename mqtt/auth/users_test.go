package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"cairnmq/mqtt/mqtttest"
)

// rig is a password file and who reads it, with a clock that the test moves.
type rig struct {
	*Users
	t    *testing.T
	path string
	log  mqtttest.Lines
	time time.Time
}

func open(t *testing.T, text string) *rig {
	t.Helper()
	r := &rig{t: t, path: filepath.Join(t.TempDir(), "passwd"), time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	r.write(text)
	u, err := Open(r.path, Options{
		Logger: slog.New(slog.NewTextHandler(&r.log, nil)), Checks: 1, Now: func() time.Time { return r.time },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Users = u
	return r
}

// write changes the file, as long ago as its clock needs to tell.
func (r *rig) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.time = r.time.Add(10 * time.Second)
	at := r.time.Add(-5 * time.Second)
	if err := os.Chtimes(r.path, at, at); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) expect(name, password string, want error) {
	r.t.Helper()
	if err := r.Check(r.t.Context(), name, []byte(password)); !errors.Is(err, want) {
		r.t.Errorf("%s with %q: %v, want %v", name, password, err, want)
	}
}

func entry(t *testing.T, user, password string) string {
	t.Helper()
	s, err := NewSCRAM([]byte(password), MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":" + s.String() + "\n"
}

func TestTheFileIsReadAnew(t *testing.T) {
	a, b := entry(t, "a", "one"), entry(t, "b", "two")
	r := open(t, a)
	r.expect("a", "one", nil)
	r.expect("a", "two", ErrDenied)
	r.expect("b", "two", ErrDenied)
	r.write(a + b)
	r.expect("b", "two", nil)
	r.expect("a", "one", nil)
	r.write(b + "a:nonsense\n") // what was read before stays in force
	r.expect("a", "one", nil)
	r.expect("b", "two", nil)
	r.time = r.time.Add(time.Minute)
	r.expect("a", "one", nil)
	if n := r.log.Count("cannot be used"); n != 1 || !strings.Contains(r.log.String(), `passwd:2: the entry of user \"a\"`) {
		t.Errorf("%d complaints, want 1:\n%s", n, r.log.String())
	}
	r.write(b)
	r.expect("a", "one", ErrDenied)
	r.expect("b", "two", nil)
	r.write(entry(t, "b", "three"))
	r.expect("b", "two", ErrDenied) // what is remembered goes with the entry
	r.expect("b", "three", nil)
	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	r.time = r.time.Add(time.Minute)
	r.expect("b", "three", nil)
	r.write("# nobody\n")
	r.expect("b", "three", ErrDenied)
}

// Who waits for a turn gives up with its context, and a client that was here before needs no turn.
func TestFewAreCheckedAtATime(t *testing.T) {
	r := open(t, entry(t, "a", "one")+entry(t, "b", "two"))
	r.expect("a", "one", nil)
	r.turns <- struct{}{} // somebody is being checked
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, want := range map[string]error{"a": nil, "b": ErrBusy, "nobody": ErrBusy} {
		if err := r.Check(ended, name, []byte("one")); err != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if err := r.Check(ended, "a", []byte("two")); err != ErrBusy {
		t.Errorf("a wrong password of somebody who is remembered: %v", err)
	}
	<-r.turns
	r.expect("b", "two", nil)
}

func TestManyAtOnce(t *testing.T) {
	r := open(t, entry(t, "a", "one"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			password, want := "one", error(nil)
			if i%2 == 1 {
				password, want = "two", ErrDenied
			}
			r.expect("a", password, want)
		})
	}
	wg.Wait()
	if len(r.turns) != 0 {
		t.Errorf("%d turns are not given back", len(r.turns))
	}
}

// The exchange of RFC 7677, section 3.
func TestSCRAMAsInRFC7677(t *testing.T) {
	r := open(t, "user:"+rfcEntry+"\n")
	s, err := NewSCRAM256(r.Users)
	if err != nil {
		t.Fatal(err)
	}
	s.server.WithNonceGenerator(func() string { return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" })
	x := s.Start()
	first, err := x.Continue([]byte("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"))
	if want := "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=" + rfcSalt + ",i=4096"; err != nil || string(first.Data) != want || first.Done {
		t.Fatalf("server first: %q %v %v", first.Data, first.Done, err)
	}
	last, err := x.Continue([]byte("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
	if want := "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="; err != nil || string(last.Data) != want || !last.Done || last.User != "user" {
		t.Fatalf("server final: %q %v %q %v", last.Data, last.Done, last.User, err)
	}
	if _, err := x.Continue(nil); !errors.Is(err, ErrDenied) {
		t.Errorf("going on after the end: %v", err)
	}
}

// exchange runs a client against the server.
func exchange(t *testing.T, s *SCRAM, user, password, authzID string) (Step, error) {
	t.Helper()
	c, err := scram.SHA256.NewClient(user, password, authzID)
	if err != nil {
		t.Fatal(err)
	}
	conv, x, from := c.NewConversation(), s.Start(), ""
	for {
		out, err := conv.Step(from)
		if err != nil {
			t.Fatalf("the client: %v", err)
		}
		step, err := x.Continue([]byte(out))
		if err != nil || step.Done {
			if err == nil {
				if _, err := conv.Step(string(step.Data)); err != nil || !conv.Valid() {
					t.Errorf("the client does not believe the server: %v", err)
				}
			}
			return step, err
		}
		from = string(step.Data)
	}
}

func TestSCRAMLetsInWhoKnowsThePassword(t *testing.T) {
	r := open(t, entry(t, "user,=", "pencil")+"argon:"+NewArgon2id([]byte("pencil")).String()+"\n")
	s, err := NewSCRAM256(r.Users)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		user, password, as string
		ok                 bool
	}{
		{"user,=", "pencil", "", true},
		{"user,=", "pencil", "user,=", true},
		{"user,=", "pencil", "root", false},
		{"user,=", "pen", "", false},
		{"nobody", "pencil", "", false},
		{"argon", "pencil", "", false}, // there are no keys in its entry
	} {
		step, err := exchange(t, s, row.user, row.password, row.as)
		if row.ok != (err == nil) || row.ok != step.Done || row.ok && step.User != row.user {
			t.Errorf("%+v: %+v, %v", row, step, err)
		}
		if !row.ok && !errors.Is(err, ErrDenied) {
			t.Errorf("%+v: %v", row, err)
		}
	}
}

// Who does not exist gets a salt as everybody else: the same each time, and of the same length and cost.
func TestSCRAMDoesNotTellWhoExists(t *testing.T) {
	r := open(t, entry(t, "a", "pencil"))
	s, err := NewSCRAM256(r.Users)
	if err != nil {
		t.Fatal(err)
	}
	first := func(user string) string {
		step, err := s.Start().Continue(fmt.Appendf(nil, "n,,n=%s,r=x", user))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(step.Data), ",")
		return rest
	}
	a, b, c := first("a"), first("b"), first("c")
	if b != first("b") || b == c || len(a) != len(b) || a[len(a)-7:] != b[len(b)-7:] {
		t.Errorf("%q, %q, %q", a, b, c)
	}
}

func TestSCRAMRefusesNonsense(t *testing.T) {
	r := open(t, "user:"+rfcEntry+"\n")
	s, err := NewSCRAM256(r.Users)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"", "n", "n,,", "n,,n=user", "p=tls-unique,,n=user,r=x", "n,,m=x,n=user,r=x", "\xff\x00", "n,,n==,r=x"} {
		if step, err := s.Start().Continue([]byte(data)); !errors.Is(err, ErrDenied) || step.Data != nil {
			t.Errorf("%q: %q, %v", data, step.Data, err)
		}
	}
}

func TestGuessingGetsSlower(t *testing.T) {
	g, now := NewGuesses(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const peer = "192.0.2.1:5000"
	var waits []time.Duration
	for range 12 {
		wait, done, ok := g.Begin(peer, now)
		if !ok {
			t.Fatal("refused")
		}
		done()
		waits = append(waits, wait/time.Millisecond)
		g.Wrong("192.0.2.1:6000", now) // any port
	}
	if got := fmt.Sprint(waits); got != fmt.Sprint([]time.Duration{0, 0, 0, 100, 200, 400, 800, 1600, 3200, 4000, 4000, 4000}) {
		t.Errorf("waits %v", got)
	}
	if wait, _, ok := g.Begin("192.0.2.2:5000", now); wait != 0 || !ok {
		t.Error("another address has to wait")
	}
	if wait, done, ok := g.Begin(peer, now.Add(time.Hour)); wait != 0 || !ok {
		t.Error("nothing is forgotten")
	} else {
		done()
	}
}

func TestFewGuessesOfAnAddressWait(t *testing.T) {
	g, now := NewGuesses(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const peer = "[2001:db8::1]:1"
	for range 5 {
		g.Wrong("[2001:db8::ffff:0:0:2]:1", now) // the same network
	}
	var release []func()
	for range maxWaiting {
		_, done, ok := g.Begin(peer, now)
		if !ok {
			t.Fatal("refused")
		}
		release = append(release, done)
	}
	if _, _, ok := g.Begin(peer, now); ok {
		t.Error("one more may wait")
	}
	release[0]()
	if _, _, ok := g.Begin(peer, now); !ok {
		t.Error("nobody may wait any more")
	}
}

func TestTheMemoryOfGuessesIsBounded(t *testing.T) {
	g, now := NewGuesses(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for range 10 {
		g.Wrong("198.51.100.1:1", now)
	}
	for i := range 3 * maxAddresses {
		g.Wrong(fmt.Sprintf("10.%d.%d.1:1", i>>8, i&255), now)
	}
	if n := len(g.addresses); n > maxAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
	if wait, _, _ := g.Begin("198.51.100.1:1", now); wait != longestWait {
		t.Errorf("the worst was forgotten before the others: it waits %v", wait)
	}
	g.Wrong("unix:/run/x.sock", now)
	if wait, _, ok := g.Begin("@", now); wait != 0 || !ok {
		t.Error("what is no address")
	}
}

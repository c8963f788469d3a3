package reload

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAChangeIsNoticedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now := start
	write := func(text string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("a", start.Add(-time.Hour))
	w := New([]string{path, path + ".missing"}, func() time.Time { return now })
	look := func(what string, want bool) {
		t.Helper()
		now = now.Add(lookInterval)
		if !w.Due() {
			t.Fatal("a second later it is not time to look")
		}
		if got := w.Changed(); got != want {
			t.Errorf("%s: changed %v", what, got)
		}
		if w.Due() {
			t.Error("it is time to look again at once")
		}
	}
	look("the same", false)
	write("b", start.Add(-time.Minute))
	look("another time", true)
	look("the same again", false)
	write("c", now) // and perhaps again with the same time and size
	look("just written", true)
	look("may have been written once more since", true)
	look("settled", false) // as it was when it was last read
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	look("gone", true)
	look("still gone", false)
	write("c", now.Add(-time.Hour))
	look("back", true)

	now = start.Add(-time.Hour)
	if !w.Due() {
		t.Error("a clock that was set back stops looking")
	}
}

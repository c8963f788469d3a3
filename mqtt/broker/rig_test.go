package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
	"cairnmq/storage"
)

// versions are those that a test goes through.
var versions = []packet.Version{packet.V31, packet.V311, packet.V5}

// rig is a broker on a directory of the test, with a clock that the test
// moves. It is closed at the end.
type rig struct {
	*Broker
	t    testing.TB
	cfg  *config.Config
	log  *mqtttest.Lines
	skew atomic.Int64 // how far the test has moved the clock
	// machine, if set, puts another disk in the place of the real one.
	machine func(*storage.Options)
}

// start opens a broker.
func start(t testing.TB, edit ...func(*config.Config)) *rig {
	t.Helper()
	cfg := config.Default()
	cfg.Storage.Dir = t.TempDir()
	cfg.Storage.SegmentSize = 1 * config.MiB
	cfg.Storage.MaxBytes = 256 * config.MiB
	cfg.Storage.CheckpointInterval = config.Duration(time.Hour)
	cfg.Servers[0].Listen = "127.0.0.1:0"
	for _, f := range edit {
		f(cfg)
	}
	r := &rig{t: t, cfg: cfg, log: &mqtttest.Lines{}}
	r.open()
	t.Cleanup(func() { r.close() })
	return r
}

func (r *rig) open() {
	r.t.Helper()
	logs := logging.New(r.log, logging.Options{Level: r.cfg.Log.Level.Slog(), PerSecond: -1})
	machine := r.machine
	if machine == nil {
		machine = func(*storage.Options) {}
	}
	b, err := open(r.cfg, logs, func() time.Time { return time.Now().Add(time.Duration(r.skew.Load())) }, machine)
	if err != nil {
		r.t.Fatalf("open: %v", err)
	}
	r.Broker = b
}

func (r *rig) close() {
	r.t.Helper()
	if r.Broker == nil {
		return
	}
	if err := r.Close(); err != nil {
		r.t.Errorf("close: %v", err)
	}
	r.Broker = nil
	if r.t.Failed() {
		r.t.Logf("log of the broker:\n%s", r.log.Tail(16<<10))
	}
}

// restart closes the broker in order and opens it again.
func (r *rig) restart() {
	r.t.Helper()
	r.close()
	r.open()
}

// kill goes on with what the directory held at this instant: what a killed
// process leaves behind, because the pages of its mappings are the kernel's.
func (r *rig) kill() {
	r.t.Helper()
	dir := r.t.TempDir()
	copyTree(r.t, r.cfg.Storage.Dir, dir)
	r.close()
	r.cfg.Storage.Dir = dir
	r.open()
}

// copyTree copies a directory that may be in use, as it is at one instant: while
// the index changes its files, it begins anew.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	for range 100 {
		before := indexFiles(t, from)
		err := os.CopyFS(to, os.DirFS(from))
		if err == nil && slices.Equal(before, indexFiles(t, from)) {
			return
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("copy the data directory: %v", err)
		}
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the data directory does not hold still")
}

// indexFiles lists the files of the index with their sizes and times.
func indexFiles(t testing.TB, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "index"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			list = append(list, fmt.Sprint(path, info.Size(), info.ModTime().UnixNano()))
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return list
}

// pass moves the clock on and does what is then due.
func (r *rig) pass(d time.Duration) {
	r.skew.Add(int64(d))
	r.checkKeepAlives(r.clients.all())
	r.checkDue(r.now())
}

func (r *rig) dial(v packet.Version) *mqtttest.Client {
	r.t.Helper()
	return mqtttest.Dial(r.t, r.Addr("main").String(), v)
}

// connect is dial and Connect.
func (r *rig) connect(v packet.Version, id string, options ...mqtttest.Option) *mqtttest.Client {
	r.t.Helper()
	c := r.dial(v)
	c.Connect(id, options...)
	return c
}

// resume connects without clean start and says whether there was a session.
func (r *rig) resume(v packet.Version, id string, options ...mqtttest.Option) (*mqtttest.Client, bool) {
	r.t.Helper()
	c := r.dial(v)
	ack := c.Connect(id, append(persistent(v), options...)...)
	return c, ack.SessionPresent
}

// persistent are the options of a session that stays.
func persistent(v packet.Version) []mqtttest.Option {
	o := []mqtttest.Option{mqtttest.Resume}
	if v == packet.V5 {
		o = append(o, mqtttest.Expiry(3600))
	}
	return o
}

// away waits until the broker has noticed that a client has gone.
func (r *rig) away(id string) {
	r.t.Helper()
	if s := r.clients.get(id); s != nil {
		select {
		case <-s.done:
		case <-time.After(mqtttest.Patience):
			r.t.Fatalf("%s is still connected", id)
		}
	}
}

// drop cuts a client's connection and waits until the broker has noticed.
func (r *rig) drop(c *mqtttest.Client) {
	r.t.Helper()
	c.Drop()
	r.away(c.ID)
}

// losses are the rows of the ledger as "cause readers count".
func (r *rig) losses() []string {
	r.t.Helper()
	var list []string
	err := r.Broker.log.Losses(0, func(x storage.Loss) error {
		list = append(list, fmt.Sprintf("%v %v %d", x.Cause, x.Readers, x.Count))
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// eventually waits for something that no packet tells of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(mqtttest.Patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func has(list []string, want string) bool {
	for _, x := range list {
		if x == want {
			return true
		}
	}
	return false
}

// A directory belongs to one broker.
func TestADataDirectoryInUseIsRefused(t *testing.T) {
	r := start(t)
	_, err := Open(r.cfg, logging.New(r.log, logging.Options{}))
	if !errors.Is(err, storage.ErrLocked) {
		t.Fatalf("second broker on the directory: %v", err)
	}
	r.connect(packet.V5, "a").Ping()
}

func timeAfter(d time.Duration) time.Time { return time.Now().Add(d) }

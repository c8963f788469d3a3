package config

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Warnings says what is allowed but may not be meant. It looks at the disk below storage.dir, and nowhere else.
func (c *Config) Warnings() []string {
	room, known := roomFor(c.Storage.Dir)
	return c.warnings(room, known)
}

// warnings is given the room that the data directory could take up in all, if that is known.
func (c *Config) warnings(room Size, roomKnown bool) []string {
	var all []string
	warn := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }

	for _, s := range c.Servers {
		guarded := s.Type == Unix || s.Type.Encrypted() && s.TLS.ClientAuth == ClientAuthRequire || isLoopback(s.Listen)
		switch closed := c.Effective(s).Anonymous == AnonymousRefuse; {
		case guarded:
		case closed && !s.Type.Encrypted():
			warn("servers.%s listens on %s without TLS: passwords, but for those of clients with SCRAM-SHA-256, and all messages "+
				"can be read on the way.", s.Name, s.Listen)
		case !closed:
			warn("servers.%s listens on %s WITHOUT AUTHENTICATION: whoever reaches that address can read, change and "+
				"stop every message. Set auth.password_file, let a firewall or a VPN guard it, or listen on 127.0.0.1.", s.Name, s.Listen)
		}
	}
	if c.Durability.Default == ClassOS {
		warn("durability.default is os: a power cut costs whatever the kernel had not written yet, " +
			"often the last half minute, although it was acknowledged.")
	}
	for i, rule := range c.Durability.Rules {
		if rule.Class == ClassOS && c.Durability.Default != ClassOS {
			warn("durability.rules[%d] puts %s in class os: a power cut costs whatever the kernel had not written yet, "+
				"although it was acknowledged.", i, rule.Filter)
		}
	}
	if weaker(c.Durability.SessionClass(), c.Durability.strongest()) {
		warn("durability.sessions is %s, weaker than the class of some messages: "+
			"after a power cut they may be there while the subscription that wants them is not.", c.Durability.Sessions)
	}
	for i, rule := range c.Retention {
		switch {
		case rule.MaxBytes == 0 && rule.MaxAge == 0:
			warn("retention[%d] for %s has neither max_bytes nor max_age, so it limits nothing.", i, rule.Filter)
		case rule.MaxBytes > c.Storage.MaxBytes:
			warn("retention[%d] for %s allows %v, more than the %v of storage.max_bytes, which come first.",
				i, rule.Filter, rule.MaxBytes, c.Storage.MaxBytes)
		}
	}
	if p := c.Debug.Pprof; p != "" && !isLoopback(p) {
		warn("debug.pprof is on %s: everybody who reaches it can look into the broker and slow it down.", p)
	}
	if roomKnown && c.Storage.MaxBytes > room {
		warn("storage.max_bytes is %v, but the disk of %s has room for %.1f GiB only: when it is full, publishing fails.",
			c.Storage.MaxBytes, c.Storage.Dir, float64(room)/float64(GiB))
	}
	return all
}

func (d Durability) strongest() Class {
	d.Sessions = ""
	return d.SessionClass()
}

func weaker(a, b Class) bool {
	rank := map[Class]int{ClassAlways: 2, ClassInterval: 1, ClassOS: 0}
	return rank[a] < rank[b]
}

// isLoopback reports whether only this machine reaches the address. A host name other than localhost may be
// anything, so it counts as open.
func isLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// roomFor is the free space of the disk that dir is on, or will be on, and what dir itself takes up already.
func roomFor(dir string) (room Size, known bool) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return 0, false
	}
	existing := abs
	for {
		if _, err := os.Stat(existing); err == nil || existing == filepath.Dir(existing) {
			break
		}
		existing = filepath.Dir(existing)
	}
	free, known := freeSpace(existing)
	if !known {
		return 0, false
	}
	return free + used(abs), true
}

// used adds up the files below dir. What cannot be read counts as nothing: this is for a warning only.
func used(dir string) Size {
	var sum Size
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			sum += Size(info.Size())
		}
		return nil
	})
	return sum
}

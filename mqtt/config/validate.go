package config

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"cairnmq/storage/filter"
)

// check looks at every key by itself, and then at what must hold between keys.
func (c *Config) check(r *report) {
	for _, s := range sections {
		for i, element := range s.elements(c) {
			name := s.elementName(i, element)
			for _, k := range s.keys {
				if err := k.check(k.field(element)); err != nil {
					r.add(name+"."+k.name, "%v", err)
				}
			}
		}
	}
	c.checkStorage(r)
	c.checkPacketsFit(r)
	c.checkRules(r)
	c.checkAuth(r)
	c.checkRedirect(r)
	c.checkServers(r)
}

// checkRedirect refuses what would leave clients without a place to go.
func (c *Config) checkRedirect(r *report) {
	if c.Redirect.Shutdown && c.Redirect.Server == "" {
		r.add("redirect.shutdown", "needs redirect.server: clients would not know where to go")
	}
}

// checkAuth refuses what would let nobody in.
func (c *Config) checkAuth(r *report) {
	if c.Auth.PasswordFile != "" {
		return
	}
	for _, s := range c.Servers {
		named := s.Type.Encrypted() && s.TLS.Identity != IdentityNone
		if c.Effective(s).Anonymous == AnonymousRefuse && !named {
			key := "servers." + s.Name + ".anonymous"
			if s.Anonymous == "" {
				key = "auth.anonymous"
			}
			r.add(key, "refuses everybody who comes to servers.%s: there is no auth.password_file, and no certificate names a client", s.Name)
		}
	}
}

func (k *key) check(field any) error {
	switch field := field.(type) {
	case *int:
		return k.checkNumber(int64(*field))
	case *Size:
		return k.checkNumber(int64(*field))
	case *Duration:
		return k.checkNumber(int64(*field))
	case *bool:
		return nil
	case *[]string:
		return k.checkWords(*field)
	}
	return k.checkString(reflect.ValueOf(field).Elem().String())
}

func (k *key) checkNumber(n int64) error {
	switch {
	case n == 0 && k.zero != "":
		return nil
	case n < k.min || n > k.max:
		return fmt.Errorf("%v is out of range (%s)", k.unit(n), k.allowed())
	case k.multiple > 1 && n%k.multiple != 0:
		return fmt.Errorf("%v is not a multiple of %d", k.unit(n), k.multiple)
	case k.wholeSecs && Duration(n)%second != 0:
		return fmt.Errorf("%v is not a whole number of seconds", k.unit(n))
	}
	return nil
}

func (k *key) checkString(s string) error {
	switch {
	case s == "" && k.required:
		return errors.New("is missing")
	case strings.ContainsRune(s, 0):
		return errors.New("contains a zero byte")
	case k.isFilter:
		return checkFilter(s)
	case s != "" && k.valid != nil:
		return k.valid(s)
	case !k.limited() || slices.Contains(k.choices, s):
		return nil
	}
	return fmt.Errorf("unknown value %q (%s)%s", s, k.allowed(), didYouMean(s, k.choices))
}

// limited reports whether only certain words will do. An empty word that has a meaning does not make it so.
func (k *key) limited() bool {
	return slices.ContainsFunc(k.choices, func(choice string) bool { return choice != "" })
}

func (k *key) checkWords(words []string) error {
	for _, word := range words {
		if word == "" {
			return errors.New("an empty string is in the list")
		}
		if err := k.checkString(word); err != nil {
			return err
		}
	}
	return nil
}

// checkFilter leaves the rule to package filter, and finds words for what is wrong.
func checkFilter(f string) error {
	switch {
	case !utf8.ValidString(f):
		return errors.New("is not valid UTF-8")
	case strings.HasPrefix(f, "$share/"):
		return errors.New("takes the filter itself, without $share and the group")
	case filter.Valid(f):
		return nil
	case len(f) > filter.MaxLen:
		return fmt.Errorf("is longer than the %d bytes of a topic filter", filter.MaxLen)
	}
	levels := strings.Split(f, "/")
	for i, level := range levels {
		switch {
		case strings.Contains(level, "#") && level != "#":
			return fmt.Errorf("%q is not a topic filter: # must be a level by itself", f)
		case level == "#" && i < len(levels)-1:
			return fmt.Errorf("%q is not a topic filter: # must be the last level", f)
		case strings.Contains(level, "+") && level != "+":
			return fmt.Errorf("%q is not a topic filter: + must be a level by itself", f)
		}
	}
	return fmt.Errorf("%q is not a topic filter", f)
}

// checkShareName judges what stands between "$share/" and the filter.
func checkShareName(name string) error {
	if strings.ContainsAny(name, "/+#") {
		return fmt.Errorf("%q is not the name of a group: it has no /, + or #", name)
	}
	return nil
}

// checkTopicPattern is for what becomes the beginning of a topic.
func checkTopicPattern(s string) error {
	if strings.ContainsAny(s, "#+") || s[0] == '$' || len(s) > 1024 {
		return fmt.Errorf(`%q cannot begin a topic: it has a wildcard, begins with $ or is longer than 1024 bytes`, s)
	}
	return nil
}

func (c *Config) checkStorage(r *report) {
	s := c.Storage
	if r.broken["storage.max_bytes"] || r.broken["storage.segment_size"] {
		return
	}
	if s.MaxBytes/4 < s.SegmentSize {
		r.add("storage.max_bytes", "%v is less than four segments; storage.segment_size is %v%s",
			s.MaxBytes, s.SegmentSize, r.line("storage.segment_size"))
	}
}

// checkPacketsFit keeps a packet to a quarter of the disk budget, as it is with segments: a message that is larger
// than one gets a segment of its own, and beside it there must be room for the one before it, which may be just as
// large and still be needed, for the index, and for the next. And a packet must fit into the memory for packets.
func (c *Config) checkPacketsFit(r *report) {
	most, memory := c.Storage.MaxBytes/4, c.Limits.ReceiveMemory
	fits := func(name string, size Size) {
		if size > most && !r.broken[name] && !r.broken["storage.max_bytes"] {
			r.add(name, "%v is more than a quarter of storage.max_bytes, which is %v%s",
				size, c.Storage.MaxBytes, r.line("storage.max_bytes"))
		}
		if memory > 0 && size > memory && !r.broken[name] && !r.broken["limits.receive_memory"] {
			r.add(name, "%v is more than limits.receive_memory, which is %v%s", size, memory, r.line("limits.receive_memory"))
		}
	}
	fits("limits.max_packet_size", c.Limits.MaxPacketSize)
	for _, s := range c.Servers {
		fits("servers."+s.Name+".max_packet_size", s.MaxPacketSize)
	}
}

func (c *Config) checkRules(r *report) {
	durability := make([]string, len(c.Durability.Rules))
	for i, rule := range c.Durability.Rules {
		durability[i] = rule.Filter
	}
	checkSameFilter(r, "durability.rules", durability)

	retention := make([]string, len(c.Retention))
	for i, rule := range c.Retention {
		retention[i] = rule.Filter
	}
	checkSameFilter(r, "retention", retention)
}

func checkSameFilter(r *report, section string, filters []string) {
	for i, f := range filters {
		if first := slices.Index(filters, f); first < i && f != "" {
			r.add(fmt.Sprintf("%s[%d].filter", section, i), "%q has a rule already%s",
				f, r.line(fmt.Sprintf("%s[%d].filter", section, first)))
		}
	}
}

var serverName = regexp.MustCompile(`^[a-z0-9_-]+$`)

func (c *Config) checkServers(r *report) {
	if len(c.Servers) == 0 && !r.broken["servers"] {
		r.add("servers", "there is no server, so nobody could connect")
	}
	for i, s := range c.Servers {
		name := "servers." + s.Name
		if !serverName.MatchString(s.Name) {
			r.add(name, "a server's name consists of lower case letters, digits, - and _")
		}
		for _, other := range c.Servers[:i] {
			if envName(s.Name) == envName(other.Name) {
				r.add(name, "differs from servers.%s%s only in ways that the names of variables do not show",
					other.Name, r.line("servers."+other.Name))
			}
		}
		if s.MaxConnections > c.Limits.MaxConnections && !r.broken["limits.max_connections"] {
			r.add(name+".max_connections", "%d is more than limits.max_connections, %d%s, which holds for all servers together",
				s.MaxConnections, c.Limits.MaxConnections, r.line("limits.max_connections"))
		}
		c.checkListen(r, i)
		s.checkParts(r, name)
	}
}

func (c *Config) checkListen(r *report, i int) {
	s := c.Servers[i]
	name := "servers." + s.Name + ".listen"
	if r.broken[name] || r.broken["servers."+s.Name+".type"] {
		return
	}
	if err := s.checkAddress(); err != nil {
		r.add(name, "%v", err)
		return
	}
	for _, other := range c.Servers[:i] {
		if s.sameAddress(other) {
			r.add(name, "%s is taken by servers.%s%s", s.Listen, other.Name, r.line("servers."+other.Name))
			return
		}
	}
}

// A socket's path is limited by the kernel's sockaddr_un, on Linux 108 bytes with the final zero.
const maxSocketPath = 107

func (s Server) checkAddress() error {
	if s.Type == Unix {
		switch {
		case !strings.Contains(s.Listen, "/"):
			return fmt.Errorf(`%q is not the path of a socket; write for example "/run/cairnmq/mqtt.sock"`, s.Listen)
		case len(s.Listen) > maxSocketPath:
			return fmt.Errorf("the path of a socket has at most %d bytes", maxSocketPath)
		}
		return nil
	}
	return checkHostPort(s.Listen)
}

func checkHostPort(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || strings.ContainsAny(host, "/ ") {
		return fmt.Errorf(`%q is not host:port; write for example "127.0.0.1:1883"`, address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port (0 to 65535)", port)
	}
	return nil
}

// sameAddress reports whether the kernel would refuse to listen on both, as far as that shows without asking it.
func (s Server) sameAddress(other Server) bool {
	if s.Type == Unix || other.Type == Unix {
		return s.Type == other.Type && s.Listen == other.Listen
	}
	host, port, _ := net.SplitHostPort(s.Listen)
	otherHost, otherPort, err := net.SplitHostPort(other.Listen)
	if err != nil || port != otherPort || port == "0" { // port 0 is a different free port each time
		return false
	}
	a, b := canonicalHost(host), canonicalHost(otherHost)
	return a == b || overlaps(a, b) || overlaps(b, a)
}

func canonicalHost(host string) string {
	if host == "" {
		return "::"
	}
	if strings.EqualFold(host, "localhost") {
		return "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip.String()
	}
	return strings.ToLower(host)
}

// overlaps reports whether any, if it stands for all addresses, takes in host. "::" takes in IPv4 as well.
func overlaps(any, host string) bool {
	switch any {
	case "::":
		return true
	case "0.0.0.0":
		return host == "::" || !strings.Contains(host, ":")
	}
	return false
}

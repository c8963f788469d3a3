package config

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cairnmq/mqtt/logging"
)

var update = flag.Bool("update", false, "rewrite docs/configuration.md")

func TestExampleIsTheDefault(t *testing.T) {
	c, err := Parse("example.toml", Example(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, Default()) {
		t.Errorf("got  %+v\nwant %+v", c, Default())
	}
	if empty, err := Parse("", nil, nil); err != nil || !reflect.DeepEqual(empty, Default()) {
		t.Errorf("no file: %+v, %v", empty, err)
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

// The samples of lists have no space after the #, so that they can be told from words.
func TestExampleWithItsSamples(t *testing.T) {
	text := regexp.MustCompile(`(?m)^#([a-z\[])`).ReplaceAll(Example(), []byte("$1"))
	c, err := Parse("example.toml", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Durability.Rules) != 1 || len(c.Retention) != 1 || len(c.Shared.Rules) != 1 || len(c.Servers) != 2 {
		t.Errorf("got %+v, %+v, %+v, %+v", c.Durability.Rules, c.Retention, c.Shared.Rules, c.Servers)
	}
}

func TestTOMLReadsBackTheSame(t *testing.T) {
	c := Default()
	c.Log.Components.Index = "debug"
	c.Storage.Dir = "a \"quoted\"\tpath\\with\x7feverything é"
	c.Storage.MaxAge = 36 * Duration(time.Hour)
	c.Durability.Rules = []DurabilityRule{{"a/+/b", ClassAlways}, {"#", ClassOS}}
	c.Retention = []Retention{{Filter: "x", MaxBytes: 1_500_000_000, MaxAge: 90 * second, OnFull: RejectNew}}
	c.Shared = Shared{Sticky, []SharedRule{{"a b", "", Random}, {"", "x/+/#", HashTopic}}}
	c.Servers = []Server{
		server("lan-1", "[::1]:1883", func(s *Server) {
			s.MaxConnections, s.ConnectionRate, s.ConnectionBurst = 7, 50, 200
			s.ProxyProtocol, s.TrustedProxies = true, []string{"10.0.0.7", "fd00::/8"}
		}),
		server("sock", "/run/x.sock", func(s *Server) { s.Type, s.SocketMode, s.SocketOwner = Unix, "0660", "a:b" }),
		server("web", ":8084", func(s *Server) {
			s.Type = WSS
			s.TLS = ServerTLS{Cert: "c", Key: "k", ClientCA: "ca", ClientAuth: ClientAuthRequest, CRL: "crl", MinVersion: "1.3", Identity: IdentitySANDNS}
			s.WebSocket = WebSocket{Path: "/", AllowedOrigins: []string{"*.example.com", "https://a.example"}}
		}),
	}
	got, err := Parse("c.toml", c.TOML(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, c) {
		t.Errorf("got  %+v\nwant %+v\n%s", got, c, c.TOML())
	}
}

// server is a server as the file would make it.
func server(name, listen string, edit ...func(*Server)) Server {
	s := newServer(name)
	s.Listen = listen
	for _, f := range edit {
		f(&s)
	}
	return s
}

// Every field of every struct is a key, and no key is there twice.
func TestTableCoversTheStructs(t *testing.T) {
	seen := make(map[uintptr]string)
	for _, s := range sections {
		element := s.sample
		if s.form != list {
			element = s.elements(Default())[0]
		}
		fields, holder := 0, element
		if s.form == part {
			holder = s.fields(element.(*Server))
		}
		for _, f := range reflect.VisibleFields(reflect.TypeOf(holder).Elem()) {
			inSectionOfItsOwn := f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct || f.Type.Kind() == reflect.Struct
			nameOfServer := s.form == named && f.Name == "Name"
			if !inSectionOfItsOwn && !nameOfServer {
				fields++
			}
		}
		if fields != len(s.keys) {
			t.Errorf("%s: %d fields, %d keys", s.title(), fields, len(s.keys))
		}
		for _, k := range s.keys {
			at := reflect.ValueOf(k.field(element)).Pointer()
			if other, ok := seen[at]; ok {
				t.Errorf("%s.%s sets the field of %s", s.name, k.name, other)
			}
			seen[at] = s.name + "." + k.name
			if k.text == "" {
				t.Errorf("%s.%s is not explained", s.name, k.name)
			}
		}
	}
	var names []logging.Component
	for _, k := range sectionNamed("log.components").keys {
		names = append(names, logging.Component(k.name))
	}
	if !slices.Equal(names, logging.Components()) {
		t.Errorf("components are %v, want %v", names, logging.Components())
	}
}

func TestVariablesAreDistinct(t *testing.T) {
	seen := make(map[string]string)
	for _, s := range sections {
		for _, k := range s.keys {
			name := envName(s.name, k.name)
			if other, ok := seen[name]; ok {
				t.Errorf("%s means %s and %s.%s", name, other, s.name, k.name)
			}
			if foreign(name) {
				t.Errorf("%s would be ignored", name)
			}
			seen[name] = s.name + "." + k.name
		}
	}
}

func TestPageIsUpToDate(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "configuration.md")
	if *update {
		if err := os.WriteFile(path, page(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(page()) {
		t.Errorf("%s is out of date; go generate ./mqtt/config rewrites it", path)
	}
}

func TestFileWithEverything(t *testing.T) {
	c, err := Parse("c.toml", []byte(`
log.level = "debug"
[log.components]
index = "error"
[storage]
max_bytes = 1_073_741_824   # plain bytes
segment_size = "16 mib"
max_age = "1d12h"
[limits]
max_packet_size = 0x100000
max_keep_alive = 0
[sessions]
queue_qos0 = false
[durability]
rules = [ { filter = "a", class = "always" }, { filter = "b/#", class = "os" } ]
[[retention]]
filter = "#"
max_bytes = "100MB"
on_full = "reject-new"
[servers]
inner.listen = "localhost:1"
[servers.zoo]
listen = ":1883"
[servers.a]
type = "unix"
listen = "/run/a.sock"
[servers.lb]
listen = ":8884"
type = "wss"
proxy_protocol = true
trusted_proxies = ["10.0.0.0/8", "::1"]
websocket.path = "/ws"
[servers.lb.tls]
cert = "a.pem"
key = "a.key"
`), []string{"PATH=/bin", "CAIRNMQ_CONFIG=c.toml"})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Log.Level = "debug"
	want.Log.Components.Index = "error"
	want.Storage.MaxBytes = GiB
	want.Storage.SegmentSize = 16 * MiB
	want.Storage.MaxAge = Day + 12*Duration(time.Hour)
	want.Limits.MaxPacketSize = MiB
	want.Sessions.QueueQoS0 = false
	want.Durability.Rules = []DurabilityRule{{"a", ClassAlways}, {"b/#", ClassOS}}
	want.Retention = []Retention{{Filter: "#", MaxBytes: 100_000_000, OnFull: RejectNew}}
	want.Servers = []Server{
		server("inner", "localhost:1"),
		server("zoo", ":1883"),
		server("a", "/run/a.sock", func(s *Server) { s.Type = Unix }),
		server("lb", ":8884", func(s *Server) {
			s.Type, s.TLS.Cert, s.TLS.Key, s.WebSocket.Path = WSS, "a.pem", "a.key", "/ws"
			s.ProxyProtocol, s.TrustedProxies = true, []string{"10.0.0.0/8", "::1"}
		}),
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestSessionClass(t *testing.T) {
	for _, test := range []struct {
		d    Durability
		want Class
	}{
		{Durability{Default: ClassInterval}, ClassInterval},
		{Durability{Default: ClassOS}, ClassOS},
		{Durability{Default: ClassOS, Rules: []DurabilityRule{{"a", ClassInterval}}}, ClassInterval},
		{Durability{Default: ClassInterval, Rules: []DurabilityRule{{"a", ClassOS}, {"b", ClassAlways}}}, ClassAlways},
		{Durability{Default: ClassAlways, Sessions: ClassOS}, ClassOS},
	} {
		if got := test.d.SessionClass(); got != test.want {
			t.Errorf("%+v: %s, want %s", test.d, got, test.want)
		}
	}
}

func TestEffective(t *testing.T) {
	c := Default()
	c.Limits.MaxKeepAlive, c.Limits.WriteTimeout = 50*second, 5*second
	got := c.Effective(Server{MaxConnections: 5})
	want := Server{
		MaxConnections: 5, MaxPacketSize: 16 * MiB, ConnectTimeout: 10 * second,
		ReceiveMaximum: 1000, MaxKeepAlive: 50 * second, WriteTimeout: 5 * second, Anonymous: AnonymousAllow,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	want = Server{
		MaxConnections: 6, MaxPacketSize: KiB, ConnectTimeout: second, ReceiveMaximum: 2, MaxKeepAlive: 3 * second, WriteTimeout: second,
		Anonymous: AnonymousRefuse,
	}
	if got := c.Effective(want); !reflect.DeepEqual(got, want) {
		t.Errorf("its own: got %+v, want %+v", got, want)
	}
}

// Who may be anonymous is said by the server, else by [auth], else by whether there are users.
func TestAnonymousByDefault(t *testing.T) {
	for _, row := range []struct {
		file      string
		all, here Anonymous
		want      Anonymous
	}{
		{"", "", "", AnonymousAllow},
		{"x", "", "", AnonymousRefuse},
		{"x", AnonymousAllow, "", AnonymousAllow},
		{"x", AnonymousAllow, AnonymousRefuse, AnonymousRefuse},
		{"x", "", AnonymousAllow, AnonymousAllow},
	} {
		c := Default()
		c.Auth.PasswordFile, c.Auth.Anonymous = row.file, row.all
		if got := c.Effective(Server{Anonymous: row.here}).Anonymous; got != row.want {
			t.Errorf("%+v: %s", row, got)
		}
	}
}

func TestAPasswordFileIsReadWithTheConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	env := []string{"CAIRNMQ_AUTH_PASSWORD_FILE=" + path}
	if _, err := Load("", env); err == nil || !strings.Contains(err.Error(), "CAIRNMQ_AUTH_PASSWORD_FILE: stat") {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(path, []byte("a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load("", env); err == nil || !strings.Contains(err.Error(), "users:1: is not of the form") {
		t.Errorf("a bad file: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load("", env); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func TestLogOptions(t *testing.T) {
	c := Default()
	c.Log.Level = "warn"
	c.Log.Components.Storage = "debug"
	o := c.Log.Options()
	if o.Level.String() != "WARN" || len(o.Components) != 1 || o.Components[logging.Storage].String() != "DEBUG" {
		t.Errorf("got %+v", o)
	}
}

func TestTheFirstRuleForAGroupCounts(t *testing.T) {
	s := Shared{RoundRobin, []SharedRule{{"g", "jobs/+/new", Sticky}, {"g", "", Random}, {"", "jobs/#", HashTopic}}}
	for _, x := range []struct {
		group, filter string
		want          Strategy
	}{
		{"g", "jobs/+/new", Sticky}, {"g", "jobs/a/new", Sticky}, {"g", "jobs/#", Random}, {"g", "#", Random},
		{"h", "jobs/+/new", HashTopic}, {"h", "jobs/#", HashTopic}, {"h", "jobs", HashTopic}, {"h", "#", RoundRobin}, {"h", "+", RoundRobin},
	} {
		if got := s.StrategyFor(x.group, x.filter); got != x.want {
			t.Errorf("$share/%s/%s: %s, want %s", x.group, x.filter, got, x.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	if w := Default().warnings(100*GiB, true); len(w) != 0 {
		t.Errorf("the defaults warn: %v", w)
	}
	for want, change := range map[string]func(c *Config){
		"WITHOUT AUTHENTICATION":          func(c *Config) { c.Servers[0].Listen = "0.0.0.0:1883" },
		"listens on :1883":                func(c *Config) { c.Servers[0].Listen = ":1883" },
		"listens on gateway:18":           func(c *Config) { c.Servers[0].Listen = "gateway:1883" },
		"listens on :8083":                func(c *Config) { c.Servers[0].Listen, c.Servers[0].Type = ":8083", WS },
		"listens on :8883":                func(c *Config) { c.Servers[0].Listen, c.Servers[0].Type = ":8883", TLS },
		"SCRAM-SHA-256, and all messages": func(c *Config) { c.Servers[0].Listen, c.Auth.PasswordFile = ":1883", "x" },
		"listens on :1884": func(c *Config) {
			c.Servers[0].Listen, c.Auth.PasswordFile, c.Servers[0].Anonymous = ":1884", "x", AnonymousAllow
		},
		"default is os":        func(c *Config) { c.Durability.Default = ClassOS },
		"puts a/# in class os": func(c *Config) { c.Durability.Rules = []DurabilityRule{{"a/#", ClassOS}} },
		"weaker than":          func(c *Config) { c.Durability.Sessions = ClassOS },
		"limits nothing":       func(c *Config) { c.Retention = []Retention{{Filter: "a"}} },
		"come first":           func(c *Config) { c.Retention = []Retention{{Filter: "a", MaxBytes: 5 * GiB}} },
		"room for":             func(c *Config) { c.Storage.MaxBytes = TiB },
	} {
		c := Default()
		change(c)
		if w := c.warnings(100*GiB, true); len(w) != 1 || !strings.Contains(w[0], want) {
			t.Errorf("want one warning with %q, got %q", want, w)
		}
	}
	c := Default()
	c.Servers[0].Listen, c.Servers[0].Type, c.Servers[0].TLS.ClientAuth = ":8883", TLS, ClientAuthRequire
	if w := c.warnings(0, false); len(w) != 0 {
		t.Errorf("with certificates of clients: %v", w)
	}
	for _, harmless := range []string{"localhost:1883", "[::1]:1883", "127.8.8.8:1883"} {
		c := Default()
		c.Servers[0].Listen = harmless
		if w := c.warnings(0, false); len(w) != 0 {
			t.Errorf("%s: %v", harmless, w)
		}
	}
}

func TestRoomCountsWhatIsThereAlready(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x"), make([]byte, 12345), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := used(dir); got != 12345 {
		t.Errorf("used = %d", got)
	}
	if _, known := roomFor(filepath.Join(dir, "not", "there", "yet")); !known {
		t.Skip("the free space is not known on this system")
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "4096": 4096, "64MiB": 64 * MiB, "1.5GB": 1_500_000_000, "1.1GB": 1_100_000_000, "2 tib": 2 * TiB,
		"0.5KiB": 512, "7b": 7, "1kB": 1000,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q: %d, %v; want %d", text, s, err, want)
		}
		var back Size
		if err := back.UnmarshalText([]byte(s.String())); err != nil || back != s {
			t.Errorf("%q reads back as %d, %v", s.String(), back, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5", "0.1KiB", "1M", "1XB", "1e9", "1..5KB", ".", "9999999TiB", "1/2KB",
		strings.Repeat("9", 31), "1MiB2"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %d", text, s)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "200ms": 200 * time.Millisecond, "7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute,
		"90s": 90 * time.Second, "1.5h": 90 * time.Minute, "10h": 10 * time.Hour, "10m": 10 * time.Minute, "1h0m5s": 3605 * time.Second,
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Std() != want {
			t.Errorf("%q: %v, %v; want %v", text, d, err, want)
		}
		var back Duration
		if err := back.UnmarshalText([]byte(d.String())); err != nil || back != d {
			t.Errorf("%q reads back as %v, %v", d.String(), back, err)
		}
	}
	for _, text := range []string{"", "5", "d", "-1s", "+1s", "1d-1h", "1.5d", "1w", "999999999d", "106751d24h", "1d1d"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %v", text, d)
		}
	}
	for d, want := range map[Duration]string{0: "0", 30 * Day: "30d", 90 * second: "1m30s", 10 * second: "10s", 3600 * second: "1h", 600 * second: "10m"} {
		if d.String() != want {
			t.Errorf("%v, want %s", d, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(Example()))
	f.Add(string(Default().TOML()))
	for _, file := range slices.Sorted(maps.Keys(faults)) {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f.toml", []byte(text), nil)
		if err != nil {
			problems, ok := err.(Problems)
			if !ok || len(problems) == 0 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		again, err := Parse("again.toml", c.TOML(), nil)
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%v\n%s", err, c.TOML())
		}
	})
}

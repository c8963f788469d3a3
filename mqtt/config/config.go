package config

import (
	"cmp"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"cairnmq/mqtt/logging"
	"cairnmq/storage/filter"
)

// Config is everything that can be set. The meaning and the range of each key are in keys.go.
type Config struct {
	Log        Log
	Storage    Storage
	Durability Durability
	Retention  []Retention
	Sessions   Sessions
	Shared     Shared
	Limits     Limits
	Auth       Auth
	Sys        Sys
	Redirect   Redirect
	Debug      Debug
	Servers    []Server // in the order of the file
}

// Log is the [log] table.
type Log struct {
	Level      Level
	Format     logging.Format
	Color      logging.Color
	Components Components
}

// Components is the [log.components] table. An empty level means the level of [log].
type Components struct {
	Broker, Client, Storage, Index, Listener, Retention Level
}

// Storage is the [storage] table.
type Storage struct {
	Dir                string
	SegmentSize        Size
	MaxBytes           Size
	MaxAge             Duration // 0: no limit
	CheckpointBytes    Size
	CheckpointInterval Duration
	MappedSegments     int
}

// Class is a durability class: when a message counts as stored.
type Class string

// The durability classes, strongest first.
const (
	ClassAlways   Class = "always"
	ClassInterval Class = "interval"
	ClassOS       Class = "os"
)

// Durability is the [durability] table.
type Durability struct {
	Default  Class
	Interval Duration
	Sessions Class // empty: the strongest class in use, see SessionClass
	Rules    []DurabilityRule
}

// DurabilityRule gives the messages of a topic filter a class of their own.
type DurabilityRule struct {
	Filter string
	Class  Class
}

// OnFull says what happens to a message when its retention rule has no room left.
type OnFull string

// The answers to a full retention rule.
const (
	DropOldest OnFull = "drop-oldest"
	RejectNew  OnFull = "reject-new"
)

// Retention is one [[retention]] rule.
type Retention struct {
	Filter   string
	MaxBytes Size     // 0: no limit of its own
	MaxAge   Duration // 0: no limit of its own
	OnFull   OnFull
}

// Sessions is the [sessions] table.
type Sessions struct {
	MaxExpiry        Duration // 0: no cap
	MaxInflight      int
	ReceiveMaximum   int
	Outbox           int
	QueueQoS0        bool
	MaxSubscriptions int
	MaxClientID      int // in bytes
	// ResponseInformation has %c for the client and %u for the user; empty: none.
	ResponseInformation string
}

// Strategy says which member of a shared subscription gets a message.
type Strategy string

// The strategies.
const (
	RoundRobin    Strategy = "round-robin"
	Random        Strategy = "random"
	Sticky        Strategy = "sticky"
	HashClient    Strategy = "hash-client"
	HashTopic     Strategy = "hash-topic"
	LeastInflight Strategy = "least-inflight"
)

// Shared is the [shared] table with the [[shared.rules]] below it.
type Shared struct {
	Strategy Strategy
	Rules    []SharedRule
}

// SharedRule is one [[shared.rules]].
type SharedRule struct {
	Group    string // share name; empty: any
	Filter   string // that covers the subscription's; empty: any
	Strategy Strategy
}

// StrategyFor is the strategy of the shared subscription $share/group/filter: that of the first rule for it.
func (s *Shared) StrategyFor(group, f string) Strategy {
	for _, rule := range s.Rules {
		if (rule.Group == "" || rule.Group == group) && (rule.Filter == "" || rule.Filter == f || filter.Match(rule.Filter, f)) {
			return rule.Strategy
		}
	}
	return s.Strategy
}

// Limits is the [limits] table.
type Limits struct {
	MaxPacketSize  Size
	ReceiveMemory  Size // 0: four of the largest packets
	MaxConnections int
	MaxTopicLevels int
	ConnectTimeout Duration
	MaxKeepAlive   Duration // 0: whatever the client asks for
	WriteTimeout   Duration // 0: none
	MaxTopicAlias  int
	// MaxTopicAliasOut are those that the broker uses.
	MaxTopicAliasOut   int
	CheckPayloadFormat bool
}

// Anonymous says what becomes of clients that do not say who they are.
type Anonymous string

// The answers. An empty one leaves it to the next wider key, and at last to whether there is a password file.
const (
	AnonymousAllow  Anonymous = "allow"
	AnonymousRefuse Anonymous = "refuse"
)

// Auth is the [auth] table.
type Auth struct {
	PasswordFile string // path; empty: there are no users
	Anonymous    Anonymous
	Checks       int // passwords checked at one time; 0: half of the processors
}

// Sys is the [sys] table.
type Sys struct {
	Interval Duration // 0: no $SYS topics
	Readers  int      // those that are furthest behind and get a topic
}

// RedirectCode is the reason for which clients are sent elsewhere.
type RedirectCode string

// The reasons: for a time, and for good. An empty one does not send them.
const (
	UseAnotherServer RedirectCode = "use-another-server"
	ServerMoved      RedirectCode = "server-moved"
)

// Redirect is the [redirect] table.
type Redirect struct {
	Server   string // the server reference of MQTT 5
	Connect  RedirectCode
	Shutdown bool
}

// Debug is the [debug] table.
type Debug struct {
	Pprof string // address; empty: no profiles
}

// ServerType is the transport that a server listens on.
type ServerType string

// The transports.
const (
	TCP  ServerType = "tcp"
	TLS  ServerType = "tls"
	WS   ServerType = "ws"
	WSS  ServerType = "wss"
	Unix ServerType = "unix"
)

// Encrypted reports whether TLS is the layer above TCP.
func (t ServerType) Encrypted() bool { return t == TLS || t == WSS }

// WebSocket reports whether MQTT travels in WebSocket frames.
func (t ServerType) WebSocket() bool { return t == WS || t == WSS }

// Server is one [servers.NAME] table. Zero in the limits that [limits] and [sessions] have too means the value there;
// see Config.Effective.
type Server struct {
	Name            string
	Listen          string
	Type            ServerType
	MaxConnections  int
	ConnectionRate  int // per second; 0: no limit
	ConnectionBurst int // 0: ConnectionRate
	MaxPacketSize   Size
	ConnectTimeout  Duration
	ReceiveMaximum  int
	MaxKeepAlive    Duration
	WriteTimeout    Duration
	Anonymous       Anonymous
	ProxyProtocol   bool
	TrustedProxies  []string // addresses and networks
	SocketMode      string   // octal; empty: as the umask leaves it
	SocketOwner     string   // user, user:group or :group; empty: the process's own

	TLS       ServerTLS
	WebSocket WebSocket
}

// ClientAuth says what a TLS server does about certificates of clients.
type ClientAuth string

// The answers, weakest first. A certificate that is shown must be good with any but the first.
const (
	ClientAuthNone    ClientAuth = "none"
	ClientAuthRequest ClientAuth = "request"
	ClientAuthRequire ClientAuth = "require"
)

// Identity says which part of a client's certificate names it.
type Identity string

// The parts.
const (
	IdentityNone     Identity = ""
	IdentityCN       Identity = "cn"
	IdentitySANDNS   Identity = "san-dns"
	IdentitySANEmail Identity = "san-email"
)

// ServerTLS is a [servers.NAME.tls] table.
type ServerTLS struct {
	Cert, Key  string // paths
	ClientCA   string // path
	ClientAuth ClientAuth
	CRL        string // path
	MinVersion string
	Identity   Identity
}

// WebSocket is a [servers.NAME.websocket] table.
type WebSocket struct {
	Path           string
	AllowedOrigins []string
	Compressed     int // connections with permessage-deflate at one time
}

// Default returns the configuration of a broker without a file.
func Default() *Config {
	return &Config{
		Log: Log{Level: "info", Format: logging.FormatAuto, Color: logging.ColorAuto},
		Storage: Storage{
			Dir:                "./data",
			SegmentSize:        64 * MiB,
			MaxBytes:           4 * GiB,
			CheckpointBytes:    16 * MiB,
			CheckpointInterval: Duration(10 * time.Second),
			MappedSegments:     4,
		},
		Durability: Durability{Default: ClassInterval, Interval: Duration(200 * time.Millisecond)},
		Sessions: Sessions{
			MaxExpiry:        30 * Day,
			MaxInflight:      1000,
			ReceiveMaximum:   1000,
			Outbox:           4096,
			QueueQoS0:        true,
			MaxSubscriptions: 1000,
			MaxClientID:      256,
		},
		Shared: Shared{Strategy: RoundRobin},
		Limits: Limits{
			MaxPacketSize:  16 * MiB,
			MaxConnections: 10_000,
			MaxTopicLevels: 128,
			ConnectTimeout: Duration(10 * time.Second),
			MaxTopicAlias:  64,

			MaxTopicAliasOut: 32,
		},
		Sys:     Sys{Interval: Duration(10 * time.Second), Readers: 10},
		Servers: []Server{newServer("main")},
	}
}

func newServer(name string) Server {
	return Server{
		Name: name, Listen: "127.0.0.1:1883", Type: TCP,
		TLS:       ServerTLS{ClientAuth: ClientAuthNone, MinVersion: "1.2"},
		WebSocket: WebSocket{Path: "/mqtt", Compressed: 16},
	}
}

func newRetention() Retention { return Retention{OnFull: DropOldest} }

// Load reads the file at path and lays env, in the form of os.Environ, over it. An empty path means the defaults.
// The error is Problems when the fault is in what the file or the environment says.
func Load(path string, env []string) (*Config, error) {
	if path == "" {
		return parse("", nil, env, (*Config).checkFiles)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err // names the file and what was attempted
	}
	return parse(path, data, env, (*Config).checkFiles)
}

// Parse is Load for a file whose bytes are at hand; name stands for the file in messages. It does not look at the
// files that the configuration names, such as certificates.
func Parse(name string, data []byte, env []string) (*Config, error) {
	return parse(name, data, env, func(*Config, *report) {})
}

func parse(name string, data []byte, env []string, checkFiles func(*Config, *report)) (*Config, error) {
	c := Default()
	r := newReport(name)
	root := parseTree(data, r)
	if root != nil {
		readTree(root, c, r)
	}
	readEnv(env, c, r)
	if root != nil { // or else the checks would speak of defaults that the file may well replace
		c.check(r)
		checkFiles(c, r)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Validate checks a configuration that was put together in code, but not the files that it names. The error is
// Problems.
func (c *Config) Validate() error {
	r := newReport("")
	c.check(r)
	return r.err()
}

// Effective returns s with its zero values replaced by those of [limits], [sessions] and [auth].
func (c *Config) Effective(s Server) Server {
	s.MaxConnections = cmp.Or(s.MaxConnections, c.Limits.MaxConnections)
	s.MaxPacketSize = cmp.Or(s.MaxPacketSize, c.Limits.MaxPacketSize)
	s.ConnectTimeout = cmp.Or(s.ConnectTimeout, c.Limits.ConnectTimeout)
	s.ReceiveMaximum = cmp.Or(s.ReceiveMaximum, c.Sessions.ReceiveMaximum)
	s.MaxKeepAlive = cmp.Or(s.MaxKeepAlive, c.Limits.MaxKeepAlive)
	s.WriteTimeout = cmp.Or(s.WriteTimeout, c.Limits.WriteTimeout)
	s.Anonymous = cmp.Or(s.Anonymous, c.Auth.Anonymous, c.Auth.anonymousByDefault())
	return s
}

// anonymousByDefault: who makes users means that others stay out.
func (a Auth) anonymousByDefault() Anonymous {
	if a.PasswordFile == "" {
		return AnonymousAllow
	}
	return AnonymousRefuse
}

// ReceiveMemory is what large packets may take in memory while they are received.
func (c *Config) ReceiveMemory() Size {
	if c.Limits.ReceiveMemory > 0 {
		return c.Limits.ReceiveMemory
	}
	largest := c.Limits.MaxPacketSize
	for _, s := range c.Servers {
		largest = max(largest, s.MaxPacketSize)
	}
	return 4 * largest
}

// SessionClass is the class of session events: the one that is set, or else the strongest in use, so that no
// message outlives the subscription it was kept for.
func (d Durability) SessionClass() Class {
	if d.Sessions != "" {
		return d.Sessions
	}
	inUse := []Class{d.Default}
	for _, rule := range d.Rules {
		inUse = append(inUse, rule.Class)
	}
	for _, class := range []Class{ClassAlways, ClassInterval} {
		if slices.Contains(inUse, class) {
			return class
		}
	}
	return ClassOS
}

// Options returns what the logging package needs to know.
func (l Log) Options() logging.Options {
	o := logging.Options{
		Format:     l.Format,
		Color:      l.Color,
		Level:      l.Level.Slog(),
		Components: make(map[logging.Component]slog.Level),
	}
	for _, k := range sectionNamed("log.components").keys {
		if level := *k.field(&l.Components).(*Level); level != "" {
			o.Components[logging.Component(strings.ToLower(k.name))] = level.Slog()
		}
	}
	return o
}

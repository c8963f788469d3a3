package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"cairnmq/mqtt/logging"
)

// form is how a section is written in the file.
type form int

const (
	table form = iota // [name]
	list              // [[name]], any number of them, without names
	named             // [name.NAME], any number of them
	part              // [servers.NAME.part], a part of each server
)

// anyServer stands for a server's name in the name of a part of it.
const anyServer = "NAME"

// section is a table of the file. Sections and their keys are the single description of the configuration: the
// reader, the checks, the example file, the reference page and the names of variables all go by it.
type section struct {
	name string
	form form
	text string
	keys []key

	// elements returns pointers to the structs that the section fills; for a table there is one.
	elements func(c *Config) []any
	// add appends an element with its default values. Nil for a table.
	add func(c *Config, name string) any
	// sample is an element for the example file, for a list or a part. Nil for others.
	sample any
	// fields is, of a part, the pointer to the struct within the server's. Nil for others.
	fields func(s *Server) any
}

// key is one setting.
type key struct {
	name  string
	text  string
	field func(element any) any // the pointer to the setting within its section's struct

	min, max  int64
	multiple  int64           // of this number only
	unit      func(int64) any // shows min and max in the key's own unit
	zero      string          // what 0 means, outside of the range; empty: nothing special
	choices   []string        // an empty choice means that it may be left to another key
	empty     string          // what the empty choice means
	required  bool
	isFilter  bool
	wholeSecs bool
	valid     func(string) error // judges a string that is not empty, or each string of a list
}

func (k key) with(change func(k *key)) key {
	change(&k)
	return k
}

// setting starts a key. S is the struct of its section.
func setting[S any](name string, field func(*S) any, text string) key {
	return key{name: name, text: text, field: func(element any) any { return field(element.(*S)) }}
}

func (k key) count(least, most int64) key {
	return k.with(func(k *key) {
		k.min, k.max, k.unit = least, most, func(n int64) any { return n }
	})
}

func (k key) size(least, most Size) key {
	return k.with(func(k *key) {
		k.min, k.max, k.unit = int64(least), int64(most), func(n int64) any { return Size(n) }
	})
}

func (k key) time(least, most Duration) key {
	return k.with(func(k *key) {
		k.min, k.max, k.unit = int64(least), int64(most), func(n int64) any { return Duration(n) }
	})
}

func (k key) orZero(meaning string) key { return k.with(func(k *key) { k.zero = meaning }) }

func (k key) orEmpty(meaning string) key {
	return k.with(func(k *key) { k.choices, k.empty = append(k.choices, ""), meaning })
}

func (k key) multipleOf(n int64) key { return k.with(func(k *key) { k.multiple = n }) }
func (k key) wholeSeconds() key      { return k.with(func(k *key) { k.wholeSecs = true }) }
func (k key) needed() key            { return k.with(func(k *key) { k.required = true }) }

func (k key) must(valid func(string) error) key { return k.with(func(k *key) { k.valid = valid }) }

func (k key) filter() key { return k.with(func(k *key) { k.required, k.isFilter = true, true }) }

func oneOf[T ~string](k key, choices ...T) key {
	for _, choice := range choices {
		k.choices = append(k.choices, string(choice))
	}
	return k
}

var (
	levels  = []Level{"debug", "info", "warn", "error"}
	classes = []Class{ClassAlways, ClassInterval, ClassOS}

	strategies = []Strategy{RoundRobin, Random, Sticky, HashClient, HashTopic, LeastInflight}
)

const (
	maxPacketSize  = 268_435_460        // the largest MQTT packet: five bytes of header and 2^28-1 of content
	maxCount       = 1_000_000          // of connections, subscriptions and the like: far beyond any gateway
	maxSessionTime = 49_710 * Day       // MQTT counts session expiry in 32 bits of seconds
	secondsMQTT    = Duration(65_535e9) // MQTT counts keep alive in 16 bits of seconds
	second         = Duration(time.Second)
	century        = 36_500 * Day
)

var sections = []section{
	{
		name: "log",
		text: "What the broker writes to standard error.",
		keys: []key{
			oneOf(setting("level", func(s *Log) any { return &s.Level },
				"Lines below this level are left out."), levels...),
			oneOf(setting("format", func(s *Log) any { return &s.Format },
				"text is for people, json for machines.\nauto is text on a terminal and json elsewhere."),
				logging.FormatAuto, logging.FormatText, logging.FormatJSON),
			oneOf(setting("color", func(s *Log) any { return &s.Color },
				"Colours in text. auto means on a terminal, unless NO_COLOR is set in the environment."),
				logging.ColorAuto, logging.ColorAlways, logging.ColorNever),
		},
		elements: func(c *Config) []any { return []any{&c.Log} },
	},
	{
		name: "log.components",
		text: "The level of one part of the broker. An empty level is that of [log].",
		keys: []key{
			component(logging.Broker, func(s *Components) *Level { return &s.Broker },
				"Start, stop, routing, wills."),
			component(logging.Client, func(s *Components) *Level { return &s.Client },
				"Connections and sessions of single clients."),
			component(logging.Storage, func(s *Components) *Level { return &s.Storage },
				"The log on disk: recovery, commits, damage."),
			component(logging.Index, func(s *Components) *Level { return &s.Index },
				"The index beside the log: checkpoints, rebuilding."),
			component(logging.Listener, func(s *Components) *Level { return &s.Listener },
				"Listening sockets."),
			component(logging.Retention, func(s *Components) *Level { return &s.Retention },
				"What is removed from disk, and who lost something by it."),
		},
		elements: func(c *Config) []any { return []any{&c.Log.Components} },
	},
	{
		name: "storage",
		text: "The directory that holds every message and session.",
		keys: []key{
			setting("dir", func(s *Storage) any { return &s.Dir },
				"The data directory. It is created if need be. A relative path starts at the working directory.").needed(),
			setting("segment_size", func(s *Storage) any { return &s.SegmentSize },
				"The size of one file of the log. Disk space comes and goes in these steps.\n"+
					"A message that is larger gets a file of its own size.").
				size(64*KiB, GiB).multipleOf(4096),
			setting("max_bytes", func(s *Storage) any { return &s.MaxBytes },
				"The budget of the whole directory, at least four segments.\n"+
					"When it is used up, the oldest segment goes; what a client loses by that is in the loss ledger.").
				size(4*64*KiB, 1024*TiB),
			setting("max_age", func(s *Storage) any { return &s.MaxAge },
				"Segments whose messages are all older go, even if there is room.").
				time(second, century).orZero("no limit"),
			setting("checkpoint_bytes", func(s *Storage) any { return &s.CheckpointBytes },
				"After this much new log the index is brought up to date on disk. More of it means a longer start after a crash.").
				size(64*KiB, GiB),
			setting("checkpoint_interval", func(s *Storage) any { return &s.CheckpointInterval },
				"The index is brought up to date after this time too, if anything changed.").
				time(second/10, Duration(time.Hour)),
			setting("mapped_segments", func(s *Storage) any { return &s.MappedSegments },
				"How many full segments stay mapped for reading, beside the one that is written.\n"+
					"This is address space, of which only the pages in use take memory.").
				count(0, 1024),
		},
		elements: func(c *Config) []any { return []any{&c.Storage} },
	},
	{
		name: "durability",
		text: "When a message counts as stored, so that it may be acknowledged, and what a power cut can then cost:\n" +
			"always: when it is on stable storage; nothing. interval: when it is written to the log; at most the interval.\n" +
			"os: when it is written to the log; what the kernel held back. The death of the broker alone costs nothing in any class.",
		keys: []key{
			oneOf(setting("default", func(s *Durability) any { return &s.Default },
				"The class of topics that no rule names."), classes...),
			setting("interval", func(s *Durability) any { return &s.Interval },
				"The time between syncs in class interval: the most that a power cut can cost.").
				time(Duration(time.Millisecond), Duration(10*time.Minute)),
			oneOf(setting("sessions", func(s *Durability) any { return &s.Sessions },
				"The class of subscriptions and other session events."), classes...).
				orEmpty("the strongest class in use"),
		},
		elements: func(c *Config) []any { return []any{&c.Durability} },
	},
	{
		name: "durability.rules",
		form: list,
		text: "A class for the topics of a filter. Each filter may have one rule.",
		keys: []key{
			setting("filter", func(s *DurabilityRule) any { return &s.Filter },
				"An MQTT topic filter; + and # mean what they mean in a subscription.").filter(),
			oneOf(setting("class", func(s *DurabilityRule) any { return &s.Class },
				"The class of these topics."), classes...).needed(),
		},
		elements: func(c *Config) []any { return pointers(c.Durability.Rules) },
		add: func(c *Config, _ string) any {
			return grow(&c.Durability.Rules, DurabilityRule{})
		},
		sample: &DurabilityRule{Filter: "alarms/#", Class: ClassAlways},
	},
	{
		name: "retention",
		form: list,
		text: "A limit for the topics of a filter, within the budget of [storage]. Each filter may have one rule.",
		keys: []key{
			setting("filter", func(s *Retention) any { return &s.Filter },
				"An MQTT topic filter; + and # mean what they mean in a subscription.").filter(),
			setting("max_bytes", func(s *Retention) any { return &s.MaxBytes },
				"What these topics may take up.").
				size(1, 1024*TiB).orZero("no limit of their own"),
			setting("max_age", func(s *Retention) any { return &s.MaxAge },
				"How long their messages are kept.").
				time(second, century).orZero("no limit of their own"),
			oneOf(setting("on_full", func(s *Retention) any { return &s.OnFull },
				"When there is no room: drop-oldest makes some, reject-new refuses the publish with reason 0x97, quota exceeded."),
				DropOldest, RejectNew),
		},
		elements: func(c *Config) []any { return pointers(c.Retention) },
		add: func(c *Config, _ string) any {
			return grow(&c.Retention, newRetention())
		},
		sample: &Retention{Filter: "telemetry/#", MaxBytes: GiB, MaxAge: 7 * Day, OnFull: DropOldest},
	},
	{
		name: "sessions",
		text: "What one client may ask the broker to keep for it.",
		keys: []key{
			setting("max_expiry", func(s *Sessions) any { return &s.MaxExpiry },
				"A session ends when its client has been away for this long, whatever expiry the client asked for.\n"+
					"It is also the expiry of 3.1.1 clients that connect with clean session 0.").
				time(second, maxSessionTime).orZero("no cap").wholeSeconds(),
			setting("max_inflight", func(s *Sessions) any { return &s.MaxInflight },
				"QoS 1 and 2 messages on their way to a client that does not ask for fewer itself.").count(1, 65_535),
			setting("receive_maximum", func(s *Sessions) any { return &s.ReceiveMaximum },
				"QoS 1 and 2 messages that a client may have on their way to the broker. MQTT 5 clients are told so.").
				count(1, 65_535),
			setting("outbox", func(s *Sessions) any { return &s.Outbox },
				"Messages waiting in memory for a client that is slow, each a few dozen bytes.\n"+
					"Beyond them the session reads from the log on disk instead; nothing is lost by that.").count(16, maxCount),
			setting("queue_qos0", func(s *Sessions) any { return &s.QueueQoS0 },
				"Whether a session that was away also gets the QoS 0 messages that it missed."),
			setting("max_subscriptions", func(s *Sessions) any { return &s.MaxSubscriptions },
				"Subscriptions of one session; more are refused with reason 0x97, quota exceeded. Each takes some hundred bytes of\n"+
					"memory while its client is connected, so this bounds what a client can take: about 200 KB at 1000.").
				count(1, maxCount),
			setting("max_client_id", func(s *Sessions) any { return &s.MaxClientID },
				"The longest client identifier, in bytes. MQTT grants every client 23.").count(23, 65_535),
			setting("response_information", func(s *Sessions) any { return &s.ResponseInformation },
				"What MQTT 5 clients get that ask for response information: the beginning of the topics on which they should want\n"+
					"their answers, as in \"reply/%c\". %c is the client identifier, %u the user. A client whose name would make a\n"+
					"wildcard of it gets none.").
				must(checkTopicPattern).orEmpty("nobody gets any"),
		},
		elements: func(c *Config) []any { return []any{&c.Sessions} },
	},
	{
		name: "shared",
		text: "Shared subscriptions, $share/GROUP/FILTER: each message goes to one member of the group.",
		keys: []key{
			oneOf(setting("strategy", func(s *Shared) any { return &s.Strategy },
				"Which member gets a message. round-robin: one after the other. random: any. sticky: always the same one, until it\n"+
					"takes no more or leaves. hash-client and hash-topic: the one that the publisher's client identifier or the topic\n"+
					"falls to, so that these messages stay in order; while that member takes no more they wait for it, also if others\n"+
					"have time. least-inflight: the one with the fewest unacknowledged messages.\n"+
					"But for the hashes, a member that takes no more is passed over."), strategies...),
		},
		elements: func(c *Config) []any { return []any{&c.Shared} },
	},
	{
		name: "shared.rules",
		form: list,
		text: "A strategy for some groups. The first rule that names a group counts.",
		keys: []key{
			setting("group", func(s *SharedRule) any { return &s.Group },
				"The name of the group: what is between the slashes behind $share.").orEmpty("any").must(checkShareName),
			setting("filter", func(s *SharedRule) any { return &s.Filter },
				"A topic filter that is the group's, or covers it, as jobs/# covers jobs/+/new.").orEmpty("any").must(checkFilter),
			oneOf(setting("strategy", func(s *SharedRule) any { return &s.Strategy },
				"The strategy of these groups."), strategies...).needed(),
		},
		elements: func(c *Config) []any { return pointers(c.Shared.Rules) },
		add: func(c *Config, _ string) any {
			return grow(&c.Shared.Rules, SharedRule{})
		},
		sample: &SharedRule{Group: "workers", Filter: "jobs/#", Strategy: LeastInflight},
	},
	{
		name: "limits",
		text: "What the broker accepts, on every server that does not say otherwise.",
		keys: []key{
			setting("max_packet_size", func(s *Limits) any { return &s.MaxPacketSize },
				"The largest MQTT packet, at most a quarter of storage.max_bytes. MQTT 5 clients are told so. What MQTT itself can\n"+
					"express is 268435460 bytes. Packets other than PUBLISH are limited to 1MiB in any case.").
				size(KiB, maxPacketSize),
			setting("receive_memory", func(s *Limits) any { return &s.ReceiveMemory },
				"Memory for packets larger than 64KiB while they are received, on all connections together. A client whose packet\n"+
					"finds no room waits: the broker does not read from it until there is. At least max_packet_size.").
				size(64*KiB, 1<<40).orZero("four times the largest max_packet_size"),
			setting("max_connections", func(s *Limits) any { return &s.MaxConnections },
				"Connections at one time, on all servers together.").count(1, maxCount),
			setting("max_topic_levels", func(s *Limits) any { return &s.MaxTopicLevels },
				"Levels of a topic or filter, the parts between slashes.").count(4, 10_000),
			setting("connect_timeout", func(s *Limits) any { return &s.ConnectTimeout },
				"How long a new connection may take to send its CONNECT.").
				time(second/10, Duration(10*time.Minute)),
			setting("max_keep_alive", func(s *Limits) any { return &s.MaxKeepAlive },
				"The longest keep alive. MQTT 5 clients that ask for more, or for none, are told to use this one. Older clients\n"+
					"cannot be told, and would not know why they are put out: theirs is what they ask for.").
				time(second, secondsMQTT).orZero("whatever the client asks for").wholeSeconds(),
			setting("write_timeout", func(s *Limits) any { return &s.WriteTimeout },
				"A client that takes no data for this long is disconnected.").
				time(second/10, Duration(time.Hour)).orZero("no limit"),
			setting("max_topic_alias", func(s *Limits) any { return &s.MaxTopicAlias },
				"Topic aliases that an MQTT 5 client may set up.").count(0, 65_535),
			setting("max_topic_alias_out", func(s *Limits) any { return &s.MaxTopicAliasOut },
				"Topic aliases that the broker uses towards an MQTT 5 client, if it takes any: a topic that comes often is sent as\n"+
					"three bytes. Each takes the memory of a topic while the client is connected.").count(0, 65_535),
			setting("check_payload_format", func(s *Limits) any { return &s.CheckPayloadFormat },
				"Whether a payload whose format indicator (MQTT 5) says that it is text is refused if it is not UTF-8, with reason\n"+
					"0x99, payload format invalid. With QoS 0, which has no answer, it is dropped."),
		},
		elements: func(c *Config) []any { return []any{&c.Limits} },
	},
	{
		name: "auth",
		text: "Who may connect. docs/security.md explains it.",
		keys: []key{
			setting("password_file", func(s *Auth) any { return &s.PasswordFile },
				"The file of users and of what their passwords are checked with. \"cairnmq passwd\" changes it; one that\n"+
					"mosquitto_passwd has made is read as well. When it changes it is read anew, and nobody is disconnected.\n"+
					"Its users may come with their password, or with enhanced authentication by the method SCRAM-SHA-256.").
				orEmpty("there are no users"),
			oneOf(setting("anonymous", func(s *Auth) any { return &s.Anonymous },
				"Whether clients may connect that name no user (what other brokers call allow_anonymous). A wrong password is\n"+
					"refused in any case. Who is named by a certificate (identity in [servers.NAME.tls]) is not anonymous."),
				AnonymousAllow, AnonymousRefuse).orEmpty("refuse if there is a password_file, else allow"),
			setting("checks", func(s *Auth) any { return &s.Checks },
				"Passwords that are checked at one time. Each keeps a processor busy for some ten milliseconds or more, on purpose.\n"+
					"Clients that were here before with the same password, or that use SCRAM-SHA-256, need no such check.").
				count(1, 64).orZero("half of the processors"),
		},
		elements: func(c *Config) []any { return []any{&c.Auth} },
	},
	{
		name: "sys",
		text: "The $SYS topics, by which the broker tells of itself. docs/sys.md lists them. They are not messages of the log.",
		keys: []key{
			setting("interval", func(s *Sys) any { return &s.Interval },
				"How often clients that have subscribed to them are told what has changed.").
				time(second, Duration(time.Hour)).orZero("no $SYS topics"),
			setting("readers", func(s *Sys) any { return &s.Readers },
				"How many of the sessions that are furthest behind have a topic that says how far.").count(0, 1000),
		},
		elements: func(c *Config) []any { return []any{&c.Sys} },
	},
	{
		name: "redirect",
		text: "Sends clients to another server, for maintenance or for good. MQTT 5 clients are told where; older ones are refused\n" +
			"as by a server that is not available.",
		keys: []key{
			setting("server", func(s *Redirect) any { return &s.Server },
				"The server reference: a host, host:port, or several with spaces between them. Everybody who connects can see it.").
				orEmpty("clients are not told"),
			oneOf(setting("connect", func(s *Redirect) any { return &s.Connect },
				"Refuses everybody who connects: use-another-server (0x9C) for a time, server-moved (0x9D) for good."),
				UseAnotherServer, ServerMoved).orEmpty("nobody is refused"),
			setting("shutdown", func(s *Redirect) any { return &s.Shutdown },
				"Whether clients are told to use the other server (0x9C) when this one shuts down, in place of 0x8B."),
		},
		elements: func(c *Config) []any { return []any{&c.Redirect} },
	},
	{
		name: "debug",
		text: "For those who look into the broker itself.",
		keys: []key{
			setting("pprof", func(s *Debug) any { return &s.Pprof },
				"Host and port, as in \"127.0.0.1:6060\", where Go's profiles are served over HTTP, below /debug/pprof/.\n"+
					"There is no password: whoever reaches the address can slow the broker down. Empty: nowhere.").
				must(checkHostPort),
		},
		elements: func(c *Config) []any { return []any{&c.Debug} },
	},
	{
		name: "servers",
		form: named,
		text: "One table for each address to listen on, under a name of lower case letters, digits, - and _.\n" +
			"All versions of MQTT are spoken on each. A file that has any server replaces the one below.",
		keys: []key{
			setting("listen", func(s *Server) any { return &s.Listen },
				"Host and port, as in \"0.0.0.0:1883\" or \"[::]:1883\"; for type unix, the path of the socket.\n"+
					"Without [auth], whoever reaches the address may read and write everything.").needed(),
			oneOf(setting("type", func(s *Server) any { return &s.Type },
				"The transport: plain TCP, TLS, WebSocket, secure WebSocket (wss), or a Unix socket."), TCP, TLS, WS, WSS, Unix),
			setting("max_connections", func(s *Server) any { return &s.MaxConnections },
				"Connections at one time on this server, within limits.max_connections.").
				count(1, maxCount).orZero("limits.max_connections"),
			setting("connection_rate", func(s *Server) any { return &s.ConnectionRate },
				"New connections per second. More are closed at once, before TLS or anything else is spent on them.").
				count(1, maxCount).orZero("no limit"),
			setting("connection_burst", func(s *Server) any { return &s.ConnectionBurst },
				"How many may come together after a quiet time, before connection_rate holds.").
				count(1, maxCount).orZero("connection_rate"),
			setting("max_packet_size", func(s *Server) any { return &s.MaxPacketSize },
				"The largest MQTT packet on this server.").
				size(KiB, maxPacketSize).orZero("limits.max_packet_size"),
			setting("connect_timeout", func(s *Server) any { return &s.ConnectTimeout },
				"How long a new connection may take to send its CONNECT, from when it is accepted: the PROXY header, the TLS\n"+
					"handshake and the WebSocket request count too.").
				time(second/10, Duration(10*time.Minute)).orZero("limits.connect_timeout"),
			setting("receive_maximum", func(s *Server) any { return &s.ReceiveMaximum },
				"QoS 1 and 2 messages that a client of this server may have on their way to the broker.").
				count(1, 65_535).orZero("sessions.receive_maximum"),
			setting("max_keep_alive", func(s *Server) any { return &s.MaxKeepAlive },
				"The longest keep alive on this server, for MQTT 5 clients.").
				time(second, secondsMQTT).orZero("limits.max_keep_alive").wholeSeconds(),
			setting("write_timeout", func(s *Server) any { return &s.WriteTimeout },
				"A client of this server that takes no data for this long is disconnected.").
				time(second/10, Duration(time.Hour)).orZero("limits.write_timeout"),
			oneOf(setting("anonymous", func(s *Server) any { return &s.Anonymous },
				"Whether clients of this server may connect that name no user."),
				AnonymousAllow, AnonymousRefuse).orEmpty("auth.anonymous"),
			setting("proxy_protocol", func(s *Server) any { return &s.ProxyProtocol },
				"Whether each connection begins with a PROXY header, version 1 or 2, from which the client's address is taken.\n"+
					"A connection without one is closed."),
			setting("trusted_proxies", func(s *Server) any { return &s.TrustedProxies },
				"Addresses and networks that may connect when proxy_protocol is on, as in [\"10.0.0.7\", \"fd00::/8\"]. Others are closed:\n"+
					"they could claim any address. Not for type unix, where the rights of the socket say who may connect.").
				must(checkNetwork),
			setting("socket_mode", func(s *Server) any { return &s.SocketMode },
				"For type unix: the rights of the socket, as in \"0660\". Whoever may write to it may connect.").
				must(checkMode).orEmpty("what the umask leaves"),
			setting("socket_owner", func(s *Server) any { return &s.SocketOwner },
				"For type unix: the owner of the socket, as in \"user\", \"user:group\" or \":group\". Only root may give one away.").
				orEmpty("the broker's own"),
		},
		elements: func(c *Config) []any { return pointers(c.Servers) },
		add: func(c *Config, name string) any {
			return grow(&c.Servers, newServer(name))
		},
	},
	{
		name: "servers." + anyServer + ".tls",
		form: part,
		text: "For types tls and wss. The files are PEM. When one changes it is read anew, for the connections that come then;\n" +
			"those that are there stay. If it cannot be used, the broker says so and goes on with what it had.",
		keys: []key{
			setting("cert", func(s *Server) any { return &s.TLS.Cert },
				"The file of the server's certificate, followed by those between it and its root. Required for tls and wss."),
			setting("key", func(s *Server) any { return &s.TLS.Key },
				"The file of its private key. Required for tls and wss."),
			oneOf(setting("client_auth", func(s *Server) any { return &s.TLS.ClientAuth },
				"Whether clients show a certificate: none does not ask for one, request takes one that is good but also none,\n"+
					"require refuses who has none."), ClientAuthNone, ClientAuthRequest, ClientAuthRequire),
			setting("client_ca", func(s *Server) any { return &s.TLS.ClientCA },
				"The file of the authorities that clients' certificates must come from. Required for request and require."),
			setting("crl", func(s *Server) any { return &s.TLS.CRL },
				"The file of revocation lists of those authorities, PEM or one in DER. A client whose certificate, or one above\n"+
					"it, is listed is refused. A list past its date still counts, with a warning.").
				orEmpty("nothing is revoked"),
			oneOf(setting("min_version", func(s *Server) any { return &s.TLS.MinVersion },
				"The oldest version of TLS."), "1.2", "1.3"),
			oneOf(setting("identity", func(s *Server) any { return &s.TLS.Identity },
				"The part of a client's certificate that names it: the common name of its subject, or its first DNS name or\n"+
					"e-mail address. A certificate without that part is refused. The client is then this user, whatever user name it sends, and needs\n"+
					"no password."),
				IdentityCN, IdentitySANDNS, IdentitySANEmail).orEmpty("none"),
		},
		elements: func(c *Config) []any { return pointers(c.Servers) },
		fields:   func(s *Server) any { return &s.TLS },
		sample: &Server{Name: "secure", TLS: ServerTLS{
			Cert: "/etc/cairnmq/server.pem", Key: "/etc/cairnmq/server.key", ClientAuth: ClientAuthNone, MinVersion: "1.2",
		}},
	},
	{
		name: "servers." + anyServer + ".websocket",
		form: part,
		text: "For types ws and wss. Clients ask for the subprotocol mqtt (or mqttv3.1, which old ones use) and send binary frames.",
		keys: []key{
			setting("path", func(s *Server) any { return &s.WebSocket.Path },
				"The path of the URL. Clients that name none, as in ws://host:8083, are let in too.").needed().must(checkPath),
			setting("allowed_origins", func(s *Server) any { return &s.WebSocket.AllowedOrigins },
				"Web sites whose pages may connect from a browser: an origin such as \"https://app.example.com\", a host, a pattern\n"+
					"such as \"*.example.com\", or \"*\" for all. Pages from the broker's own host name, at any port, always may; so may\n"+
					"programs that are no browsers and name no origin.").must(checkOrigin),
			setting("compressed", func(s *Server) any { return &s.WebSocket.Compressed },
				"Connections at one time that get compression (permessage-deflate) if they ask for it; others go without.\n"+
					"Each can take 1.3 MB of memory while something is sent to it.").count(0, maxCount),
		},
		elements: func(c *Config) []any { return pointers(c.Servers) },
		fields:   func(s *Server) any { return &s.WebSocket },
		sample:   &Server{Name: "secure", WebSocket: WebSocket{Path: "/mqtt", Compressed: 16}},
	},
}

func component(name logging.Component, field func(*Components) *Level, text string) key {
	k := setting(string(name), func(s *Components) any { return field(s) }, text)
	return oneOf(k, levels...).orEmpty("log.level")
}

func pointers[T any](elements []T) []any {
	all := make([]any, len(elements))
	for i := range elements {
		all[i] = &elements[i]
	}
	return all
}

func grow[T any](elements *[]T, more T) any {
	*elements = append(*elements, more)
	return &(*elements)[len(*elements)-1]
}

// sectionNamed looks for a section that is not a part of another.
func sectionNamed(name string) *section {
	for i := range sections {
		if sections[i].name == name && sections[i].form != part {
			return &sections[i]
		}
	}
	return nil
}

// partNamed looks for a part of a server's section; s may be nil, or any other section, which have none.
func (s *section) partNamed(name string) *section {
	if s == nil || s.form != named {
		return nil
	}
	for i := range sections {
		if sections[i].form == part && sections[i].partName() == name {
			return &sections[i]
		}
	}
	return nil
}

// partName is the last step of a part's name: "tls".
func (s *section) partName() string { return s.name[strings.LastIndexByte(s.name, '.')+1:] }

func (s *section) keyNamed(name string) *key {
	for i := range s.keys {
		if s.keys[i].name == name {
			return &s.keys[i]
		}
	}
	return nil
}

// elementName is the full name of the section's i-th element: "log", "retention[0]", "servers.main".
func (s *section) elementName(i int, element any) string {
	switch s.form {
	case list:
		return fmt.Sprintf("%s[%d]", s.name, i)
	case named:
		return s.name + "." + element.(*Server).Name
	case part:
		return "servers." + element.(*Server).Name + "." + s.partName()
	}
	return s.name
}

// title is how the section is written in text for people: "[log]", "[[retention]]", "[servers.NAME]",
// "[servers.NAME.tls]".
func (s *section) title() string {
	switch s.form {
	case list:
		return "[[" + s.name + "]]"
	case named:
		return "[" + s.name + "." + anyServer + "]"
	}
	return "[" + s.name + "]"
}

// allowed says in words which values the key takes; empty if any of its type.
func (k *key) allowed() string {
	var parts []string
	if k.unit != nil {
		words := fmt.Sprintf("%v to %v", k.unit(k.min), k.unit(k.max))
		if k.multiple > 1 {
			words += fmt.Sprintf(", a multiple of %d", k.multiple)
		}
		if k.wholeSecs {
			words += ", in whole seconds"
		}
		parts = append(parts, words)
	}
	if k.zero != "" {
		parts = append(parts, "0 = "+k.zero)
	}
	var choices []string
	for _, choice := range k.choices {
		if choice != "" {
			choices = append(choices, strconv.Quote(choice))
		}
	}
	if len(choices) > 0 {
		parts = append(parts, strings.Join(choices, ", "))
	}
	if k.empty != "" {
		parts = append(parts, `"" = `+k.empty)
	}
	return strings.Join(parts, "; ")
}

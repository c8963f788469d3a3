package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// faults are files and all that Parse says of them.
var faults = map[string]string{
	// Everything at once, in the order of the file.
	`storge = 1
[log]
levle = "info"
level = "loud"
dir = "/x"
[log.components]
brokr = "debug"
[storage]
segment_size = 100000
mapped_segments = "4"
max_age = 7
[[durability.rules]]
filter = "a/#/b"
class = "allways"
[[durability.rules]]
class = "os"
[servers.main]
listen = "nowhere"
[servers.other]
type = "tls"
`: `c.toml:1:1: storge: unknown key; did you mean storage?
c.toml:3:1: log.levle: unknown key; did you mean level?
c.toml:4:1: log.level: unknown value "loud" ("debug", "info", "warn", "error")
c.toml:5:1: log.dir: unknown key; dir is a key of [storage]
c.toml:7:1: log.components.brokr: unknown key; did you mean broker?
c.toml:9:1: storage.segment_size: 100KB is not a multiple of 4096
c.toml:10:1: storage.mapped_segments: expects a whole number, not a string
c.toml:11:1: storage.max_age: 7 needs a unit; write for example "7s"
c.toml:13:1: durability.rules[0].filter: "a/#/b" is not a topic filter: # must be the last level
c.toml:14:1: durability.rules[0].class: unknown value "allways" ("always", "interval", "os"); did you mean always?
c.toml:15:14: durability.rules[1].filter: is missing
c.toml:18:1: servers.main.listen: "nowhere" is not host:port; write for example "127.0.0.1:1883"
c.toml:19:10: servers.other.tls.cert: is missing: a server of type tls or wss needs a certificate`,

	"[storge]\ndir = \"x\"\n[Log]\n": "c.toml:1:2: storge: unknown table; did you mean storage?\n" +
		"c.toml:3:2: Log: unknown table; did you mean log?",
	"[log.component]\nbroker = \"info\"\n": "c.toml:1:6: log.component: unknown table; did you mean components?",
	"[zebra.stripes]\n":                    "c.toml:1:2: zebra: unknown table",
	"log = 5\n":                            "c.toml:1:1: log: is a table: write [log]",
	"[[log]]\n":                            "c.toml:1:3: log: is a table: write [log]",
	"[retention]\nfilter = \"a\"\n":        "c.toml:1:2: retention: is a list of tables: write [[retention]]",
	"retention = [1, {filter = \"a\"}]\n":  "c.toml:1:1: retention[0]: expects a table, not a whole number",
	"[servers]\nlisten = \":1\"\n":         "c.toml:2:1: servers.listen: is not a server: a server has a name, as in [servers.main]",
	"[log]\nlevel = {}\n":                  "c.toml:2:1: log.level: expects a string, not a table",
	"[storage]\ndir = 2026-01-01\n":        "c.toml:2:1: storage.dir: expects a string, not a date or time",
	"[storage]\ndir = \"\"\n":              "c.toml:2:1: storage.dir: is missing",
	"[storage]\ndir = \"a\\u0000b\"\n":     "c.toml:2:1: storage.dir: contains a zero byte",
	"[storage]\nmax_bytes = 1.5\n":         `c.toml:2:1: storage.max_bytes: expects a size such as "64MiB", not a number with a fraction`,
	"[storage]\nmax_bytes = \"64M\"\n": `c.toml:2:1: storage.max_bytes: "64M" is not a size; ` +
		`write for example "64MiB", "1.5GB" or a number of bytes`,
	"[storage]\nmax_bytes = \"128MiB\"\n": "c.toml:2:1: storage.max_bytes: 128MiB is less than four segments; storage.segment_size is 64MiB",
	"[storage]\nsegment_size = \"2GiB\"\n": "c.toml:2:1: storage.segment_size: 2GiB is out of range " +
		"(64KiB to 1GiB, a multiple of 4096)",
	"[storage]\nsegment_size = \"1MiB\"\nmax_bytes = \"48MiB\"\n":       "c.toml: limits.max_packet_size: 16MiB is more than a quarter of storage.max_bytes, which is 48MiB (line 3)",
	"[limits]\nmax_packet_size = \"2MiB\"\nreceive_memory = \"1MiB\"\n": "c.toml:2:1: limits.max_packet_size: 2MiB is more than limits.receive_memory, which is 1MiB (line 3)",
	"[storage]\nmax_bytes = \"1GiB\"\n[servers.a]\nmax_packet_size = 268435460\n": "c.toml:4:1: servers.a.max_packet_size: 268435460 is more than a quarter " +
		"of storage.max_bytes, which is 1GiB (line 2)",
	"[sessions]\nmax_expiry = \"1500ms\"\nmax_inflight = 0\nmax_client_id = 65536\n": "c.toml:2:1: sessions.max_expiry: 1.5s is not a whole number of seconds\n" +
		"c.toml:3:1: sessions.max_inflight: 0 is out of range (1 to 65535)\n" +
		"c.toml:4:1: sessions.max_client_id: 65536 is out of range (23 to 65535)",
	"[sessions]\nqueue_qos0 = \"yes\"\n": "c.toml:2:1: sessions.queue_qos0: expects true or false, not a string",

	// Filters.
	"[[retention]]\nfilter = \"a+\"\n[[retention]]\nfilter = \"a#\"\n[[retention]]\nfilter = \"$share/g/a\"\n": `c.toml:2:1: retention[0].filter: "a+" is not a topic filter: + must be a level by itself
c.toml:4:1: retention[1].filter: "a#" is not a topic filter: # must be a level by itself
c.toml:6:1: retention[2].filter: takes the filter itself, without $share and the group`,
	"[[shared.rules]]\ngroup = \"a/b\"\nstrategy = \"sticky\"\n[[shared.rules]]\nfilter = \"$share/g/a\"\nstrategy = \"stick\"\n": `c.toml:2:1: shared.rules[0].group: "a/b" is not the name of a group: it has no /, + or #
c.toml:5:1: shared.rules[1].filter: takes the filter itself, without $share and the group
c.toml:6:1: shared.rules[1].strategy: unknown value "stick" ("round-robin", "random", "sticky", "hash-client", "hash-topic", "least-inflight"); did you mean sticky?`,
	"[[retention]]\nfilter = \"a\"\n[[retention]]\nfilter = \"b\"\n[[retention]]\nfilter = \"a\"\n": `c.toml:6:1: retention[2].filter: "a" has a rule already (line 2)`,
	"[durability]\nrules = [{filter=\"a\", class=\"os\"}, {filter=\"a\", class=\"os\"}]\n":          `c.toml:2:37: durability.rules[1].filter: "a" has a rule already (line 2)`,

	// Servers.
	"[servers.a]\nlisten = \"0.0.0.0:1883\"\n[servers.b]\n":                          "c.toml:3:10: servers.b.listen: 127.0.0.1:1883 is taken by servers.a (line 1)",
	"[servers.a]\nlisten = \":1883\"\n[servers.b]\nlisten = \"localhost:1883\"\n":    "c.toml:4:1: servers.b.listen: localhost:1883 is taken by servers.a (line 1)",
	"[servers.a]\nlisten = \"[::1]:1\"\n[servers.b]\nlisten = \"[0:0::1]:1\"\n":      "c.toml:4:1: servers.b.listen: [0:0::1]:1 is taken by servers.a (line 1)",
	"[servers.a]\nlisten = \"1.2.3.4:70000\"\n":                                      `c.toml:2:1: servers.a.listen: "70000" is not a port (0 to 65535)`,
	"[servers.a]\ntype = \"unix\"\n":                                                 `c.toml:1:10: servers.a.listen: "127.0.0.1:1883" is not the path of a socket; write for example "/run/cairnmq/mqtt.sock"`,
	"[servers.A]\n":                                                                  "c.toml:1:10: servers.A: a server's name consists of lower case letters, digits, - and _",
	"[servers.a-b]\nlisten = \":1\"\n[servers.a_b]\nlisten = \":2\"\n":               "c.toml:3:10: servers.a_b: differs from servers.a-b (line 1) only in ways that the names of variables do not show",
	"[servers.a]\nmax_connections = 20000\n":                                         "c.toml:2:1: servers.a.max_connections: 20000 is more than limits.max_connections, 10000, which holds for all servers together",
	"[servers.main]\nlisten = \":1\"\n[servers.main]\nlisten = \":2\"\n[log]\nx=1\n": "c.toml:3:10: main: is given twice; the first is on line 1\nc.toml:6:1: log.x: unknown key",

	"[servers.a]\ntyp = \"tcp\"\n[servers.a.tlss]\ncert = \"x\"\n": "c.toml:2:1: servers.a.typ: unknown key; did you mean type?\n" +
		"c.toml:3:12: servers.a.tlss: unknown table; did you mean tls?",
	"[servers.a]\ntls = \"x\"\n":                                                `c.toml:2:1: servers.a.tls: is a table: write [servers.a.tls]`,
	"[servers.NAME.tls]\ncert = \"x\"\n":                                        "c.toml:1:10: servers.NAME: a server's name consists of lower case letters, digits, - and _\nc.toml:2:1: servers.NAME.tls.cert: has no effect on a server of type tcp",
	"[servers.a]\ntype = \"ws\"\n[servers.a.tls]\ncert = \"x\"\nkeyy = \"y\"\n": "c.toml:4:1: servers.a.tls.cert: has no effect on a server of type ws (line 2)\nc.toml:5:1: servers.a.tls.keyy: unknown key; did you mean key?",
	"[servers.a]\nwebsocket.path = \"/x\"\nsocket_mode = \"0660\"\n": "c.toml:2:11: servers.a.websocket.path: has no effect on a server of type tcp\n" +
		"c.toml:3:1: servers.a.socket_mode: has no effect on a server of type tcp",
	"[servers.a]\ntype = \"tls\"\n[servers.a.tls]\ncert = \"x\"\ncrl = \"y\"\nidentity = \"cn\"\n": "c.toml:3:12: servers.a.tls.key: is missing: the private key of the certificate\n" +
		"c.toml:5:1: servers.a.tls.crl: has no effect without client_auth\n" +
		"c.toml:6:1: servers.a.tls.identity: has no effect without client_auth",
	"[servers.a]\ntype = \"tls\"\ntls = {cert = \"x\", key = \"y\", client_auth = \"require\", min_version = \"1.1\"}\n": "c.toml:3:1: servers.a.tls.client_ca: is missing: client_auth = \"require\" needs the authorities to trust\n" +
		`c.toml:3:56: servers.a.tls.min_version: unknown value "1.1" ("1.2", "1.3"); did you mean 1.2?`,
	"[servers.a]\nproxy_protocol = true\n":                                     "c.toml:2:1: servers.a.proxy_protocol: needs trusted_proxies, the addresses of the proxies: anybody else could claim to be anybody",
	"[redirect]\nshutdown = true\n":                                            "c.toml:2:1: redirect.shutdown: needs redirect.server: clients would not know where to go",
	"[redirect]\nconnect = \"moved\"\n":                                        `c.toml:2:1: redirect.connect: unknown value "moved" ("use-another-server", "server-moved"; "" = nobody is refused)`,
	"[sessions]\nresponse_information = \"a/#\"\n":                             `c.toml:2:1: sessions.response_information: "a/#" cannot begin a topic: it has a wildcard, begins with $ or is longer than 1024 bytes`,
	"[auth]\nanonymous = \"refuse\"\n":                                         "c.toml:2:1: auth.anonymous: refuses everybody who comes to servers.main: there is no auth.password_file, and no certificate names a client",
	"[servers.a]\nanonymous = \"refuse\"\n":                                    "c.toml:2:1: servers.a.anonymous: refuses everybody who comes to servers.a: there is no auth.password_file, and no certificate names a client",
	"[servers.a]\ntrusted_proxies = [\"10.0.0.1\"]\n":                          "c.toml:2:1: servers.a.trusted_proxies: has no effect without proxy_protocol",
	"[servers.a]\nproxy_protocol = true\ntrusted_proxies = [\"10.0.0.1/8\"]\n": `c.toml:3:1: servers.a.trusted_proxies: "10.0.0.1/8" has bits beyond its length; the network is 10.0.0.0/8`,
	"[servers.a]\nproxy_protocol = true\ntrusted_proxies = [\"lb\"]\n":         `c.toml:3:1: servers.a.trusted_proxies: "lb" is not an address or a network; write for example "10.0.0.7" or "10.0.0.0/8"`,
	"[servers.a]\ntrusted_proxies = \"10.0.0.1\"\n":                            "c.toml:2:1: servers.a.trusted_proxies: expects a list of strings, not a string",
	"[servers.a]\ntrusted_proxies = [1]\n":                                     "c.toml:2:1: servers.a.trusted_proxies: expects a list of strings, with a whole number among them",
	"[servers.a]\nlisten = [\":1\"]\n":                                         "c.toml:2:1: servers.a.listen: expects a string, not a list",
	"[servers.a]\nconnection_burst = 5\n":                                      "c.toml:2:1: servers.a.connection_burst: has no effect without connection_rate",
	"[servers.a]\ntype = \"ws\"\nwebsocket = {path = \"mqtt\", allowed_origins = [\"https://a/b\"]}\n": `c.toml:3:14: servers.a.websocket.path: "mqtt" is not the path of a URL; write for example "/mqtt"
c.toml:3:29: servers.a.websocket.allowed_origins: "https://a/b" is not an origin; write for example "https://app.example.com", without a path`,
	"[servers.a]\ntype = \"unix\"\nlisten = \"/x\"\nsocket_mode = \"rw\"\n":                `c.toml:4:1: servers.a.socket_mode: "rw" is not a mode; write for example "0660"`,
	"[servers.a]\ntype = \"ws\"\nlisten = \":1\"\n[servers.b]\nlisten = \"localhost:1\"\n": "c.toml:5:1: servers.b.listen: localhost:1 is taken by servers.a (line 1)",

	// TOML itself.
	"[log]\nlevel = \"info\"\nlevel = \"warn\"\nformat = 1\n": "c.toml:3:1: level: is given twice; the first is on line 2\n" +
		"c.toml:4:1: log.format: expects a string, not a whole number",
	"[log]\nlevel = \"info\nx = 1": "c.toml:2:14: toml: basic strings cannot have new lines",
	"\xef\xbb\xbf[log]\nx = 1\n":   "c.toml:2:1: log.x: unknown key",
	"[log]\r\nx = 1\r\n":           "c.toml:2:1: log.x: unknown key",
}

func TestProblems(t *testing.T) {
	for file, want := range faults {
		_, err := Parse("c.toml", []byte(file), nil)
		if err == nil {
			t.Errorf("accepted:\n%s", file)
		} else if err.Error() != want {
			t.Errorf("%s\ngot:\n%v\nwant:\n%s", file, err, want)
		}
	}
}

func TestServersThatDoNotCollide(t *testing.T) {
	for _, pair := range [][2]string{
		{"127.0.0.1:1", "127.0.0.1:2"}, {"127.0.0.1:1", "127.0.0.2:1"}, {"0.0.0.0:1", "[::1]:1"}, {"127.0.0.1:0", "127.0.0.1:0"},
		{"a:1", "b:1"},
	} {
		c := Default()
		c.Servers = []Server{server("a", pair[0]), server("b", pair[1])}
		if err := c.Validate(); err != nil {
			t.Errorf("%q: %v", pair, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	c, err := Parse("c.toml", []byte("[servers.lan-1]\nlisten = \":1\"\n[storage]\ndir = \"/file\"\n"), []string{
		"CAIRNMQ_STORAGE_DIR=/env",
		"CAIRNMQ_STORAGE_MAX_BYTES=8GiB",
		"CAIRNMQ_STORAGE_MAX_AGE=", // empty: not set
		"CAIRNMQ_LOG_COMPONENTS_BROKER=debug",
		"CAIRNMQ_SESSIONS_QUEUE_QOS0=false",
		"CAIRNMQ_SESSIONS_OUTBOX=100",
		"CAIRNMQ_SERVERS_LAN_1_MAX_CONNECTIONS=5",
		"CAIRNMQ_SERVERS_WAN_LISTEN=1.2.3.4:2",
		"CAIRNMQ_SERVERS_WAN_TYPE=tls",
		"CAIRNMQ_SERVERS_WAN_TLS_CERT=c",
		"CAIRNMQ_SERVERS_WAN_TLS_KEY=k",
		"CAIRNMQ_SERVERS_WAN_PROXY_PROTOCOL=true",
		"CAIRNMQ_SERVERS_WAN_TRUSTED_PROXIES=10.0.0.1, 10.1.0.0/16",
		"CAIRNMQ_CONFIG=c.toml",
		"CAIRNMQ_SERVICE_HOST=10.0.0.1",
		"CAIRNMQ_PORT_1883_TCP=tcp://10.0.0.1:1883",
		"cairnmq_nothing=1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Storage.Dir != "/env" || c.Storage.MaxBytes != 8*GiB || c.Storage.MaxAge != 0 || c.Log.Components.Broker != "debug" ||
		c.Sessions.QueueQoS0 || c.Sessions.Outbox != 100 {
		t.Errorf("got %+v", c)
	}
	want := []Server{
		server("lan-1", ":1", func(s *Server) { s.MaxConnections = 5 }),
		server("wan", "1.2.3.4:2", func(s *Server) {
			s.Type, s.TLS.Cert, s.TLS.Key = TLS, "c", "k"
			s.ProxyProtocol, s.TrustedProxies = true, []string{"10.0.0.1", "10.1.0.0/16"}
		}),
	}
	if !reflect.DeepEqual(c.Servers, want) {
		t.Errorf("servers: %+v", c.Servers)
	}
}

func TestProblemsOfTheEnvironment(t *testing.T) {
	_, err := Parse("c.toml", []byte("[log]\nx = 1\n"), []string{
		"CAIRNMQ_STORAGE_DIRR=/env",
		"CAIRNMQ_SERVERS_MAIN_LISTN=:1",
		"CAIRNMQ_SERVERS_MAIN_LISTEN=here",
		"CAIRNMQ_STORAGE_SEGMENT_SIZE=100000",
		"CAIRNMQ_SESSIONS_OUTBOX=many",
		"CAIRNMQ_SESSIONS_QUEUE_QOS0=yes",
		"CAIRNMQ_RETENTION_FILTER=a",
		"CAIRNMQ_XYZZY=1",
	})
	const want = `c.toml:2:1: log.x: unknown key
environment: CAIRNMQ_RETENTION_FILTER: [[retention]] can be set in the file only
environment: CAIRNMQ_SERVERS_MAIN_LISTN: unknown variable; did you mean CAIRNMQ_SERVERS_MAIN_LISTEN?
environment: CAIRNMQ_SESSIONS_OUTBOX: expects a whole number, not "many"
environment: CAIRNMQ_SESSIONS_QUEUE_QOS0: expects true or false, not "yes"
environment: CAIRNMQ_STORAGE_DIRR: unknown variable; did you mean CAIRNMQ_STORAGE_DIR?
environment: CAIRNMQ_XYZZY: unknown variable
environment: CAIRNMQ_STORAGE_SEGMENT_SIZE: 100KB is not a multiple of 4096
environment: CAIRNMQ_SERVERS_MAIN_LISTEN: "here" is not host:port; write for example "127.0.0.1:1883"`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestLoadOfAMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.toml")
	if _, err := Load(path, nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if _, err := Load("", nil); err != nil {
		t.Errorf("no file: %v", err)
	}
}

// Load looks at the files that the configuration names; Parse does not.
func TestFilesOfAServer(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.toml")
	text := "[servers.a]\nlisten = \":1\"\ntype = \"tls\"\n[servers.a.tls]\ncert = \"" + dir + "/none.pem\"\nkey = \"" + path + "\"\n" +
		"[servers.b]\ntype = \"unix\"\nlisten = \"/x\"\nsocket_owner = \":no-such-group\"\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	const want = ":5:1: servers.a.tls.cert: stat %s/none.pem: no such file or directory\n%[2]s:10:1: servers.b.socket_owner: "
	if _, err := Load(path, nil); err == nil || !strings.HasPrefix(err.Error(), path+fmt.Sprintf(want, dir, path)) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "none.pem"), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "none.pem: no PEM certificate is in the file") {
		t.Errorf("got %v", err)
	}
	if _, err := Parse(path, []byte(text), nil); err != nil {
		t.Error(err)
	}
}

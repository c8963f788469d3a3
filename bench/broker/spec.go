//go:build linux

package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Spec is a broker by name and the command that starts it.
type Spec struct {
	Name string
	// Args may contain {dir} and {port}, and {cairnmq.toml}, {mosquitto.conf},
	// {mosquitto-stored.conf}, {nats.conf}, {nats-always.conf} or {rumqttd.toml}, which stand for
	// the path of a configuration written into the directory.
	Args []string
	// KeepAlive is what clients must ask for, in seconds: some brokers refuse
	// those without.
	KeepAlive uint16
}

// Configurations that can be asked for by placeholder. Limits on queued and
// in-flight messages are as high as they go: by default most of these brokers
// drop. Those with "stored" in the name keep what they can on disk.
var configs = map[string]string{
	"mosquitto.conf":        mosquittoConf + "persistence false\n",
	"mosquitto-stored.conf": mosquittoConf + "persistence true\npersistence_location {dir}/\n",
	"cairnmq.toml": `[storage]
dir = "{dir}/data"
max_bytes = "16GiB"

[limits]
max_connections = 100000

[servers.main]
listen = "127.0.0.1:{port}"
`,
	"nats.conf":        natsConf + "jetstream { store_dir: \"{dir}/jetstream\" }\n",
	"nats-always.conf": natsConf + "jetstream { store_dir: \"{dir}/jetstream\", sync_interval: always }\n",
	"rumqttd.toml": `id = 0

[router]
id = 0
max_connections = 60000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 100

[v4.1]
name = "v4"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 0
    [v4.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 4194304
    max_inflight_count = 65535
    dynamic_filters = true
`,
}

const natsConf = `server_name: bench
listen: "127.0.0.1:-1"
max_payload: 8388608
mqtt { listen: "127.0.0.1:{port}", max_ack_pending: 20000 }
`

const mosquittoConf = `listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 0
max_inflight_messages 65535
set_tcp_nodelay true
log_type error
`

// maxKeepAlive is longer than any run.
const maxKeepAlive = 65535

// ParseSpec reads "name=command". A command that is only a path to a program
// known here ("mosquitto", "name=/path/to/cairnmq") is completed. A path that
// is not absolute begins at the working directory.
func ParseSpec(s string) (Spec, error) {
	name, command, found := strings.Cut(s, "=")
	if !found {
		command = name
		name = filepath.Base(name)
	}
	args, err := split(command)
	if err != nil {
		return Spec{}, fmt.Errorf("broker %q: %w", s, err)
	}
	spec := Spec{Name: name}
	if name == "" || len(args) == 0 {
		return Spec{}, fmt.Errorf("broker %q: want name=command", s)
	}
	// The broker is started in another directory.
	if strings.Contains(args[0], "/") {
		if args[0], err = filepath.Abs(args[0]); err != nil {
			return Spec{}, fmt.Errorf("broker %q: %w", s, err)
		}
	}
	if filepath.Base(args[0]) == "rumqttd" {
		spec.KeepAlive = maxKeepAlive
	}
	if len(args) == 1 {
		switch filepath.Base(args[0]) {
		case "mosquitto":
			args = append(args, "-c", "{mosquitto.conf}")
		case "cairnmq":
			args = append(args, "serve", "-c", "{cairnmq.toml}")
		case "nats-server":
			args = append(args, "-c", "{nats.conf}")
		case "rumqttd":
			args = append(args, "-q", "-c", "{rumqttd.toml}")
		case "mochi", "floor":
			args = append(args, "-listen", "127.0.0.1:{port}")
		}
	}
	spec.Args = args
	return spec, nil
}

// split divides a command at spaces; single and double quotes keep spaces.
func split(command string) ([]string, error) {
	var args []string
	var word strings.Builder
	var quote rune
	inWord := false
	for _, r := range command {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				args = append(args, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		args = append(args, word.String())
	}
	return args, nil
}

// command fills the placeholders in and writes the configurations named.
func (s Spec) command(dir string, port int) ([]string, error) {
	fill := strings.NewReplacer("{dir}", dir, "{port}", strconv.Itoa(port))
	args := make([]string, len(s.Args))
	for i, arg := range s.Args {
		for name, text := range configs {
			if !strings.Contains(arg, "{"+name+"}") {
				continue
			}
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(fill.Replace(text)), 0o644); err != nil {
				return nil, err
			}
			arg = strings.ReplaceAll(arg, "{"+name+"}", path)
		}
		args[i] = fill.Replace(arg)
	}
	return args, nil
}

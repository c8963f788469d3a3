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
	// Args may contain {dir} and {port}, and {mosquitto.conf} or
	// {cairnmq.toml}, which stand for the path of a configuration written
	// into the directory.
	Args []string
}

// Configurations that can be asked for by placeholder. Mosquitto's limits on
// queued and in-flight messages are lifted: by default it drops.
var configs = map[string]string{
	"mosquitto.conf": `listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 0
max_inflight_messages 0
set_tcp_nodelay true
persistence false
log_type error
`,
	"cairnmq.toml": `[storage]
dir = "{dir}/data"
max_bytes = "16GiB"

[servers.main]
listen = "127.0.0.1:{port}"
`,
}

// ParseSpec reads "name=command". The names "mosquitto" and "cairnmq" alone,
// or "name=/path/to/cairnmq", are completed to whole commands.
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
	if name == "" || len(args) == 0 {
		return Spec{}, fmt.Errorf("broker %q: want name=command", s)
	}
	if len(args) == 1 {
		switch filepath.Base(args[0]) {
		case "mosquitto":
			args = append(args, "-c", "{mosquitto.conf}")
		case "cairnmq":
			args = append(args, "serve", "-c", "{cairnmq.toml}")
		}
	}
	return Spec{Name: name, Args: args}, nil
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

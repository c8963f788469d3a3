//go:build linux

package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"cairnmq/bench/broker"
)

// player is a broker that takes part.
type player struct {
	name  string
	color string // the same in every chart
	// live is how it runs where nothing needs to be kept, and stored where
	// messages and sessions are to survive what they can.
	live, stored broker.Spec
	version      string
	ours         bool
}

// Names of the players, in the order of columns.
const (
	interval    = "CairnMQ"
	always      = "CairnMQ always"
	classOS     = "CairnMQ os"
	mosquitto   = "Mosquitto"
	mochi       = "mochi"
	nats        = "NATS"
	natsAlways  = "NATS always"
	rumqttd     = "rumqttd"
	floor       = "floor"
	floorAndLog = "floor + log"
)

// allPlayers returns those whose programs are there, and says which are not.
func (l *lab) allPlayers() ([]*player, error) {
	peers := filepath.Join(l.bin, "peers")
	cairn, natsServer := filepath.Join(l.bin, "cairnmq"), filepath.Join(peers, "nats-server")
	mochiServer, floorProgram := filepath.Join(peers, "mochi"), filepath.Join(l.bin, "floor")
	const (
		plain     = "{program}"
		withClass = "/usr/bin/env CAIRNMQ_DURABILITY_DEFAULT=%s {program} serve -c {cairnmq.toml}"
	)
	inAlways, inOS := fmt.Sprintf(withClass, "always"), fmt.Sprintf(withClass, "os")
	var found []*player
	for _, p := range []struct{ name, color, program, live, stored, version string }{
		{interval, "#1f77d0", cairn, plain, plain, "version"},
		{always, "#7fb3ea", cairn, inAlways, inAlways, "version"},
		{classOS, "#0b4f9e", cairn, inOS, inOS, "version"},
		{mosquitto, "#d9822b", "mosquitto", plain, "{program} -c {mosquitto-stored.conf}", "-h"},
		{mochi, "#2a9d6f", mochiServer, plain, "{program} -listen 127.0.0.1:{port} -store {dir}/pebble", "github.com/mochi-mqtt/server/v2"},
		{nats, "#c0489a", natsServer, plain, plain, "--version"},
		{natsAlways, "#e39bc9", natsServer, "{program} -c {nats-always.conf}", "{program} -c {nats-always.conf}", "--version"},
		{rumqttd, "#c0392b", filepath.Join(peers, "rumqttd"), plain, plain, "--version"},
		{floor, "#adb5bd", floorProgram, plain, plain, ""},
		{floorAndLog, "#768390", floorProgram, "{program} -listen 127.0.0.1:{port} -log {dir}/log", plain, ""},
	} {
		if !l.players.MatchString(p.name) {
			continue
		}
		program, err := find(p.program)
		if err != nil {
			fmt.Fprintf(l.progress, "%s is left out: %v\n", p.name, err)
			continue
		}
		made := &player{name: p.name, color: p.color, ours: strings.HasPrefix(p.name, interval)}
		fill := func(command string) string { return p.name + "=" + strings.ReplaceAll(command, "{program}", program) }
		if made.live, err = broker.ParseSpec(fill(p.live)); err != nil {
			return nil, err
		}
		if made.stored, err = broker.ParseSpec(fill(p.stored)); err != nil {
			return nil, err
		}
		made.version = versionOf(program, p.version)
		found = append(found, made)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no broker is left; build them with make bench-build")
	}
	return found, nil
}

// find looks for a program, for those without a path where daemons are, too.
func find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return abs(path), nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if path := filepath.Join(dir, program); !strings.Contains(program, "/") && isProgram(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no program %s", program)
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func abs(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}

var number = regexp.MustCompile(`v?\d+\.\d+(\.\d+)?\S*`)

// versionOf asks a program for its version: with a flag, or in what Go wrote
// into it if ask names a module.
func versionOf(program, ask string) string {
	if ask == "" {
		return ""
	}
	if strings.Contains(ask, "/") {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return "?"
		}
		for _, m := range info.Deps {
			if m.Path == ask {
				return m.Version
			}
		}
		return "?"
	}
	// Some print their version with a status that says failure.
	out, _ := exec.Command(program, ask).CombinedOutput()
	first, _, _ := strings.Cut(string(out), "\n")
	if v := number.FindString(first); v != "" {
		return v
	}
	return strings.TrimPrefix(first, "cairnmq ")
}

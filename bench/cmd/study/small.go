//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cairnmq/bench/load"
)

// smallProfile is a small device: one core, little memory, small segments.
const smallProfile = "taskset -c 0 /usr/bin/env GOMEMLIMIT=64MiB CAIRNMQ_STORAGE_SEGMENT_SIZE=8MiB CAIRNMQ_STORAGE_MAX_BYTES=1GiB {program} serve -c {cairnmq.toml}"

// small measures that profile, the size of the program, and how many bytes go
// to the disk for one of payload.
func (l *lab) small() error {
	p, err := l.cairn(interval, smallProfile)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, part := range []struct {
		name string
		text func(*player) (string, error)
	}{{"figures", l.smallFigures}, {"amplification", l.amplification}, {"program", l.programSize}} {
		if !l.only.MatchString(part.name) {
			continue
		}
		text, err := part.text(p)
		if err != nil {
			return err
		}
		b.WriteString(text)
	}
	head := fmt.Sprintf("%s; CairnMQ %s. %s\n\n", l.conditions(), p.version, roundWords(l.rounds, l.others))
	return l.publish("small", head+b.String())
}

func (l *lab) smallFigures(p *player) (string, error) {
	var t table
	t.head("scenario", "messages a second", "CPU µs per message", "p50 · p99 ms", "anonymous MiB", "file MiB")
	scenarios := append(l.basics(), l.scenario("pairs10", rate(1000)), l.scenario("offline1000"), l.scenario("kill50000"), l.scenario("idle1000"))
	for _, s := range scenarios {
		phases, order, err := l.phasesOf(s, p, true)
		if err != nil {
			return "", err
		}
		for _, name := range order {
			f := phases[name]
			speed, cpu, delay := large(f.Rate), figure(f.CPU), "–"
			if f.P50 > 0 {
				delay = figure(f.P50) + " · " + figure(f.P99)
			}
			switch name {
			case load.Restarted:
				speed, cpu, delay = "–", "–", figure(f.Seconds*1000)+" to CONNACK"
			case "idle":
				speed, cpu = "–", figure(f.BusyMs)+" ms/s"
			}
			t.row(s.String()+": "+name, speed, cpu, delay, mib(float64(f.RSSAnon)), mib(float64(f.RSSFile)))
		}
	}
	return "### Figures of the profile\n\n`taskset -c 0`, GOMEMLIMIT 64 MiB, segments of 8 MiB, 1 GiB for everything; the load generator has the other core.\n\n" + t.b.String() + "\n", nil
}

// amplification is bytes written to disk for each byte of payload.
func (l *lab) amplification(*player) (string, error) {
	var t table
	names := []string{"always", "interval", "os"}
	t.head(slices.Concat([]string{"messages a second, 256 bytes"}, names)...)
	for _, perSecond := range []float64{1, 100, 10_000} {
		cells := []string{plainNumber(perSecond)}
		for _, class := range names {
			p, err := l.cairn(class, strings.Replace(smallProfile, "/usr/bin/env", "/usr/bin/env CAIRNMQ_DURABILITY_DEFAULT="+class, 1))
			if err != nil {
				return "", err
			}
			s := l.scenario("pair", rate(perSecond))
			// Long enough for some checkpoints, and for messages at 1 a second.
			s.Warm, s.Measure = 2*time.Second, max(30*time.Second, l.measure)
			if l.measure < time.Second {
				s.Warm, s.Measure = 200*time.Millisecond, 3*time.Second // only to see that it works
			}
			phases, _, err := l.phasesOf(s, p, true)
			if err != nil {
				return "", err
			}
			f := phases["pairs"]
			cells = append(cells, figure(float64(f.Written)/float64(max(f.Payload, 1))))
		}
		t.row(cells...)
	}
	return "### Bytes to disk per byte of payload\n\nThe same profile, one publisher and one subscriber, QoS 1. What the kernel counts for the process (`write_bytes`): log and\n" +
		"index, in pages of 4 KiB, so a message alone in its page costs the whole page.\n\n" + t.b.String() + "\n", nil
}

// programSize builds the program for the platforms of small devices.
func (l *lab) programSize(*player) (string, error) {
	dir, err := os.MkdirTemp(l.dir, "size-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	var t table
	t.head("platform", "MiB", "MiB without symbols (`-ldflags='-s -w'`)")
	for _, arch := range []string{"amd64", "arm64", "arm"} {
		cells := []string{"linux/" + arch}
		for _, flags := range []string{"", "-s -w"} {
			program := filepath.Join(dir, "cairnmq")
			build := exec.Command("go", "build", "-trimpath", "-ldflags", flags, "-o", program, "./cmd/cairnmq")
			build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOARM=7")
			if out, err := build.CombinedOutput(); err != nil {
				return "", fmt.Errorf("build for %s: %w\n%s", arch, err, out)
			}
			info, err := os.Stat(program)
			if err != nil {
				return "", err
			}
			cells = append(cells, mib(float64(info.Size())))
		}
		t.row(cells...)
	}
	return "### Size of the program\n\nStatic, without cgo.\n\n" + t.b.String() + "\n", nil
}

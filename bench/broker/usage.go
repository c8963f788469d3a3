//go:build linux

package broker

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a process has used up to one moment.
type Usage struct {
	CPU time.Duration // user and system, of all threads that ever ran
	// Resident memory in bytes: anonymous pages (heap, stacks), and pages of
	// mapped files, which the kernel may take back.
	RSSAnon, RSSFile int64
	// WriteBytes is what the process caused to be sent to the disk so far.
	// Pages dirtied through a mapping count when they are dirtied.
	WriteBytes int64
}

// ReadUsage reads the figures of process pid.
func ReadUsage(pid int) (Usage, error) {
	var u Usage
	var err error
	if u.CPU, err = CPUTime(pid); err != nil {
		return u, err
	}
	status, err := procFields(pid, "status")
	if err != nil {
		return u, err
	}
	u.RSSAnon = status["RssAnon"] << 10
	u.RSSFile = (status["RssFile"] + status["RssShmem"]) << 10
	io, err := procFields(pid, "io")
	if err != nil {
		return u, err
	}
	u.WriteBytes = io["write_bytes"]
	return u, nil
}

// CPUTime reads the CPU clock of process pid, whose number the kernel derives
// from the process number (clock_getcpuclockid). Unlike /proc/PID/stat it does
// not count in ticks, and unlike the sum over /proc/PID/task it keeps the
// threads that have ended.
func CPUTime(pid int) (time.Duration, error) {
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, fmt.Errorf("read CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// MachineCPU reads how much CPU time all processes together have used, which
// the kernel counts in ticks of 10 ms.
func MachineCPU() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	words := strings.Fields(line)
	// cpu user nice system idle iowait irq softirq steal ...
	if len(words) < 8 {
		return 0, fmt.Errorf("read /proc/stat: first line %q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// procFields reads a file of "Name: number unit" lines.
func procFields(pid int, file string) (map[string]int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return nil, err
	}
	fields := make(map[string]int64)
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		words := strings.Fields(rest)
		if len(words) == 0 {
			continue
		}
		if n, err := strconv.ParseInt(words[0], 10, 64); err == nil {
			fields[name] = n
		}
	}
	return fields, nil
}

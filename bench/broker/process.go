//go:build linux

package broker

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is a broker that was started and not yet waited for.
type Process struct {
	Name string
	Addr string
	// Started is the moment just before the program was executed.
	Started time.Time
	// KeepAlive is that of its Spec.
	KeepAlive uint16

	cmd    *exec.Cmd
	output string        // file with what it printed
	ended  chan struct{} // closed by the one goroutine that waits for it
}

// Start runs the broker with data directory dir, which may hold what an
// earlier process left, on the given port of 127.0.0.1.
func Start(s Spec, dir string, port int) (*Process, error) {
	args, err := s.command(dir, port)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	output := filepath.Join(dir, "output.txt")
	file, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	defer file.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Stdout = file
	cmd.Stderr = file
	p := &Process{
		Name:      s.Name,
		KeepAlive: s.KeepAlive,
		Addr:      fmt.Sprintf("127.0.0.1:%d", port),
		Started:   time.Now(),
		cmd:       cmd,
		output:    output,
		ended:     make(chan struct{}),
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	go func() { // ends with the process; Stop and Kill wait for it
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
		close(p.ended)
	}()
	return p, nil
}

// PID returns the process number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended reports whether the process is gone.
func (p *Process) Ended() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Kill ends the process with SIGKILL and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.ended
}

// Stop asks the process to end and returns how long that took. After the
// limit it is killed.
func (p *Process) Stop(limit time.Duration) (time.Duration, error) {
	begin := time.Now()
	if p.Ended() {
		return 0, fmt.Errorf("%s had ended by itself: %s\n%s", p.Name, p.cmd.ProcessState, p.Output())
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("stop %s: %w", p.Name, err)
	}
	select {
	case <-p.ended:
		return time.Since(begin), nil
	case <-time.After(limit):
		p.Kill()
		return time.Since(begin), fmt.Errorf("stop %s: still running after %v", p.Name, limit)
	}
}

// Output returns the last lines of what the process printed.
func (p *Process) Output() string {
	text, err := os.ReadFile(p.output)
	if err != nil {
		return err.Error()
	}
	const keep = 2000
	if len(text) > keep {
		text = text[len(text)-keep:]
	}
	return string(bytes.TrimSpace(text))
}

// FreePort returns a port of 127.0.0.1 that nobody listens on.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

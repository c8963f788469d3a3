package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Profiles are served where the configuration says, and nowhere else.
func TestProfiles(t *testing.T) {
	dir := t.TempDir()
	c := exec.CommandContext(t.Context(), binary, "serve", "--data", filepath.Join(dir, "data"), "--listen", filepath.Join(dir, "s"))
	c.Env = environment("CAIRNMQ_DEBUG_PPROF=127.0.0.1:0", "CAIRNMQ_LOG_FORMAT=text", "CAIRNMQ_LOG_LEVEL=info")
	errs, err := c.StderrPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Wait() }()
	defer func() { _, _ = io.Copy(io.Discard, errs) }()
	defer func() { _ = c.Process.Signal(os.Interrupt) }()
	url := ""
	var log strings.Builder
	for in := bufio.NewScanner(errs); url == "" && in.Scan(); {
		fmt.Fprintln(&log, in.Text())
		if _, after, ok := strings.Cut(in.Text(), "url="); ok {
			url = strings.Fields(after)[0]
		}
	}
	if url == "" {
		t.Fatalf("no line says where:\n%s", log.String())
	}
	answer, err := http.Get(url + "goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil || !strings.Contains(string(text), "cairnmq/storage") {
		t.Errorf("%s: %v, %.200s", url, err, text)
	}
}

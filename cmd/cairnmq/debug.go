package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"cairnmq/mqtt/logging"
)

// serveProfiles serves Go's profiles on addr, if that is not empty, until stop
// is called.
func serveProfiles(addr string, logs *logging.Root) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("debug.pprof: %w", err)
	}
	mux := http.NewServeMux() // not the default one, which any package may add to
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(ln) }() // its only end is stop
	logs.For(logging.Broker).Info("profiles", "url", "http://"+ln.Addr().String()+"/debug/pprof/")
	return func() { _ = server.Close() }, nil
}

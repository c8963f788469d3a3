// Mochi runs the broker library mochi-mqtt for a measurement: everybody may do
// everything, limits on queued messages as high as they go, and, if asked for,
// its storage in Pebble.
package main

import (
	"flag"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/hooks/storage/pebble"
	"github.com/mochi-mqtt/server/v2/listeners"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:1885", "address to listen on")
	store := flag.String("store", "", "directory for its storage in Pebble (default: none)")
	flag.Parse()
	if err := run(*listen, *store); err != nil {
		log.Fatal("mochi: ", err)
	}
}

func run(listen, store string) error {
	limits := mqtt.NewDefaultServerCapabilities()
	limits.MaximumInflight = 65535
	limits.ReceiveMaximum = 65535
	limits.MaximumClientWritesPending = 1 << 18
	server := mqtt.New(&mqtt.Options{
		Capabilities: limits,
		Logger:       slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err := server.AddHook(new(auth.AllowHook), nil); err != nil {
		return err
	}
	if store != "" {
		if err := server.AddHook(new(pebble.Hook), &pebble.Options{Path: store, Mode: pebble.NoSync}); err != nil {
			return err
		}
	}
	if err := server.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: listen})); err != nil {
		return err
	}
	if err := server.Serve(); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	return server.Close()
}

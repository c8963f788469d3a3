//go:build linux

// Floor is a bound and not a broker: the least that a Go program can do with
// the traffic of a measurement. It parses what comes, looks the topic up in a
// map, copies the message into a file and into the buffers of the subscribers,
// and acknowledges. It has one goroutine per connection.
//
//	floor -listen 127.0.0.1:1884 -log /tmp/floor.log
//
// It knows MQTT 3.1.1, QoS 0 and 1, filters without wildcards or with "/#" at
// the end, and nothing else: no sessions, no packet identifiers to wait for,
// no retained messages, no limits, no checks. What a broker costs above it is
// the price of being one.
package main

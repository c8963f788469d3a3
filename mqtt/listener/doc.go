// Package listener turns what connects to a server of the configuration into connections that are ready for MQTT:
// over TCP, TLS, WebSocket, secure WebSocket or a Unix socket, with or without a PROXY header before it all.
//
// # Promise
//
// Accept does nothing but accept. Everything that waits for a client, which is the PROXY header, the TLS handshake and
// the WebSocket request, happens in Guest.Ready, on the goroutine of that client and under whatever deadline the caller
// has set on Guest.Socket, so one that is slow or silent holds up nobody. Until Ready returns, a client takes up some
// kilobytes at most, whatever it sends.
//
// A plain connection comes out as it came in: a *net.TCPConn or *net.UnixConn, whose descriptor can be waited on
// without a buffer. A PROXY header is read to its last byte and not beyond.
//
// Certificates, authorities and revocation lists are read anew when their files change (certs.go). Connections that
// exist are not touched by that, and files that cannot be used change nothing but the log.
//
// # The way of a connection
//
//	listener.go   Accept: rate; Ready: the layers in their order
//	proxy.go      PROXY header, if configured: who the client really is
//	certs.go      TLS handshake: certificate, revocation, identity
//	upgrade.go    WebSocket request: path, origin, subprotocol, compression
//	frames.go     WebSocket frames as a stream of bytes
//
// There are no goroutines here, but for timers that close a socket.
package listener

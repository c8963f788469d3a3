// Package auth decides who a client is: passwords and their file, SCRAM-SHA-256, and how often somebody may guess.
//
// It promises:
//
//   - No password is kept. The file holds what passwords can be checked with (stored.go), and of a password that was
//     right memory keeps a sum under a key that dies with the process, so that a client that comes back costs nothing.
//   - Nobody learns from an answer, or from the time it takes, whether a user exists.
//   - Checking is bounded: a few passwords at a time (Users.Check), whoever waits waits for them and not for others,
//     and who waits too long is told so. A client with SCRAM-SHA-256 does the expensive part itself.
//   - Who guesses wrong waits longer for each answer (guesses.go), and the memory of it is bounded.
//   - The file is read anew when it has changed. If it cannot be used, what was read before stays in force.
//
// A method of MQTT 5 enhanced authentication is an Authenticator (method.go). The package knows nothing of packets and
// sockets, and starts no goroutines.
package auth

// Package mqtttest is a client for tests that reads like a script: send this,
// expect that, nothing else.
//
// It promises to show every byte that the broker sends: what is expected is
// compared whole, and what was not expected fails the test with both packets
// in words. It never answers by itself, not even with an acknowledgement, and
// it never waits for time to pass, only for packets.
package mqtttest

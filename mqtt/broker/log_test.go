package broker

import (
	"strings"
	"testing"

	"cairnmq/mqtt/packet"
)

// A client that breaks the rules is one line in the log, and the line says
// who, from where, with which packet, and against what.
func TestABrokenRuleIsOneLineThatNamesClientPeerAndPacket(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		r := start(t)
		c := r.connect(v, "sloppy")
		peer := c.Conn.LocalAddr().String()
		c.SendRaw([]byte{0x80, 3, 0, 1, 0}) // SUBSCRIBE with flags 0000 [MQTT-3.8.1-1]
		if v == packet.V5 {
			c.ExpectDisconnect(packet.MalformedPacket)
		}
		c.ExpectClosed()
		r.away("sloppy")
		r.close()
		var lines []string
		for _, line := range strings.Split(r.log.String(), "\n") {
			if strings.Contains(line, "must not") {
				lines = append(lines, line)
			}
		}
		if len(lines) != 1 {
			t.Fatalf("version %s: %d lines, want 1: %q", v, len(lines), lines)
		}
		for _, part := range []string{"sloppy", peer, "SUBSCRIBE", "MQTT-3.8.1-1", "main"} {
			if !strings.Contains(lines[0], part) {
				t.Errorf("version %s: %q is not in %s", v, part, lines[0])
			}
		}
	}
}

package broker

import (
	"time"

	"cairnmq/mqtt/packet"
)

// tick is how often the housekeeper looks around.
const tick = time.Second

// housekeeping is the one goroutine that watches the clock: keep alives,
// delayed wills, session expiry.
func (b *Broker) housekeeping() {
	defer b.kept.Done()
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-b.keeper:
		case <-b.ctx.Done():
			return
		}
		b.sweep = b.clients.appendTo(b.sweep[:0])
		b.checkKeepAlives(b.sweep)
		b.parkIdle(b.sweep)
		clear(b.sweep)
		b.checkDue(b.now())
		b.gate.refresh()
		b.groups.retry()
		b.logs.Flush()
	}
}

func (b *Broker) wakeHousekeeper() {
	select {
	case b.keeper <- struct{}{}:
	default:
	}
}

// checkKeepAlives ends connections that have been silent for one and a half
// times their keep alive [MQTT-3.1.2-22], [MQTT311-3.1.2-24]. The clock is the monotonic one.
func (b *Broker) checkKeepAlives(sessions []*session) {
	for _, s := range sessions {
		if s.keepAlive == 0 {
			continue
		}
		silent := s.c.silence()
		if silent > s.keepAlive+s.keepAlive/2 {
			s.end(closeReason{code: packet.KeepAliveTimeout, text: "no packet for " + silent.Round(time.Second).String()})
		}
	}
}

// checkDue publishes delayed wills and ends expired sessions.
func (b *Broker) checkDue(now time.Time) {
	ids, err := b.log.DueSessions(now)
	if err != nil {
		b.brokerLog.Error("cannot read the due sessions", "error", err)
	}
	for _, id := range ids {
		if err := b.dueSession(id, now); err != nil {
			b.brokerLog.Error("cannot end a session", "client", id, "error", err)
		}
	}
}

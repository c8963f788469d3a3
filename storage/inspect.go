package storage

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// EventView is a record that is not a message, taken apart for people. Fields
// that the kind does not have are empty.
type EventView struct {
	Client string `json:"client,omitempty"`

	// opened, closed
	Version  uint8     `json:"version,omitempty"` // of MQTT: 3, 4 or 5
	Clean    *bool     `json:"clean_start,omitempty"`
	Expiry   *uint32   `json:"session_expiry,omitempty"` // seconds; Never
	Will     *WillView `json:"will,omitempty"`
	KeepWill *bool     `json:"will_pending,omitempty"`
	Cursor   Pos       `json:"cursor,omitempty"` // also delivered, dealt, group

	Subscribed   []SubView   `json:"subscriptions,omitempty"`
	Unsubscribed []string    `json:"filters,omitempty"`
	Delivered    []SentView  `json:"delivered,omitempty"`
	Acked        []AckedView `json:"acked,omitempty"`
	Released     []uint16    `json:"packet_ids,omitempty"`

	// dealt, returned, group: of a shared subscription
	Group    string      `json:"group,omitempty"`
	Dealt    []DealtView `json:"dealt,omitempty"`
	Open     []Pos       `json:"waiting,omitempty"` // before the cursor
	Returned []SentView  `json:"returned,omitempty"`
	Online   *bool       `json:"members_online,omitempty"`

	// boot
	CleanEnd *bool `json:"clean_shutdown,omitempty"` // of the run before
	End      Pos   `json:"recovered_end,omitempty"`

	Loss *Loss `json:"loss,omitempty"`
}

// WillView is a will in an EventView.
type WillView struct {
	Topic   string  `json:"topic"`
	QoS     uint8   `json:"qos"`
	Retain  bool    `json:"retain"`
	Delay   uint32  `json:"delay"` // seconds
	Expiry  *uint32 `json:"expiry,omitempty"`
	Bytes   int     `json:"bytes"` // of the payload
	Payload []byte  `json:"-"`
	Props   []byte  `json:"-"`
}

// SubView is a subscription in an EventView.
type SubView struct {
	Filter            string `json:"filter"`
	QoS               uint8  `json:"qos"`
	NoLocal           bool   `json:"no_local,omitempty"`
	RetainAsPublished bool   `json:"retain_as_published,omitempty"`
	RetainHandling    uint8  `json:"retain_handling,omitempty"`
	ID                uint32 `json:"id,omitempty"`
}

// SentView is a packet identifier that was given to a message.
type SentView struct {
	PacketID uint16 `json:"packet_id"`
	Pos      Pos    `json:"position"`
	QoS      uint8  `json:"qos"`
	Retained bool   `json:"retained,omitempty"`
	Received bool   `json:"received,omitempty"`
}

// DealtView is what one member gets of a group's messages.
type DealtView struct {
	Client    string     `json:"client"`
	Delivered []SentView `json:"delivered"`
}

// AckedView is one step of an outbound message.
type AckedView struct {
	PacketID uint16 `json:"packet_id"`
	Done     bool   `json:"done"` // false: PUBREC received
}

// DecodeEvent takes the body of a record that is not a message apart. ok is
// false if the body does not hold what the kind says, or the kind is unknown:
// then v holds what could be read.
func DecodeEvent(rec *Record) (v EventView, ok bool) {
	d := decoder{b: rec.Body}
	switch rec.Kind {
	case KindBoot:
		clean := d.byte() != 0
		v.CleanEnd, v.End = &clean, Pos(d.uint())
		return v, !d.bad
	case KindShutdown:
		return v, true
	case KindLoss:
		loss, ok := DecodeLoss(rec.Body)
		loss.When, loss.At = rec.WallTime(), rec.Pos
		v.Loss = &loss
		return v, ok
	case KindDealt, KindGroup:
		v.Group = d.string()
		v.decode(rec.Kind, &d)
		return v, !d.bad
	case KindOpened, KindClosed, KindEnded, KindSubscribed, KindUnsubscribed, KindDelivered, KindAcked, KindReleased, KindReturned:
		v.Client = d.string()
		v.decode(rec.Kind, &d)
		return v, !d.bad
	}
	return v, false
}

// decode reads what follows the client id, or the group.
func (v *EventView) decode(kind Kind, d *decoder) {
	switch kind {
	case KindOpened:
		v.Version = d.byte()
		flags := d.byte()
		clean, expiry := flags&1 != 0, uint32(d.uint())
		v.Clean, v.Expiry, v.Cursor = &clean, &expiry, Pos(d.uint())
		if flags&2 != 0 {
			v.Will = viewWill(decodeWill(d))
		}
	case KindClosed:
		keep, expiry := d.byte() != 0, uint32(d.uint())
		v.KeepWill, v.Expiry, v.Cursor = &keep, &expiry, Pos(d.uint())
	case KindSubscribed:
		for range d.count() {
			s := decodeSub(d)
			v.Subscribed = append(v.Subscribed, SubView{s.Filter, s.QoS, s.NoLocal, s.RetainAsPublished, s.RetainHandling, s.ID})
		}
	case KindUnsubscribed:
		for range d.count() {
			v.Unsubscribed = append(v.Unsubscribed, d.string())
		}
	case KindDelivered:
		v.Cursor = Pos(d.uint())
		v.Delivered = viewSent(decodeInflight(d))
	case KindDealt:
		v.Cursor, v.Open = decodeDealt(d, func(id []byte, list []Inflight) {
			v.Dealt = append(v.Dealt, DealtView{string(id), viewSent(list)})
		})
	case KindReturned:
		v.Group = d.string()
		v.Returned = viewSent(decodeInflight(d))
	case KindGroup:
		online := d.byte()&1 != 0
		v.Online, v.Cursor = &online, Pos(d.uint())
	case KindAcked:
		for range d.count() {
			x := d.uint()
			v.Acked = append(v.Acked, AckedView{uint16(x >> 1), x&1 != 0})
		}
	case KindReleased:
		v.Released = decodeIDs(d)
	}
}

func viewSent(list []Inflight) (out []SentView) {
	for _, f := range list {
		out = append(out, SentView{f.ID, f.Pos, f.QoS, f.Retained, f.Received})
	}
	return out
}

func viewWill(w *Will) *WillView {
	v := &WillView{Topic: w.Topic, QoS: w.QoS, Retain: w.Retain, Delay: w.Delay, Bytes: len(w.Payload), Payload: w.Payload, Props: w.Props}
	if w.HasExpiry {
		v.Expiry = &w.Expiry
	}
	return v
}

// Concerns reports whether the event is about this client: its session, what
// it gets of a group, or a gap that it is a reader of.
func (v *EventView) Concerns(client string) bool {
	if v.Loss != nil {
		for _, r := range v.Loss.Readers {
			if r == client {
				return true
			}
		}
		return false
	}
	return v.Client == client || slices.ContainsFunc(v.Dealt, func(x DealtView) bool { return x.Client == client })
}

// String is the event without the client, in one line of words. It may hold
// whatever bytes clients have sent.
func (v *EventView) String() string {
	var words []string
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if v.Version != 0 {
		say("version=%d", v.Version)
	}
	if v.Clean != nil {
		say("clean_start=%v", *v.Clean)
	}
	if v.Expiry != nil {
		if *v.Expiry == Never {
			say("expiry=never")
		} else {
			say("expiry=%v", time.Duration(*v.Expiry)*time.Second)
		}
	}
	if v.KeepWill != nil {
		say("will_pending=%v", *v.KeepWill)
	}
	if w := v.Will; w != nil {
		say("will=%s qos%d %dB", w.Topic, w.QoS, w.Bytes)
	}
	for _, s := range v.Subscribed {
		say("%s qos%d", s.Filter, s.QoS)
	}
	for _, f := range v.Unsubscribed {
		say("%s", f)
	}
	if v.Group != "" {
		say("%s", v.Group)
	}
	if v.Online != nil {
		say("members_online=%v", *v.Online)
	}
	sayAll := func(list []SentView) {
		for _, f := range list {
			say("%d->%d", f.PacketID, f.Pos)
		}
	}
	sayAll(v.Delivered)
	sayAll(v.Returned)
	for _, x := range v.Dealt {
		say("%s:", x.Client)
		sayAll(x.Delivered)
	}
	for _, p := range v.Open {
		say("waiting=%d", p)
	}
	for _, a := range v.Acked {
		step := "received"
		if a.Done {
			step = "done"
		}
		say("%d %s", a.PacketID, step)
	}
	for _, id := range v.Released {
		say("%d", id)
	}
	if v.Cursor != 0 {
		say("cursor=%d", v.Cursor)
	}
	if v.CleanEnd != nil {
		say("clean_shutdown=%v recovered_end=%d", *v.CleanEnd, v.End)
	}
	if x := v.Loss; x != nil {
		say("%v: %d messages, positions %d to %d", x.Cause, x.Count, x.From, x.To)
		if len(x.Readers) > 0 {
			say("readers=%s", strings.Join(x.Readers, ","))
		}
		if x.Detail != "" {
			say("(%s)", x.Detail)
		}
	}
	return strings.Join(words, " ")
}

package show

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"cairnmq/mqtt/packet"
	"cairnmq/segment"
	"cairnmq/storage"
	"cairnmq/storage/inspect"
)

var instant = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

// entry is a message as the log would give it.
func entry(topic, payload string) *inspect.Entry {
	e := &inspect.Entry{Segment: "x.seg", Message: &storage.MessageView{Publisher: []byte("dev"), Topic: []byte(topic), Payload: []byte(payload)}}
	e.Pos, e.Kind, e.Flags, e.Wall = 4096, storage.KindMessage, 1, instant.UnixNano()
	return e
}

func TestTextCannotCommandTheTerminal(t *testing.T) {
	for _, nasty := range []string{
		"\x1b[2J\x1b[31mred", "a\rb", "a\nb", "\x9b31m", "\u009b31m", "\x07", "\u202eabc", "\u200b", "\x7f", "\xff\xfe", "a\tb", "\u2028",
	} {
		e := entry("t/"+nasty, nasty)
		e.Message.Publisher = []byte(nasty)
		line := Text(e, 0)
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
			t.Errorf("%q gives %q", nasty, line)
		}
	}
}

func TestTextLine(t *testing.T) {
	will, expiry := entry("a b", "x"), entry("", "")
	will.Flags |= storage.FlagWill | storage.FlagRetain
	expiry.Flags = storage.FlagExpiry | 2
	for _, row := range []struct {
		e     *inspect.Entry
		limit int
		want  string
	}{
		{entry("a/b", `{"v":1.5} ok`), 0, `q1 - dev a/b {"v":1.5} ok`},
		{entry("a/b", "größe °C"), 0, "q1 - dev a/b größe °C"},
		{entry("a/b", `back\slash`), 0, `q1 - dev a/b back\\slash`},
		{entry("a/b", "\x00\x01\xff"), 0, "q1 - dev a/b 0x0001ff"},
		{entry("a/b", "0123456789"), 4, "q1 - dev a/b 0123... (10 bytes)"},
		{entry("a/b", "ab°°"), 3, "q1 - dev a/b ab... (6 bytes)"},
		{entry("a/b", "\xff\xfe\xfd"), 2, "q1 - dev a/b 0xfffe... (3 bytes)"},
		{will, 0, `q1 rw dev a\x20b x`},
		{expiry, 0, `q2 x dev "" `},
	} {
		if got, want := Text(row.e, row.limit), "2026-01-02T03:04:05.678Z 4096 "+row.want; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestJSONKeepsEverything(t *testing.T) {
	e := entry("a/b", "\xff\x00")
	e.Flags, e.Expiry, e.ID = 2|storage.FlagRetain|storage.FlagExpiry|storage.FlagWill, 60, 9
	text, topic := "text/plain", "answer"
	one := byte(1)
	e.Message.Props = (&packet.Properties{PayloadFormat: &one, ContentType: &text, ResponseTopic: &topic, CorrelationData: []byte{1, 2},
		User: []packet.UserProperty{{Name: "k", Value: "<v>"}, {Name: "k", Value: "w"}}}).AppendPublish(nil)
	got, err := JSON(e)
	const want = `{"position":4096,"time":"2026-01-02T03:04:05.678Z","boot":0,"boot_ms":0,"kind":"message","segment":"x.seg",` +
		`"topic":"a/b","publisher":"dev","qos":2,"retain":true,"from_will":true,"packet_id":9,"expiry":60,` +
		`"properties":{"payload_format":1,"content_type":"text/plain","response_topic":"answer","correlation_data_base64":"AQI=",` +
		`"user":[{"name":"k","value":"<v>"},{"name":"k","value":"w"}]},` +
		`"payload":"/wA=","payload_encoding":"base64","payload_bytes":2}` + "\n"
	if err != nil || string(got) != want {
		t.Errorf("got  %swant %s%v", got, want, err)
	}
}

func TestJSONOfBrokenPropertiesSaysSo(t *testing.T) {
	e := entry("a", "x")
	e.Message.Props = []byte{0x77, 1}
	b, err := JSON(e)
	var x struct {
		Properties struct{ Base64, Error string }
		Payload    string
	}
	if err != nil || json.Unmarshal(b, &x) != nil || x.Properties.Base64 != "dwE=" || x.Properties.Error == "" || x.Payload != "x" {
		t.Errorf("%s, %v", b, err)
	}
}

func TestEventsAreShownInBothForms(t *testing.T) {
	ev := storage.EventOpened("de v\x1b", 5, true, 60, &storage.Will{Topic: "gone"}, 7)
	e := &inspect.Entry{}
	e.Kind, e.Body, e.Pos, e.Wall = ev.Kind, ev.Body, 8, instant.UnixNano()
	v, _ := storage.DecodeEvent(&e.Record)
	e.Event = &v
	if got, want := Text(e, 0), `2026-01-02T03:04:05.678Z 8 opened de\x20v\x1b version=5 clean_start=true expiry=1m0s will=gone qos0 0B cursor=7`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	b, err := JSON(e)
	if err != nil || !bytes.Contains(b, []byte(`"kind":"opened"`)) || !bytes.Contains(b, []byte(`"will":{"topic":"gone"`)) {
		t.Errorf("%s, %v", b, err)
	}
	e = &inspect.Entry{Unclear: true, Event: &storage.EventView{}}
	e.Kind, e.Body, e.Wall = 99, []byte{1, 0xff}, instant.UnixNano()
	if got, want := Text(e, 0), "2026-01-02T03:04:05.678Z 0 kind-99 not understood: 0x01ff"; got != want {
		t.Errorf("got %s", got)
	}
	if b, err := JSON(e); err != nil || !bytes.Contains(b, []byte(`"not_understood":true,"body":"Af8=","encoding":"base64"`)) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestLossesAddUp(t *testing.T) {
	var s LossSums
	s.Add(&storage.Loss{Cause: storage.CauseRetention, Readers: []string{"a", "b"}, Count: 3, Bytes: 30})
	s.Add(&storage.Loss{Cause: storage.CauseRetention, Readers: []string{"a"}, Count: 2, Bytes: 20})
	s.Add(&storage.Loss{Cause: storage.CauseDamage, Count: 1, Bytes: 10})
	var b bytes.Buffer
	if err := s.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	const want = `
3 rows, 6 messages
CAUSE      ROWS  MESSAGES  BYTES
damage     1     1         10
retention  2     5         50
READER     ROWS  MESSAGES  BYTES
*          1     1         10
a          2     5         50
b          1     3         30
`
	if b.String() != want {
		t.Errorf("got %s", b.String())
	}
	line := Loss(&storage.Loss{Cause: storage.CauseDamage, From: 1, To: 2, Count: 3, Bytes: 4, Detail: "why\n", When: instant, At: 5})
	if line != `2026-01-02T03:04:05.678Z 5 damage 3 messages 4 bytes positions 1-2 readers everybody (why\n)` {
		t.Errorf("got %s", line)
	}
}

func TestSegmentsNameTheirDamage(t *testing.T) {
	first := instant
	list := []inspect.Segment{
		{Name: "1.seg", End: 100, State: inspect.Sealed, First: &first, Last: &first, Records: 2, Messages: 1, Topics: 1, Used: 2048, Disk: 4096},
		{Name: "2.seg", End: 200, State: inspect.Damaged, Scanned: true, Used: 5 << 20, Disk: 3 << 30,
			Damages: []segment.Damage{{File: "2.seg", From: 110, To: 120, Err: segment.ErrDamaged}}},
		{Name: "3.seg", State: inspect.Active, Scanned: true, Torn: 7},
	}
	var total inspect.Total
	for i := range list {
		total.Add(&list[i])
	}
	var b bytes.Buffer
	if err := Segments(&b, list, &total); err != nil {
		t.Fatal(err)
	}
	const want = `SEGMENT     END  STATE    FIRST                     LAST                      RECORDS  MESSAGES  TOPICS  USED    ON DISK  DAMAGE
1.seg       100  sealed   2026-01-02T03:04:05.678Z  2026-01-02T03:04:05.678Z  2        1         1       2.0KiB  4.0KiB   -
2.seg       200  damaged  -                         -                         0        0         0       5.0MiB  3.0GiB   1
3.seg       0    active   -                         -                         0        0         0       0B      0B       torn 7B
3 segments                                                                    2        1                 5.0MiB  3.0GiB   1
damage: 2.seg: positions 110 to 120: damaged
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}

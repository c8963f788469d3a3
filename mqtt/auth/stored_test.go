package auth

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func b64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The example of RFC 7677, section 3: user "user", password "pencil".
const (
	rfcSalt   = "W22ZaJ0SNY7soEsUEjb6gQ=="
	rfcStored = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
	rfcServer = "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	rfcEntry  = "SCRAM-SHA-256$4096:" + rfcSalt + "$" + rfcStored + ":" + rfcServer
)

func TestKeysAreThoseOfRFC7677(t *testing.T) {
	if got := deriveSCRAM([]byte("pencil"), b64(t, rfcSalt), 4096).String(); got != rfcEntry {
		t.Errorf("got  %s\nwant %s", got, rfcEntry)
	}
}

func stored(t *testing.T, s string) Stored {
	t.Helper()
	x, err := ParseStored(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return x
}

func TestEveryFormTellsRightFromWrong(t *testing.T) {
	made, err := NewSCRAM([]byte("pencil"), MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Stored{
		stored(t, rfcEntry), made, NewArgon2id([]byte("pencil")),
		// From the tests of the reference implementation of argon2.
		stored(t, "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"),
	} {
		right := "pencil"
		if strings.Contains(s.String(), "m=256") {
			right = "password"
		}
		if !s.Verify([]byte(right)) {
			t.Errorf("%s: the password is refused", s)
		}
		for _, wrong := range []string{"", "Pencil", "pencil ", right + "\x01", right[:5]} {
			if s.Verify([]byte(wrong)) {
				t.Errorf("%s: takes %q", s, wrong)
			}
		}
		if s.decoy().Verify([]byte(right)) {
			t.Errorf("%s: its decoy takes a password", s)
		}
		if again := stored(t, s.String()); again.String() != s.String() || !again.Verify([]byte(right)) {
			t.Errorf("%s: reads back as %s", s, again)
		}
	}
}

// Passwords of MQTT are bytes, which SASLprep does not take; text is the same however it is composed.
func TestPasswordsAreTextWhereTheyCanBe(t *testing.T) {
	raw, err := NewSCRAM([]byte{0xff, 0, 1}, MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	if !raw.Verify([]byte{0xff, 0, 1}) || raw.Verify([]byte{0xff, 0, 2}) {
		t.Error("a password that is no text")
	}
	text, err := NewSCRAM([]byte("caf\u00e9"), MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	if !text.Verify([]byte("cafe\u0301")) {
		t.Error("the same text, composed in another way, is refused") // RFC 5802, section 2.2
	}
}

// A file of Mosquitto can be taken over as it is.
func TestTheFileOfMosquittoIsRead(t *testing.T) {
	tool, err := exec.LookPath("mosquitto_passwd")
	if err != nil {
		t.Skip("mosquitto_passwd is not installed")
	}
	path := filepath.Join(t.TempDir(), "passwd")
	for _, args := range [][]string{{"-c", "-b", path, "anna", "secret"}, {"-b", path, "bert", "other:secret$"}} {
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	f, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !f.users["anna"].Verify([]byte("secret")) || !f.users["bert"].Verify([]byte("other:secret$")) {
		t.Error("a right password is refused")
	}
	if f.users["anna"].Verify([]byte("other:secret$")) || f.users["anna"].decoy().Verify([]byte("secret")) {
		t.Error("a wrong password is taken")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(f.Bytes()) != string(data) {
		t.Errorf("it reads\n%sand writes\n%s", data, f.Bytes())
	}
	if out, err := exec.Command(tool, "-H", "sha512", "-b", path, "old", "secret").CombinedOutput(); err != nil {
		t.Skipf("no old form: %v %s", err, out)
	}
	if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), `passwd:3: the entry of user "old" is a hash of old`) {
		t.Errorf("the form of before: %v", err)
	}
}

func TestBadEntriesAreNamed(t *testing.T) {
	const argon = "$argon2id$v=19$"
	long := strings.Repeat("A", 44)
	for entry, want := range map[string]string{
		"":                                    "not a form",
		"secret":                              "not a form",
		"$1$abc":                              "not a form",
		"SCRAM-SHA-256$":                      "is not SCRAM-SHA-256$iterations",
		"SCRAM-SHA-256$x:" + rfcSalt + "$a:b": `"x" iterations`,
		"SCRAM-SHA-256$4095:" + rfcSalt + "$" + rfcStored + ":" + rfcServer:     `"4095" iterations, which is not a number from 4096`,
		"SCRAM-SHA-256$99999999:" + rfcSalt + "$" + rfcStored + ":" + rfcServer: "99999999",
		"SCRAM-SHA-256$4096:AAAA$" + rfcStored + ":" + rfcServer:                "salt of 3 bytes",
		"SCRAM-SHA-256$4096:" + rfcSalt + "$!:" + rfcServer:                     "stored key that is not base64",
		"SCRAM-SHA-256$4096:" + rfcSalt + "$" + rfcStored + ":AAAA":             "server key of 3 bytes",
		argon + "m=1,t=1":                                "is not $argon2id$",
		argon + "m=1,t=1,p=1$c29tZXNhbHQ":                "is not $argon2id$",
		argon + "m=1,t=0,p=1$c29tZXNhbHQ$" + long:        "t=0, which is out of range",
		argon + "m=99999999,t=1,p=1$c29tZXNhbHQ$" + long: "m=99999999",
		argon + "m=1,t=1,p=255$c29tZXNhbHQ$" + long:      "p=255",
		argon + "t=1,m=1,p=1$c29tZXNhbHQ$" + long:        "is not $argon2id$",
		argon + "m=8,t=1,p=1$c29tZXNhbHQ$AAAA":           "hash of 3 bytes",
		"$argon2id$v=16$m=8,t=1,p=1$c29tZXNhbHQ$" + long: "is not $argon2id$",
		"$7$101":                       "is not $7$iterations$salt$hash",
		"$7$0$AAAAAAAAAAAAAAAA$AAAA":   `"0" iterations`,
		"$7$101$AAAAAAAAAAAAAAAA$AAAA": "hash of 3 bytes",
		"$6$abc$def":                   "hash of old",
	} {
		if _, err := ParseStored(entry); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want ...%s...", entry, err, want)
		}
	}
	for _, n := range []int{0, 4095, MaxIterations + 1} {
		if _, err := NewSCRAM(nil, n); err == nil {
			t.Errorf("%d iterations are taken", n)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("# users\n\nuser:" + rfcEntry + "\nb:$7$101$AAAAAAAAAAAAAAAA$" + strings.Repeat("A", 86) + "==\r\n"))
	f.Add([]byte("a:$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$" + strings.Repeat("A", 43)))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := ParseFile(data)
		if err != nil {
			return
		}
		again, err := ParseFile(file.Bytes())
		if err != nil {
			t.Fatalf("%q is read and written as %q, which is not: %v", data, file.Bytes(), err)
		}
		if string(again.Bytes()) != string(file.Bytes()) || again.Len() != file.Len() {
			t.Fatalf("%q and %q", again.Bytes(), file.Bytes())
		}
		for _, name := range file.Users() {
			if !file.Delete(name) {
				t.Fatalf("%q is not there", name)
			}
		}
		if file.Len() != 0 || len(file.Users()) != 0 {
			t.Fatalf("left: %q", file.Bytes())
		}
	})
}

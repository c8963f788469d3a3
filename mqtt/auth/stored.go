package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/stringprep"
	"golang.org/x/crypto/argon2"
)

// Stored is what a password can be checked with. It is safe for many goroutines.
type Stored interface {
	// Verify reports whether the password is right, in a time that does not depend on it.
	Verify(password []byte) bool
	// String is the form in the file.
	String() string
	// decoy is one of the same cost that no password fits, for users who do not exist.
	decoy() Stored
}

// What is taken from a file. The upper bounds keep a mistyped number from stopping the broker.
const (
	MinIterations     = 4096 // RFC 7677, section 4
	MaxIterations     = 10_000_000
	DefaultIterations = 100_000

	minSalt       = 8
	maxSalt       = 255
	maxArgonKiB   = 256 << 10
	maxArgonTime  = 100
	maxArgonLanes = 16
)

// scramKeys are the keys of RFC 5802 for a password. They serve SCRAM clients, and passwords that come in the clear as
// well. The form in the file is the one that PostgreSQL has for them.
type scramKeys struct {
	iterations        int
	salt              []byte
	stored, serverKey []byte
}

const scramPrefix = "SCRAM-SHA-256$"

// NewSCRAM makes the keys of a password, under a new salt.
func NewSCRAM(password []byte, iterations int) (Stored, error) {
	if iterations < MinIterations || iterations > MaxIterations {
		return nil, fmt.Errorf("%d iterations are out of range (%d to %d)", iterations, MinIterations, MaxIterations)
	}
	return deriveSCRAM(password, newSalt(), iterations), nil
}

func newSalt() []byte {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	return salt
}

func deriveSCRAM(password, salt []byte, iterations int) *scramKeys {
	salted := derive(pbkdf2.Key(sha256.New, prepared(password), salt, iterations, sha256.Size))
	key := sha256.Sum256(mac(salted, "Client Key"))
	return &scramKeys{iterations: iterations, salt: salt, stored: key[:], serverKey: mac(salted, "Server Key")}
}

// derive unwraps what fails only for lengths beyond any of ours.
func derive(key []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return key
}

// prepared is the password as SCRAM clients take it. What SASLprep refuses, which may be no text at all, is taken as it
// is.
func prepared(password []byte) string {
	if s, err := stringprep.SASLprep.Prepare(string(password)); err == nil {
		return s
	}
	return string(password)
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func (k *scramKeys) Verify(password []byte) bool {
	return hmac.Equal(deriveSCRAM(password, k.salt, k.iterations).stored, k.stored)
}

func (k *scramKeys) String() string {
	b := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d:%s$%s:%s", scramPrefix, k.iterations, b(k.salt), b(k.stored), b(k.serverKey))
}

func (k *scramKeys) decoy() Stored {
	return &scramKeys{iterations: k.iterations, salt: newSalt(), stored: make([]byte, sha256.Size), serverKey: make([]byte, sha256.Size)}
}

// argonHash is argon2id, which takes memory as well as time to guess. SCRAM has no use for it.
type argonHash struct {
	kib, time uint32
	lanes     uint8
	salt, sum []byte
}

const argonPrefix = "$argon2id$"

// NewArgon2id hashes a password under a new salt, with 19 MiB and two passes.
func NewArgon2id(password []byte) Stored {
	h := &argonHash{kib: 19 << 10, time: 2, lanes: 1, salt: newSalt()}
	h.sum = h.of(password)
	return h
}

func (h *argonHash) of(password []byte) []byte {
	return argon2.IDKey(password, h.salt, h.time, h.kib, h.lanes, max(32, uint32(len(h.sum))))
}

func (h *argonHash) Verify(password []byte) bool {
	return subtle.ConstantTimeCompare(h.of(password), h.sum) == 1
}

func (h *argonHash) String() string {
	b := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("%sv=%d$m=%d,t=%d,p=%d$%s$%s", argonPrefix, argon2.Version, h.kib, h.time, h.lanes, b(h.salt), b(h.sum))
}

func (h *argonHash) decoy() Stored {
	d := *h
	d.salt, d.sum = newSalt(), make([]byte, len(h.sum))
	return &d
}

// mosquittoHash is PBKDF2 with SHA-512 as mosquitto_passwd writes it. It is read, so that a file can be taken over, and
// never made.
type mosquittoHash struct {
	iterations int
	salt, sum  []byte
}

const (
	mosquittoPrefix    = "$7$"
	oldMosquittoPrefix = "$6$"
)

func (h *mosquittoHash) Verify(password []byte) bool {
	sum := derive(pbkdf2.Key(sha512.New, string(password), h.salt, h.iterations, len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

func (h *mosquittoHash) String() string {
	b := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d$%s$%s", mosquittoPrefix, h.iterations, b(h.salt), b(h.sum))
}

func (h *mosquittoHash) decoy() Stored {
	return &mosquittoHash{iterations: h.iterations, salt: newSalt(), sum: make([]byte, len(h.sum))}
}

var errForm = errors.New(`is not a form that is known (SCRAM-SHA-256$..., $argon2id$..., or $7$... of mosquitto_passwd); make the entry with "cairnmq passwd"`)

// ParseStored reads the form of the file.
func ParseStored(s string) (Stored, error) {
	switch {
	case strings.HasPrefix(s, scramPrefix):
		return parseSCRAM(strings.TrimPrefix(s, scramPrefix))
	case strings.HasPrefix(s, argonPrefix):
		return parseArgon(strings.TrimPrefix(s, argonPrefix))
	case strings.HasPrefix(s, mosquittoPrefix):
		return parseMosquitto(strings.TrimPrefix(s, mosquittoPrefix))
	case strings.HasPrefix(s, oldMosquittoPrefix):
		return nil, errors.New(`is a hash of old that is guessed quickly ($6$); set the password anew with "cairnmq passwd"`)
	}
	return nil, errForm
}

func parseSCRAM(s string) (Stored, error) {
	head, keys, ok := strings.Cut(s, "$")
	count, salt, ok2 := strings.Cut(head, ":")
	stored, server, ok3 := strings.Cut(keys, ":")
	if !ok || !ok2 || !ok3 {
		return nil, errors.New("is not SCRAM-SHA-256$iterations:salt$stored key:server key")
	}
	k := &scramKeys{}
	var err error
	if k.iterations, err = parseIterations(count, MinIterations); err != nil {
		return nil, err
	}
	if k.salt, err = parseBytes("salt", base64.StdEncoding, salt, minSalt, maxSalt); err != nil {
		return nil, err
	}
	if k.stored, err = parseBytes("stored key", base64.StdEncoding, stored, sha256.Size, sha256.Size); err != nil {
		return nil, err
	}
	if k.serverKey, err = parseBytes("server key", base64.StdEncoding, server, sha256.Size, sha256.Size); err != nil {
		return nil, err
	}
	return k, nil
}

func parseArgon(s string) (Stored, error) {
	form := errors.New("is not $argon2id$v=19$m=KiB,t=passes,p=lanes$salt$hash")
	parts := strings.Split(s, "$")
	if len(parts) != 4 || parts[0] != fmt.Sprintf("v=%d", argon2.Version) {
		return nil, form
	}
	costs := strings.Split(parts[1], ",")
	if len(costs) != 3 {
		return nil, form
	}
	h := &argonHash{}
	for i, x := range []struct {
		name  string
		limit uint64
		set   func(uint64)
	}{
		{"m=", maxArgonKiB, func(n uint64) { h.kib = uint32(n) }},
		{"t=", maxArgonTime, func(n uint64) { h.time = uint32(n) }},
		{"p=", maxArgonLanes, func(n uint64) { h.lanes = uint8(n) }},
	} {
		digits, ok := strings.CutPrefix(costs[i], x.name)
		n, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil {
			return nil, form
		}
		if n == 0 || n > x.limit {
			return nil, fmt.Errorf("has %s%d, which is out of range (1 to %d)", x.name, n, x.limit)
		}
		x.set(n)
	}
	var err error
	if h.salt, err = parseBytes("salt", base64.RawStdEncoding, parts[2], minSalt, maxSalt); err != nil {
		return nil, err
	}
	if h.sum, err = parseBytes("hash", base64.RawStdEncoding, parts[3], 32, 64); err != nil {
		return nil, err
	}
	return h, nil
}

func parseMosquitto(s string) (Stored, error) {
	parts := strings.Split(s, "$")
	if len(parts) != 3 {
		return nil, errors.New("is not $7$iterations$salt$hash")
	}
	h := &mosquittoHash{}
	var err error
	if h.iterations, err = parseIterations(parts[0], 1); err != nil {
		return nil, err
	}
	if h.salt, err = parseBytes("salt", base64.StdEncoding, parts[1], minSalt, maxSalt); err != nil {
		return nil, err
	}
	if h.sum, err = parseBytes("hash", base64.StdEncoding, parts[2], sha512.Size, sha512.Size); err != nil {
		return nil, err
	}
	return h, nil
}

func parseIterations(s string, least int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > MaxIterations {
		return 0, fmt.Errorf("has %q iterations, which is not a number from %d to %d", s, least, MaxIterations)
	}
	return n, nil
}

func parseBytes(what string, enc *base64.Encoding, s string, least, most int) ([]byte, error) {
	b, err := enc.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("has a %s that is not base64", what)
	}
	if len(b) < least || len(b) > most {
		return nil, fmt.Errorf("has a %s of %d bytes, not %d to %d", what, len(b), least, most)
	}
	return b, nil
}

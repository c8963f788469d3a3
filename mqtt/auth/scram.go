package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"github.com/xdg-go/scram"
)

// SCRAM is the method SCRAM-SHA-256 of RFC 5802 and RFC 7677, without channel binding, for the users of a password
// file. The password never comes to the broker, and what the file holds does not let anybody in.
type SCRAM struct {
	users  *Users
	server *scram.Server
}

// MethodSCRAM is the name of the method.
const MethodSCRAM = "SCRAM-SHA-256"

// NewSCRAM256 serves the users of a password file whose entries are of the form for SCRAM.
func NewSCRAM256(u *Users) (*SCRAM, error) {
	s := &SCRAM{users: u}
	var err error
	s.server, err = scram.SHA256.NewServer(s.lookUp)
	return s, err
}

// Method implements Authenticator.
func (s *SCRAM) Method() string { return MethodSCRAM }

// Start implements Authenticator.
func (s *SCRAM) Start() Exchange { return &scramExchange{s: s, conv: s.server.NewConversation()} }

// lookUp gives users who do not exist, or whose entry has another form, keys of their own that no password fits, so
// that they learn as much as everybody else. Their salt is always the same, as that of others.
func (s *SCRAM) lookUp(name string) (scram.StoredCredentials, error) {
	t := s.users.current.Load()
	k, ok := t.list[name].(*scramKeys)
	if !ok {
		k = &scramKeys{iterations: DefaultIterations, stored: make([]byte, sha256.Size), serverKey: make([]byte, sha256.Size)}
		if d, ok := t.decoy.(*scramKeys); ok {
			k.iterations = d.iterations
		}
		h := hmac.New(sha256.New, s.users.key[:])
		h.Write([]byte("salt of " + name))
		k.salt = h.Sum(nil)[:16]
	}
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(k.salt), Iters: k.iterations},
		StoredKey:  k.stored, ServerKey: k.serverKey,
	}, nil
}

type scramExchange struct {
	s    *SCRAM
	conv *scram.ServerConversation
}

// Continue implements Exchange.
func (x *scramExchange) Continue(data []byte) (Step, error) {
	x.s.users.Refresh()
	answer, err := x.conv.Step(string(data))
	switch {
	case err != nil:
		return Step{}, fmt.Errorf("%w: %s: %w", ErrDenied, MethodSCRAM, err)
	case x.conv.AuthzID() != "" && x.conv.AuthzID() != x.conv.Username():
		return Step{}, fmt.Errorf("%w: %s: %q asks to act as %q", ErrDenied, MethodSCRAM, x.conv.Username(), x.conv.AuthzID())
	}
	return Step{Data: []byte(answer), Done: x.conv.Valid(), User: x.conv.Username()}, nil
}

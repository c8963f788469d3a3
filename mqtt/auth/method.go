package auth

// Authenticator is a method of MQTT 5 enhanced authentication. It is safe for many goroutines.
type Authenticator interface {
	// Method is its name, as a client asks for it.
	Method() string
	// Start begins an exchange with one client, when it connects or when it authenticates again.
	Start() Exchange
}

// Exchange is one run of a method. It belongs to one goroutine.
type Exchange interface {
	// Continue takes what the client sent, first in its CONNECT or in the AUTH with which it begins again, and
	// returns what it is sent back. An error ends the exchange: ErrDenied, perhaps wrapped in what the log should
	// say. It must not wait for anything.
	Continue(data []byte) (Step, error)
}

// Step is one answer of an exchange.
type Step struct {
	Data []byte // nil: none
	Done bool   // the client is User
	User string
}

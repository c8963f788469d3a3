package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os/user"
	"path"
	"reflect"
	"strconv"
	"strings"

	"cairnmq/mqtt/auth"
)

// appliesTo reports whether a server of this type uses the part.
func (s *section) appliesTo(server *Server) bool {
	if s.partName() == "tls" {
		return server.Type.Encrypted()
	}
	return server.Type.WebSocket()
}

// checkParts refuses what the server's type makes no use of, for whoever wrote it expects something of it, and what
// is missing.
func (s Server) checkParts(r *report, name string) {
	if r.broken[name+".type"] {
		return
	}
	fresh := newServer(s.Name)
	for _, x := range sections {
		if x.form != part || x.appliesTo(&s) {
			continue
		}
		for _, k := range x.keys {
			if !reflect.DeepEqual(k.field(&s), k.field(&fresh)) {
				r.add(name+"."+x.partName()+"."+k.name, "has no effect on a server of type %s%s", s.Type, r.line(name+".type"))
			}
		}
	}
	if s.Type != Unix && s.SocketMode != "" {
		r.add(name+".socket_mode", "has no effect on a server of type %s", s.Type)
	}
	if s.Type != Unix && s.SocketOwner != "" {
		r.add(name+".socket_owner", "has no effect on a server of type %s", s.Type)
	}
	if s.ConnectionBurst != 0 && s.ConnectionRate == 0 {
		r.add(name+".connection_burst", "has no effect without connection_rate")
	}
	s.checkProxy(r, name)
	if s.Type.Encrypted() {
		s.TLS.check(r, name+".tls")
	}
}

func (s Server) checkProxy(r *report, name string) {
	switch {
	case len(s.TrustedProxies) > 0 && !s.ProxyProtocol:
		r.add(name+".trusted_proxies", "has no effect without proxy_protocol")
	case len(s.TrustedProxies) > 0 && s.Type == Unix:
		r.add(name+".trusted_proxies", "has no effect on a server of type unix")
	case len(s.TrustedProxies) == 0 && s.ProxyProtocol && s.Type != Unix:
		r.add(name+".proxy_protocol", "needs trusted_proxies, the addresses of the proxies: anybody else could claim to be anybody")
	}
}

func (t ServerTLS) check(r *report, name string) {
	asks := t.ClientAuth != ClientAuthNone
	switch {
	case t.Cert == "":
		r.add(name+".cert", "is missing: a server of type tls or wss needs a certificate")
	case t.Key == "":
		r.add(name+".key", "is missing: the private key of the certificate")
	}
	switch {
	case asks && t.ClientCA == "":
		r.add(name+".client_ca", "is missing: client_auth = %q needs the authorities to trust", t.ClientAuth)
	case !asks && t.ClientCA != "":
		r.add(name+".client_ca", "has no effect without client_auth")
	}
	if t.CRL != "" && !asks {
		r.add(name+".crl", "has no effect without client_auth")
	}
	if t.Identity != IdentityNone && !asks {
		r.add(name+".identity", "has no effect without client_auth")
	}
}

// checkFiles looks at the files that a server needs, so that they are complained of at their place in the
// configuration and not at three in the morning.
func (c *Config) checkFiles(r *report) {
	if path := c.Auth.PasswordFile; path != "" && !r.broken["auth.password_file"] {
		if _, err := auth.ReadFile(path); err != nil {
			r.add("auth.password_file", "%v", err)
		}
	}
	for _, s := range c.Servers {
		name := "servers." + s.Name
		if s.Type.Encrypted() && !r.broken[name+".type"] && !r.anyBroken(name+".tls.") {
			if _, err := s.TLS.Read(); err != nil {
				key := name + ".tls"
				var bad *FileError
				if errors.As(err, &bad) {
					key, err = key+"."+bad.Key, bad.Err
				}
				r.add(key, "%v", err)
			}
		}
		if s.Type == Unix {
			if _, _, err := s.SocketOwnerIDs(); err != nil {
				r.add(name+".socket_owner", "%v", err)
			}
		}
	}
}

// anyBroken reports whether a key whose name begins like this has been complained of.
func (r *report) anyBroken(prefix string) bool {
	for name := range r.broken {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// ParseNetwork reads an address, which stands for itself alone, or a network in CIDR form.
func ParseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf(`%q is not an address or a network; write for example "10.0.0.7" or "10.0.0.0/8"`, s)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q has bits beyond its length; the network is %v", s, p.Masked())
	}
	return p, nil
}

func checkNetwork(s string) error {
	_, err := ParseNetwork(s)
	return err
}

// ParseMode reads the rights of a file in octal.
func ParseMode(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 || n == 0 {
		return 0, fmt.Errorf(`%q is not a mode; write for example "0660"`, s)
	}
	return uint32(n), nil
}

func checkMode(s string) error {
	_, err := ParseMode(s)
	return err
}

func checkPath(s string) error {
	if !strings.HasPrefix(s, "/") || strings.ContainsAny(s, "?# \t\r\n") {
		return fmt.Errorf(`%q is not the path of a URL; write for example "/mqtt"`, s)
	}
	return nil
}

// checkOrigin knows the forms of allowed_origins; package listener matches them.
func checkOrigin(s string) error {
	host := s
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		host = rest
		if scheme == "" {
			host = ""
		}
	}
	if _, err := path.Match(s, ""); err != nil || host == "" || strings.ContainsAny(host, "/ \t\r\n") {
		return fmt.Errorf(`%q is not an origin; write for example "https://app.example.com", without a path`, s)
	}
	return nil
}

// SocketOwnerIDs looks socket_owner up. An id is -1 where nothing is to be changed.
func (s Server) SocketOwnerIDs() (uid, gid int, err error) {
	name, group, _ := strings.Cut(s.SocketOwner, ":")
	uid, gid = -1, -1
	if name != "" {
		if uid, err = lookUp(name, func() (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		}); err != nil {
			return -1, -1, err
		}
	}
	if group != "" {
		gid, err = lookUp(group, func() (string, error) {
			g, err := user.LookupGroup(group)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
	}
	return uid, gid, err
}

// lookUp takes a number for an id, and else asks for it.
func lookUp(name string, ask func() (string, error)) (int, error) {
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	text, err := ask()
	if err != nil {
		return -1, err // says which name is not known
	}
	id, err := strconv.Atoi(text)
	if err != nil {
		return -1, fmt.Errorf("%s has the id %q, which is no number", name, text)
	}
	return id, nil
}

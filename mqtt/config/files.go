package config

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// FileError is a file that cannot be used.
type FileError struct {
	Key string // the key of [servers.NAME.tls] that names the file
	Err error  // says which file and why
}

func (e *FileError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *FileError) Unwrap() error { return e.Err }

// TLSFiles is what the files of a [servers.NAME.tls] table say. It is not changed after Read.
type TLSFiles struct {
	Certificate tls.Certificate // with its Leaf
	ClientCAs   *x509.CertPool  // nil if clients are not asked
	CRLs        []*x509.RevocationList
	Sum         [sha256.Size]byte // of all that was read: files that say the same have the same
}

// maxTLSFile bounds what is read, in case a path leads to something else. Revocation lists can be large.
const maxTLSFile = 64 << 20

// Paths are the files that the table names.
func (t ServerTLS) Paths() []string {
	var paths []string
	for _, path := range []string{t.Cert, t.Key, t.ClientCA, t.CRL} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	return paths
}

// Read reads the files and checks that they fit together. The error is a *FileError.
func (t ServerTLS) Read() (*TLSFiles, error) {
	files := &TLSFiles{}
	sum := sha256.New()
	read := func(key, path string) ([]byte, error) {
		data, err := readFile(path)
		if err != nil {
			return nil, &FileError{key, err}
		}
		fmt.Fprintf(sum, "%s %d ", key, len(data))
		sum.Write(data)
		return data, nil
	}
	cert, err := read("cert", t.Cert)
	if err != nil {
		return nil, err
	}
	key, err := read("key", t.Key)
	if err != nil {
		return nil, err
	}
	if files.Certificate, err = parsePair(t, cert, key); err != nil {
		return nil, err
	}
	if t.ClientAuth != ClientAuthNone {
		data, err := read("client_ca", t.ClientCA)
		if err != nil {
			return nil, err
		}
		authorities, err := parseCertificates(data)
		if err != nil {
			return nil, &FileError{"client_ca", fmt.Errorf("%s: %w", t.ClientCA, err)}
		}
		files.ClientCAs = x509.NewCertPool()
		for _, c := range authorities {
			files.ClientCAs.AddCert(c)
		}
		if t.CRL != "" {
			if data, err = read("crl", t.CRL); err != nil {
				return nil, err
			}
			if files.CRLs, err = parseCRLs(data, authorities); err != nil {
				return nil, &FileError{"crl", fmt.Errorf("%s: %w", t.CRL, err)}
			}
		}
	}
	sum.Sum(files.Sum[:0])
	return files, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxTLSFile {
		return nil, fmt.Errorf("%s is not a file of certificates", path)
	}
	return os.ReadFile(path)
}

// parsePair finds out which of the two files is to blame.
func parsePair(t ServerTLS, cert, key []byte) (tls.Certificate, error) {
	if _, err := parseCertificates(cert); err != nil {
		return tls.Certificate{}, &FileError{"cert", fmt.Errorf("%s: %w", t.Cert, err)}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return pair, &FileError{"key", fmt.Errorf("%s: %w", t.Key, err)}
	}
	if pair.Leaf == nil {
		pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
	}
	return pair, err
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("no PEM certificate is in the file")
	}
	return all, nil
}

// parseCRLs takes only lists that one of the authorities has signed: anything else would revoke nothing, silently.
func parseCRLs(data []byte, authorities []*x509.Certificate) ([]*x509.RevocationList, error) {
	var ders [][]byte
	if bytes.HasPrefix(data, []byte{0x30}) { // the tag that DER begins with
		ders = append(ders, data)
	} else {
		for {
			var block *pem.Block
			if block, data = pem.Decode(data); block == nil {
				break
			}
			if block.Type == "X509 CRL" {
				ders = append(ders, block.Bytes)
			}
		}
	}
	if len(ders) == 0 {
		return nil, errors.New("no revocation list is in the file")
	}
	lists := make([]*x509.RevocationList, len(ders))
	for i, der := range ders {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("list %d: %w", i+1, err)
		}
		if !signedByOneOf(list, authorities) {
			return nil, fmt.Errorf("list %d, of %s, is not signed by a certificate of client_ca", i+1, list.Issuer)
		}
		lists[i] = list
	}
	return lists, nil
}

func signedByOneOf(list *x509.RevocationList, authorities []*x509.Certificate) bool {
	for _, a := range authorities {
		if bytes.Equal(a.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(a) == nil {
			return true
		}
	}
	return false
}

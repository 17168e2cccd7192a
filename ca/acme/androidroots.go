package acme

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openjpki/jpki"
)

// maxChain bounds a chain of attestation certificates: phones have four or five.
const maxChain = 8

func isKeyDescription(x pkix.Extension) bool { return x.Id.Equal(oidKeyDescription) }

// attestationChain checks certificates as a phone sends them, the key's first: each is signed by the next, the last is a root of
// the maker's or signed by one, and nothing else is sent along. Only the first may have the extension in which a key is described.
// Otherwise whoever has one attested key could sign, with it, a certificate for a key of any kind and describe that as it pleases.
func attestationChain(x5c [][]byte, roots *x509.CertPool, now time.Time, description asn1.ObjectIdentifier) ([]*x509.Certificate, error) {
	if len(x5c) == 0 || len(x5c) > maxChain {
		return nil, fmt.Errorf("the attestation has no certificates or more than %d", maxChain)
	}
	certs := make([]*x509.Certificate, len(x5c))
	above := x509.NewCertPool()
	for i, der := range x5c {
		var err error
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			return nil, errors.New("a certificate of the attestation cannot be read")
		}
		if i > 0 {
			above.AddCert(certs[i])
		}
	}
	if certs[0].IsCA {
		return nil, errors.New("the attested key's certificate is a certification authority's")
	}
	found, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: above, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return nil, errors.New("the attestation's certificates do not lead to a root that is trusted")
	}
	describes := func(x pkix.Extension) bool { return x.Id.Equal(description) }
	for _, chain := range found {
		if len(chain) < 2 || len(chain) < len(certs) || len(chain) > len(certs)+1 ||
			!slices.EqualFunc(chain[:len(certs)], certs, func(x, y *x509.Certificate) bool { return bytes.Equal(x.Raw, y.Raw) }) {
			continue
		}
		if slices.ContainsFunc(chain[1:], func(c *x509.Certificate) bool { return slices.ContainsFunc(c.Extensions, describes) }) {
			return nil, errors.New("the attestation is signed by a key that was attested itself")
		}
		return chain, nil
	}
	return nil, errors.New("the attestation's certificates are not one chain, in order")
}

// A statusList is the maker's list of attestation keys that are not to be believed, or not for now, in the format of Google's
// "attestation/status": JSON with an object entries, whose names are serial numbers in hexadecimal. Who is on it is refused,
// whatever its status says. The file is read again when it was replaced. It is safe for concurrent use.
type statusList struct {
	path   string
	maxAge time.Duration
	now    func() time.Time

	mu      sync.Mutex
	read    os.FileInfo // of the file that entries are from; nil before
	entries map[string]bool
}

const (
	maxStatusList = 32 << 20    // octets
	maxAhead      = time.Minute // that a file's clock may be ahead of ours
)

// check refuses chains that go through a certificate on the list. Its problem is Unavailable when there is no list that counts.
func (l *statusList) check(chain []*x509.Certificate) error {
	entries, err := l.current()
	if err != nil {
		return jpki.WrapError(jpki.Unavailable, err, "the list of revoked attestation keys is missing or too old")
	}
	for _, c := range chain {
		if entries[c.SerialNumber.Text(16)] {
			return errors.New("a key of the attestation is on its maker's list of revoked keys")
		}
	}
	return nil
}

// current returns the list as it is now, which nobody changes.
func (l *statusList) current() (map[string]bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	is, err := os.Stat(l.path)
	if err != nil {
		return nil, err
	}
	if age := l.now().Sub(is.ModTime()); age > l.maxAge || age < -maxAhead {
		return nil, fmt.Errorf("the status list is from %s", is.ModTime().UTC().Format(time.RFC3339))
	}
	if l.read != nil && os.SameFile(l.read, is) && l.read.ModTime().Equal(is.ModTime()) && l.read.Size() == is.Size() {
		return l.entries, nil
	}
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if is, err = f.Stat(); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxStatusList+1))
	if err != nil {
		return nil, err
	}
	entries, err := parseStatusList(text)
	if err != nil {
		return nil, err
	}
	l.read, l.entries = is, entries
	return entries, nil
}

// parseStatusList reads a status list. A name that is no serial number spoils it: what was meant by it would be let in.
func parseStatusList(text []byte) (map[string]bool, error) {
	var list struct {
		Entries map[string]struct {
			Status string `json:"status"`
		} `json:"entries"`
	}
	if len(text) > maxStatusList {
		return nil, errors.New("the status list is too large")
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("read status list: %w", err)
	}
	if list.Entries == nil {
		return nil, errors.New("the status list has no entries")
	}
	out := make(map[string]bool, len(list.Entries))
	for name, entry := range list.Entries {
		n, ok := new(big.Int).SetString(name, 16)
		if !ok || n.Sign() < 0 || strings.ContainsAny(name, "+-_") || entry.Status == "" {
			return nil, fmt.Errorf("the status list has the entry %q", name)
		}
		out[n.Text(16)] = true
	}
	return out, nil
}

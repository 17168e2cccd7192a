package ocspload

import (
	"bufio"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/openjpki/jpki/ocsp"
)

// A Mix says what a set of requests is made of. Shares are 0 to 1.
type Mix struct {
	Count  int                     // how many requests; 0 means one for each target
	GET    float64                 // share sent by GET, the rest by POST
	Nonce  float64                 // share of the POSTs with a nonce, fresh each time it is sent
	Hashes map[crypto.Hash]float64 // share of each algorithm for CertIDs; empty means SHA-256
	Seed   uint64                  // the same seed mixes the same way
}

// nonceBytes is what RFC 9654 §2.1 wants of clients.
const nonceBytes = 32

// A message is one HTTP request, ready to be sent.
type message struct {
	octets  []byte
	der     []byte // of the OCSP request: the end of octets for a POST
	nonce   int    // where the nonce begins in octets; 0 for none
	target  int32
	expect  byte   // tag of the CertStatus expected: 0x80 good, 0xa1 revoked, 0x82 unknown, 0 any
	integer []byte // the serial number's INTEGER, as it stands in front of the CertStatus
}

// A Set is requests made before the clock starts.
type Set struct {
	host     string
	targets  []Target
	messages []message
}

// Len returns how many requests the set has.
func (s *Set) Len() int { return len(s.messages) }

// NewSet writes the requests of a mix for the responder at an http URL. Each target gets as many as every other, in random
// order.
func NewSet(address string, targets []Target, mix Mix) (*Set, error) {
	at, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, err
	case at.Scheme != "http" || at.Hostname() == "":
		return nil, errors.New("the responder's address is not one of http")
	case len(targets) == 0:
		return nil, errors.New("there is no certificate to ask about")
	case mix.GET < 0 || mix.GET > 1 || mix.Nonce < 0 || mix.Nonce > 1 || mix.Count < 0:
		return nil, errors.New("shares are between 0 and 1, and the count is not negative")
	}
	s := &Set{host: at.Host, targets: targets}
	if at.Port() == "" {
		s.host = at.Hostname() + ":80"
	}
	if mix.Count == 0 {
		mix.Count = len(targets)
	}
	draw := rand.New(rand.NewPCG(mix.Seed, 1)) //nolint:gosec // what is mixed is no secret
	order := draw.Perm(len(targets))
	s.messages = make([]message, mix.Count)
	for i := range s.messages {
		which := order[i%len(order)]
		m, err := newMessage(at, targets[which], mix, draw)
		if err != nil {
			return nil, fmt.Errorf("write a request: %w", err)
		}
		m.target = int32(which)
		s.messages[i] = m
	}
	draw.Shuffle(len(s.messages), func(i, j int) { s.messages[i], s.messages[j] = s.messages[j], s.messages[i] })
	return s, nil
}

// newMessage draws what kind of request it will be, and writes it.
func newMessage(at *url.URL, t Target, mix Mix, draw *rand.Rand) (message, error) {
	get := draw.Float64() < mix.GET
	var nonce []byte
	if !get && draw.Float64() < mix.Nonce {
		nonce = make([]byte, nonceBytes)
	}
	q, err := ocsp.NewRequest(t.Issuer, drawHash(mix.Hashes, draw.Float64()), nonce, t.Serial)
	if err != nil {
		return message{}, err
	}
	der, err := q.Marshal()
	if err != nil {
		return message{}, err
	}
	m := message{integer: integer(t), expect: map[State]byte{Good: tagGood, Suspended: tagRevoked, Revoked: tagRevoked, Unknown: tagUnknown}[t.State]}
	path := at.EscapedPath()
	if get {
		m.octets = fmt.Appendf(nil, "GET %s/%s HTTP/1.1\r\nHost: %s\r\n\r\n", strings.TrimSuffix(path, "/"), url.QueryEscape(base64.StdEncoding.EncodeToString(der)), at.Host)
		m.der = der
		return m, nil
	}
	if path == "" {
		path = "/"
	}
	m.octets = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n", path, at.Host, len(der))
	m.octets = append(m.octets, der...)
	m.der = m.octets[len(m.octets)-len(der):]
	if nonce != nil {
		m.nonce = len(m.octets) - nonceBytes // it is what ends the request
	}
	return m, nil
}

// The tags of CertStatus (RFC 6960 §4.2.1).
const (
	tagGood    = 0x80
	tagRevoked = 0xa1
	tagUnknown = 0x82
)

// integer returns the DER of a serial number.
func integer(t Target) []byte {
	b := t.Serial.Bytes()
	if b[0] >= 0x80 {
		b = append([]byte{0}, b...)
	}
	return append([]byte{0x02, byte(len(b))}, b...)
}

// drawHash picks an algorithm by its share; x is between 0 and 1.
func drawHash(shares map[crypto.Hash]float64, x float64) crypto.Hash {
	sum := 0.0
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384} {
		sum += shares[h]
	}
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384} {
		if x -= shares[h] / sum; sum > 0 && x < 0 {
			return h
		}
	}
	return crypto.SHA256
}

// WriteFiles writes the set's OCSP requests into a folder in the forms that other load generators read: requests.bin (two
// octets of length, big-endian, and the DER), requests.b64 (a base64 a line, not escaped) and serials.txt (hexadecimal, lower
// case, 32 digits). Requests with a nonce have zeros there.
func (s *Set) WriteFiles(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for name, write := range map[string]func(io.Writer, *message){
		"requests.bin": func(w io.Writer, m *message) {
			_, _ = w.Write([]byte{byte(len(m.der) >> 8), byte(len(m.der))})
			_, _ = w.Write(m.der)
		},
		"requests.b64": func(w io.Writer, m *message) { fmt.Fprintln(w, base64.StdEncoding.EncodeToString(m.der)) },
		"serials.txt":  func(w io.Writer, m *message) { fmt.Fprintf(w, "%032x\n", s.targets[m.target].Serial.Big()) },
	} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		w := bufio.NewWriterSize(f, 1<<20)
		for i := range s.messages {
			write(w, &s.messages[i])
		}
		if err := errors.Join(w.Flush(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

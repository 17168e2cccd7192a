package conformance

import (
	"crypto"
	_ "crypto/md5"  //nolint:gosec // a hash that some responders know, to see that it does no harm
	_ "crypto/sha1" //nolint:gosec // RFC 5019 fixed SHA-1 for CertIDs: a name, not a proof
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/openjpki/jpki"
)

// A template is a request with variables: hexadecimal octets, TT{…} for an element with tag TT whose DER length is that of
// what stands in it, $name for a variable, N* for N times what follows, # for a comment to the end of the line.
type template struct{ nodes []node }

type node struct {
	octets   []byte // literal, or the tag of an element
	variable string
	inner    []node
	element  bool
	times    int // 0 means once
}

// The bounds of what a template can ask for.
const (
	maxDepth = 64
	maxTimes = 10_000
	maxFill  = 4 << 20
)

func parseTemplate(text string) (*template, error) {
	var plain strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		plain.WriteString(strings.NewReplacer("{", " { ", "}", " } ").Replace(line) + " ")
	}
	words := strings.Fields(plain.String())
	nodes, rest, err := parseNodes(words, 0)
	if err == nil && len(rest) > 0 {
		err = errors.New("} without {")
	}
	return &template{nodes}, err
}

func parseNodes(words []string, depth int) (out []node, rest []string, err error) {
	if depth > maxDepth {
		return nil, nil, errors.New("nested too deep")
	}
	for times := 0; len(words) > 0 && words[0] != "}"; {
		word := words[0]
		words = words[1:]
		if n, ok := strings.CutSuffix(word, "*"); ok {
			if times, err = strconv.Atoi(n); err != nil || times < 1 || times > maxTimes {
				return nil, nil, fmt.Errorf("%q is no number of times", word)
			}
			continue
		}
		if name, ok := strings.CutPrefix(word, "$"); ok {
			out, times = append(out, node{variable: name, times: times}), 0
			continue
		}
		octets, err := hex.DecodeString(word)
		if err != nil || len(octets) == 0 {
			return nil, nil, fmt.Errorf("%q is neither octets nor a variable", word)
		}
		n := node{octets: octets, times: times}
		times = 0
		if len(words) > 0 && words[0] == "{" {
			n.element = true
			if n.inner, words, err = parseNodes(words[1:], depth+1); err != nil {
				return nil, nil, err
			}
			if len(words) == 0 {
				return nil, nil, errors.New("{ without }")
			}
			words = words[1:]
		}
		out = append(out, n)
	}
	return out, words, nil
}

// fill returns the octets with every variable put in.
func (t *template) fill(value func(name string) ([]byte, error)) ([]byte, error) {
	return fillNodes(nil, t.nodes, value)
}

func fillNodes(out []byte, nodes []node, value func(string) ([]byte, error)) ([]byte, error) {
	for _, n := range nodes {
		begin := len(out)
		switch {
		case n.variable != "":
			v, err := value(n.variable)
			if err != nil {
				return nil, err
			}
			out = append(out, v...)
		case n.element:
			inner, err := fillNodes(nil, n.inner, value)
			if err != nil {
				return nil, err
			}
			out = append(appendLength(append(out, n.octets...), len(inner)), inner...)
		default:
			out = append(out, n.octets...)
		}
		again := out[begin:]
		for range n.times - 1 {
			if out = append(out, again...); len(out) > maxFill {
				return nil, errors.New("request is too long")
			}
		}
	}
	return out, nil
}

// appendLength writes a length as DER has it (X.690 §10.1).
func appendLength(out []byte, n int) []byte {
	switch {
	case n < 0x80:
		return append(out, byte(n))
	case n < 0x100:
		return append(out, 0x81, byte(n))
	case n < 0x10000:
		return append(out, 0x82, byte(n>>8), byte(n))
	}
	return append(out, 0x83, byte(n>>16), byte(n>>8), byte(n))
}

// hashNames are the algorithms a template can name, with the contents of their object identifiers.
var hashNames = []struct {
	name string
	hash crypto.Hash
	oid  asn1.ObjectIdentifier
	der  string
}{
	{"md5", crypto.MD5, asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 5}, "\x2a\x86\x48\x86\xf7\x0d\x02\x05"},
	{"sha1", crypto.SHA1, asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, "\x2b\x0e\x03\x02\x1a"},
	{"sha256", crypto.SHA256, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, "\x60\x86\x48\x01\x65\x03\x04\x02\x01"},
	{"sha384", crypto.SHA384, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, "\x60\x86\x48\x01\x65\x03\x04\x02\x02"},
	{"sha512", crypto.SHA512, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, "\x60\x86\x48\x01\x65\x03\x04\x02\x03"},
}

// hashesOf returns the octets of a hash algorithm's identifier and the hashes of the issuer's name and key.
func hashesOf(issuer *x509.Certificate, name string) (oid, nameHash, keyHash []byte, err error) {
	key, err := keyBits(issuer)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, h := range hashNames {
		if h.name == name {
			sum := func(b []byte) []byte { d := h.hash.New(); d.Write(b); return d.Sum(nil) }
			return []byte(h.der), sum(issuer.RawSubject), sum(key), nil
		}
	}
	return nil, nil, nil, fmt.Errorf("no hash algorithm %q", name)
}

// keyBits returns the contents of a certificate's subjectPublicKey bit string.
func keyBits(c *x509.Certificate) ([]byte, error) {
	var spki struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &spki); err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	return spki.Key.RightAlign(), nil
}

// A filling gives one request's variables their values. Random ones are drawn once for a request.
type filling struct {
	cfg   *Config
	with  map[string]string
	drawn map[string][]byte
}

// value returns what a variable stands for. See kit/README.md.
func (f *filling) value(name string) ([]byte, error) {
	kind, arg, _ := strings.Cut(name, ".")
	switch kind {
	case "oid", "name", "key":
		hash := arg
		if hash == "" {
			hash = f.with["hash"]
		}
		if hash == "" {
			hash = "sha256"
		}
		oid, n, k, err := hashesOf(f.cfg.Issuer, hash)
		return map[string][]byte{"oid": oid, "name": n, "key": k}[kind], err
	case "serial", "serial2":
		which := f.with[kind]
		if which == "" {
			which = "good"
		}
		s, err := f.cfg.serial(which)
		if err != nil {
			return nil, err
		}
		return integer(s), nil
	case "nonce", "random":
		if arg == "" {
			arg = f.with[kind]
		}
		n, err := strconv.Atoi(arg)
		if err != nil || n < 0 || n > maxFill {
			return nil, fmt.Errorf("$%s of %q octets", kind, arg)
		}
		if f.drawn[name] == nil {
			f.drawn[name] = make([]byte, n)
			if _, err := io.ReadFull(f.cfg.Rand, f.drawn[name]); err != nil {
				return nil, err
			}
		}
		return f.drawn[name], nil
	case "fill":
		n, err := strconv.Atoi(arg)
		if err != nil || n < 0 || n > maxFill {
			return nil, fmt.Errorf("$fill of %q octets", arg)
		}
		return []byte(strings.Repeat("\x2a", n)), nil
	}
	return nil, fmt.Errorf("no variable $%s", name)
}

// nonce returns the nonce of the request, nil if it has none.
func (f *filling) nonce() []byte {
	for name, v := range f.drawn {
		if kind, _, _ := strings.Cut(name, "."); kind == "nonce" {
			return v
		}
	}
	return nil
}

// integer returns the contents of a serial number's INTEGER.
func integer(s jpki.Serial) []byte {
	b := s.Bytes()
	if len(b) > 0 && b[0] >= 0x80 {
		b = append([]byte{0}, b...)
	}
	return b
}

package signer

import (
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The protocol. Both sides write frames: a length of four octets, big endian, and as many octets of one message. A client
// numbers its requests as it likes and may have many on their way; answers come in any order. Numbers are big endian.
//
//	request   op(1) id(8) wait(4, milliseconds) purpose(1) scheme(1) hash(1) name-length(1) name digest-length(1) digest
//	response  code(1) id(8) data
//
// Data is a signature (PKCS #1 v1.5, PSS; ECDSA in DER), a SubjectPublicKeyInfo, the usage as JSON, or a sentence about
// what went wrong. A message that is not exactly this ends the connection.
const (
	maxRequest  = 256     // octets of a request, more than any can have
	maxResponse = 1 << 20 // octets of a response: the usage of very many keys
	maxName     = 64      // octets of a key's name
	maxWait     = time.Minute
)

// An Op is what a request asks for.
type Op uint8

// The operations.
const (
	OpSign   Op = 1 // a signature
	OpPublic Op = 2 // the public key
	OpUsage  Op = 3 // the usage record (see Meter); no key is named
	OpReload Op = 4 // keys and rules are read again (see Config); no key is named
)

// A Scheme is a way to sign a digest.
type Scheme uint8

// The schemes.
const (
	PKCS1v15 Scheme = 1 // RSASSA-PKCS1-v1_5 (RFC 8017 §8.2)
	PSS      Scheme = 2 // RSASSA-PSS (RFC 8017 §8.1), MGF1 with the same hash, salt as long as the hash
	ECDSA    Scheme = 3 // FIPS 186-5, as Ecdsa-Sig-Value (RFC 3279 §2.2.3)
)

// A Purpose is what a signature is for, as the peer says. Rules admit peers by purpose; the signer sees a digest only.
type Purpose uint8

// The purposes.
const (
	ForCertificate Purpose = 1
	ForCRL         Purpose = 2
	ForOCSP        Purpose = 3
	ForOther       Purpose = 4 // snapshots, audit records
)

var purposes = map[Purpose]string{ForCertificate: "certificate", ForCRL: "crl", ForOCSP: "ocsp", ForOther: "other"}

// String returns the purpose's name in URIs and configurations.
func (p Purpose) String() string { return purposes[p] }

// ParsePurpose accepts exactly what String returns.
func ParsePurpose(s string) (Purpose, error) {
	for p, name := range purposes {
		if name == s {
			return p, nil
		}
	}
	return 0, fmt.Errorf("purpose %q is none of certificate, crl, ocsp and other", s)
}

// hashes are those that a request may name; their numbers on the wire are TLS's (RFC 5246 §7.4.1.4.1).
var hashes = map[uint8]crypto.Hash{4: crypto.SHA256, 5: crypto.SHA384, 6: crypto.SHA512}

func hashNumber(h crypto.Hash) uint8 {
	for n, known := range hashes {
		if known == h {
			return n
		}
	}
	return 0
}

// A Request is one message to the signer.
type Request struct {
	Op      Op
	ID      uint64
	Wait    time.Duration // how long an answer is worth waiting for: 1 ms to a minute
	Purpose Purpose
	Key     string // letters, digits, "-", "_" and ".", at most 64
	Scheme  Scheme
	Hash    crypto.Hash
	Digest  []byte // as long as Hash says
}

// A Code says how a request ended.
type Code uint8

// The codes.
const (
	OK          Code = 0
	Refused     Code = 1 // no rule admits this peer, key and purpose; also what an unknown key is answered with
	Unsuited    Code = 2 // the key does not sign in this way
	Limited     Code = 3 // beyond the rule's rate
	Busy        Code = 4 // too many of this peer's requests wait already
	Unavailable Code = 5 // nobody could sign before the time was up
	Failed      Code = 6 // the token refused, or what it made does not verify
	Gone        Code = 7 // from a worker: its token is lost and it ends; nothing was signed
)

var codes = [...]string{"ok", "refused", "unsuited", "limited", "busy", "unavailable", "failed", "gone"}

// Error returns the label: a code is an error, which a [Backend] wraps to say how a request ended.
func (c Code) Error() string { return c.String() }

// String returns a label for counts.
func (c Code) String() string {
	if int(c) < len(codes) {
		return codes[c]
	}
	return "unknown"
}

// A Response is one message from the signer.
type Response struct {
	Code Code
	ID   uint64
	Data []byte
}

// ValidName reports whether a key may be called so.
func ValidName(s string) bool {
	for _, r := range []byte(s) {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.') {
			return false
		}
	}
	return len(s) > 0 && len(s) <= maxName
}

// AppendRequest appends a request as a frame. The request must be one that ParseRequest accepts.
func AppendRequest(b []byte, r Request) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(r.Op))
	b = binary.BigEndian.AppendUint64(b, r.ID)
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(r.Wait, time.Millisecond), maxWait)/time.Millisecond))
	b = append(b, byte(r.Purpose), byte(r.Scheme), hashNumber(r.Hash), byte(len(r.Key)))
	b = append(b, r.Key...)
	b = append(b, byte(len(r.Digest)))
	b = append(b, r.Digest...)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

var errRequest = errors.New("not a request")

// ParseRequest parses a frame's message. The result shares its memory.
func ParseRequest(b []byte) (Request, error) {
	if len(b) < 18 || len(b) > maxRequest {
		return Request{}, errRequest
	}
	ms, named := binary.BigEndian.Uint32(b[9:]), int(b[16])
	r := Request{Op: Op(b[0]), ID: binary.BigEndian.Uint64(b[1:]), Wait: time.Duration(ms) * time.Millisecond, Purpose: Purpose(b[13]), Scheme: Scheme(b[14]), Hash: hashes[b[15]]}
	if len(b) < 18+named || len(b) != 18+named+int(b[17+named]) || ms == 0 || r.Wait > maxWait {
		return Request{}, errRequest
	}
	r.Key, r.Digest = string(b[17:17+named]), b[18+named:]
	bare := r.Scheme == 0 && b[15] == 0 && len(r.Digest) == 0
	ok := false
	switch r.Op {
	case OpSign:
		ok = purposes[r.Purpose] != "" && r.Scheme >= PKCS1v15 && r.Scheme <= ECDSA && r.Hash != 0 && len(r.Digest) == r.Hash.Size() && ValidName(r.Key)
	case OpPublic:
		ok = bare && r.Purpose == 0 && ValidName(r.Key)
	case OpUsage, OpReload:
		ok = bare && r.Purpose == 0 && r.Key == ""
	}
	if !ok {
		return Request{}, errRequest
	}
	return r, nil
}

// AppendResponse appends a response as a frame.
func AppendResponse(b []byte, r Response) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(9+len(r.Data)))
	b = append(b, byte(r.Code))
	b = binary.BigEndian.AppendUint64(b, r.ID)
	return append(b, r.Data...)
}

// ParseResponse parses a frame's message. The result shares its memory.
func ParseResponse(b []byte) (Response, error) {
	if len(b) < 9 || len(b) > maxResponse || int(b[0]) >= len(codes) {
		return Response{}, errors.New("not a response")
	}
	return Response{Code: Code(b[0]), ID: binary.BigEndian.Uint64(b[1:]), Data: b[9:]}, nil
}

// readFrame reads one frame's message of at most limit octets, into buf where it fits.
func readFrame(r io.Reader, buf []byte, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || uint64(n) > uint64(limit) {
		return nil, errors.New("a frame is longer than admitted")
	}
	if cap(buf) < int(n) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err := io.ReadFull(r, buf)
	return buf, err
}

// ReadRequest reads one request. It keeps none of r's memory but what it returns.
func ReadRequest(r io.Reader) (Request, error) {
	b, err := readFrame(r, nil, maxRequest)
	if err != nil {
		return Request{}, err
	}
	return ParseRequest(b)
}

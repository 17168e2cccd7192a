package ocsp

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
	"time"

	"github.com/openjpki/jpki"
)

// A Shelf keeps signed answers. Keys and values are octets that only this package understands; they must not be changed.
//
// Get returns a value that was put under this very key, or false: any trouble is a miss, and it returns when ctx ends.
// Get must not keep key, of which it may make a copy: the octets are used again once it has returned.
// Put may lose what it is given and never blocks; it may keep key and value, which nobody changes any more. ttl is how long the
// value can be of use. Both are called by several
// goroutines at once. What a shelf outside the process returns is believed only after it was verified.
type Shelf interface {
	Get(ctx context.Context, key string) (value []byte, ok bool)
	Put(key string, value []byte, ttl time.Duration)
}

// A key is everything that makes the octets of an answer to a question about one certificate, the times apart: who asks
// whom and how, and what is true. Another version of the status is another key, so that an answer of an earlier version
// is not found, however late somebody put it there.
//
//	offset  octets
//	     0       1  version of this layout
//	     1      24  issuer, both certificates, responder ID and policy: delegate.tag
//	    25       1  hash algorithm of the CertID and form of its parameters
//	    26      21  serial: length and octets, zeros behind
//	    47       8  version of the status
//	    55       1  state
//	    56       1  reason
//	    57       8  since when, Unix seconds; 0 for good, of which no answer says it
type key [keySize]byte

const (
	keySize    = 65
	keyLayout  = 1
	nearLayout = 1
	farLayout  = 2
	timesSize  = 3 * 8
	macSize    = sha256.Size
)

// state numbers are written into keys: never renumber them.
func stateNumber(s jpki.State) byte {
	switch s {
	case jpki.Good:
		return 1
	case jpki.Suspended:
		return 2
	case jpki.Revoked:
		return 3
	}
	return 0
}

func (k *key) set(d *delegate, form byte, serial []byte, st *jpki.Status) {
	k[0] = keyLayout
	copy(k[1:25], d.tag[:])
	k[25], k[26] = form, byte(len(serial))
	copy(k[27:47], serial)
	binary.BigEndian.PutUint64(k[47:], uint64(st.Version))
	k[55], k[56] = stateNumber(st.State), byte(st.Reason)
	if st.State != jpki.Good {
		binary.BigEndian.PutUint64(k[57:], uint64(st.Since.Unix()))
	}
}

// A kept answer is a value of a shelf taken apart. Its slices alias the value.
//
//	in the process:  1, key, times, length of head (2 octets), head, response
//	outside:         2, key, times, response, MAC (32 octets)
//
// The times are thisUpdate, nextUpdate and producedAt, as Unix seconds of 8 octets each.
type kept struct {
	thisUpdate, nextUpdate, producedAt int64
	head, body                         []byte
	value                              []byte // the whole, in the form for the process
}

func (k *key) start(dst []byte, layout byte, x *answers) []byte {
	dst = append(dst, layout)
	dst = append(dst, k[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(x.list[0].ThisUpdate.Unix()))
	dst = binary.BigEndian.AppendUint64(dst, uint64(x.list[0].NextUpdate.Unix()))
	return binary.BigEndian.AppendUint64(dst, uint64(x.producedAt.Unix()))
}

// near returns the value for shelves in the process.
func (k *key) near(x *answers, head, body []byte) []byte {
	v := make([]byte, 0, 1+keySize+timesSize+2+len(head)+len(body))
	v = k.start(v, nearLayout, x)
	v = binary.BigEndian.AppendUint16(v, uint16(len(head)))
	return append(append(v, head...), body...)
}

// far returns the value for shelves outside the process.
func (k *key) far(x *answers, body []byte, macs *macs) []byte {
	v := make([]byte, 0, 1+keySize+timesSize+len(body)+macSize)
	v = append(k.start(v, farLayout, x), body...)
	return macs.append(v, v)
}

// open reads what comes first in both forms and returns the rest; false for what was put under another key.
func (k *key) open(value []byte, layout byte) (out kept, rest []byte, ok bool) {
	if len(value) < 1+keySize+timesSize || value[0] != layout || string(value[1:1+keySize]) != string(k[:]) {
		return out, nil, false
	}
	rest = value[1+keySize:]
	out.thisUpdate = int64(binary.BigEndian.Uint64(rest))
	out.nextUpdate = int64(binary.BigEndian.Uint64(rest[8:]))
	out.producedAt = int64(binary.BigEndian.Uint64(rest[16:]))
	return out, rest[timesSize:], true
}

// openNear reads a value that this process made.
func (k *key) openNear(value []byte) (out kept, ok bool) {
	out, rest, ok := k.open(value, nearLayout)
	if !ok || len(rest) < 2 {
		return out, false
	}
	n := int(binary.BigEndian.Uint16(rest))
	if len(rest) < 2+n {
		return out, false
	}
	out.head, out.body, out.value = rest[2:2+n:2+n], rest[2+n:], value
	return out, true
}

// openFar reads a value that anybody may have made. The MAC says that a responder with our secret made it and under which
// key; who has no secret checks the signature in its place. That it says what is true now is checked in any case.
func (k *key) openFar(value []byte, d *delegate, x *answers, macs *macs) (out kept, ok bool) {
	out, rest, ok := k.open(value, farLayout)
	if !ok || len(rest) < macSize {
		return out, false
	}
	body, mac := rest[:len(rest)-macSize], rest[len(rest)-macSize:]
	if macs != nil && !macs.verify(value[:len(value)-macSize], mac) {
		return out, false
	}
	x.producedAt = time.Unix(out.producedAt, 0).UTC()
	x.list[0].ThisUpdate, x.list[0].NextUpdate = time.Unix(out.thisUpdate, 0).UTC(), time.Unix(out.nextUpdate, 0).UTC()
	d.complete(x)
	if len(body) > MaxResponseBytes || out.producedAt < out.thisUpdate || d.confirm(&Response{Raw: body}, x, macs == nil) != nil {
		return out, false
	}
	out.body = body
	return out, true
}

// macs authenticates values by HMAC-SHA-256 under one secret.
type macs struct{ pool sync.Pool }

func newMACs(secret []byte) *macs {
	secret = append([]byte("jpki/ocsp shelf\x00"), secret...) // so that the secret may be shared with other uses
	return &macs{sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }}}
}

func (m *macs) append(dst, data []byte) []byte {
	if m == nil {
		return append(dst, make([]byte, macSize)...)
	}
	h := m.pool.Get().(hash.Hash)
	defer m.pool.Put(h)
	h.Reset()
	h.Write(data)
	return h.Sum(dst)
}

func (m *macs) verify(data, mac []byte) bool {
	var sum [macSize]byte
	return hmac.Equal(m.append(sum[:0], data), mac)
}

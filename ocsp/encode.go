package ocsp

import (
	"time"

	"github.com/openjpki/jpki"
)

// The identifier octets of what we write and of the one kind of request that is read by hand.
const (
	tagInteger  = 0x02
	tagBits     = 0x03
	tagOctets   = 0x04
	tagOID      = 0x06
	tagEnum     = 0x0a
	tagIA5      = 0x16
	tagTime     = 0x18
	tagSequence = 0x30
	tagImplicit = 0x80 // [0] IMPLICIT of a primitive
	tagExplicit = 0xa0 // [0] EXPLICIT
	timeOctets  = 15   // YYYYMMDDhhmmssZ
)

// A backwards writer writes DER from the end to the beginning: what is inside is there before its length is written, so
// nothing is moved and nothing is computed twice.
type backwards struct {
	b []byte
	i int // b[i:] is written
}

func newBackwards(room int) *backwards { return &backwards{b: make([]byte, room), i: room} }

func (w *backwards) len() int      { return len(w.b) - w.i }
func (w *backwards) bytes() []byte { return w.b[w.i:] }

// grow makes room for n octets before what is written.
func (w *backwards) grow(n int) {
	if n <= w.i {
		return
	}
	b := make([]byte, 2*len(w.b)+n)
	i := len(b) - w.len()
	copy(b[i:], w.bytes())
	w.b, w.i = b, i
}

func (w *backwards) raw(p []byte) {
	w.grow(len(p))
	w.i -= copy(w.b[w.i-len(p):], p)
}

func (w *backwards) text(s string) {
	w.grow(len(s))
	w.i -= copy(w.b[w.i-len(s):], s)
}

// wrap puts a header before what was written since the length was mark.
func (w *backwards) wrap(tag byte, mark int) {
	n := w.len() - mark
	w.grow(6)
	switch {
	case n < 0x80:
		w.i--
		w.b[w.i] = byte(n)
	case n < 0x100:
		w.i -= 2
		w.b[w.i], w.b[w.i+1] = 0x81, byte(n)
	case n < 0x10000:
		w.i -= 3
		w.b[w.i], w.b[w.i+1], w.b[w.i+2] = 0x82, byte(n>>8), byte(n)
	default:
		w.i -= 4
		w.b[w.i], w.b[w.i+1], w.b[w.i+2], w.b[w.i+3] = 0x83, byte(n>>16), byte(n>>8), byte(n)
	}
	w.i--
	w.b[w.i] = tag
}

func (w *backwards) element(tag byte, contents []byte) {
	mark := w.len()
	w.raw(contents)
	w.wrap(tag, mark)
}

// time writes a GeneralizedTime to the second (X.690 §11.7).
func (w *backwards) time(t time.Time) {
	w.grow(timeOctets + 2)
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	w.i -= timeOctets + 2
	b := w.b[w.i : w.i+timeOctets+2]
	b[0], b[1], b[timeOctets+1] = tagTime, timeOctets, 'Z'
	digits(b[2:4], year/100)
	digits(b[4:6], year%100)
	digits(b[6:8], int(month))
	digits(b[8:10], day)
	digits(b[10:12], hour)
	digits(b[12:14], minute)
	digits(b[14:16], second)
}

func digits(b []byte, n int) { b[0], b[1] = byte('0'+n/10%10), byte('0'+n%10) }

// writable reports whether a GeneralizedTime can say t.
func writable(t time.Time) bool { y := t.UTC().Year(); return y >= 0 && y <= 9999 }

// extension writes an Extension that is not critical around what was written since the length was mark.
func (w *backwards) extension(oid string, mark int) {
	w.wrap(tagOctets, mark)
	inner := w.len()
	w.text(oid)
	w.wrap(tagOID, inner)
	w.wrap(tagSequence, mark)
}

// answer writes a SingleResponse. The reason unspecified is left out, as RFC 5280 §5.3.1 asks for CRLs.
func (w *backwards) answer(a *Answer) {
	whole := w.len()
	if !a.ArchiveCutoff.IsZero() {
		mark := w.len()
		w.time(a.ArchiveCutoff)
		w.extension(oidCutoff, mark)
	}
	if a.CRL != "" {
		mark := w.len()
		w.text(a.CRL)
		w.wrap(tagIA5, mark)
		w.wrap(tagExplicit, mark)
		w.wrap(tagSequence, mark)
		w.extension(oidCRL, mark)
	}
	if w.len() > whole {
		w.wrap(tagSequence, whole)
		w.wrap(tagExplicit+1, whole)
	}
	mark := w.len()
	w.time(a.NextUpdate)
	w.wrap(tagExplicit, mark)
	w.time(a.ThisUpdate)
	mark = w.len()
	switch {
	case a.Revoked:
		if a.Reason != jpki.Unspecified {
			w.element(tagEnum, []byte{byte(a.Reason)})
			w.wrap(tagExplicit, mark)
		}
		w.time(a.RevokedAt)
		w.wrap(tagExplicit+1, mark)
	case a.Unknown:
		w.wrap(tagImplicit+2, mark)
	default:
		w.wrap(tagImplicit, mark)
	}
	w.raw(a.CertID.Raw)
	w.wrap(tagSequence, whole)
}

// responseData writes what is signed.
func (w *backwards) responseData(responderID []byte, x *answers) {
	whole := w.len()
	if x.extended {
		mark := w.len()
		w.raw([]byte{5, 0})
		w.extension(oidExtended, mark)
	}
	if x.nonce != nil {
		mark := w.len()
		w.element(tagOctets, x.nonce)
		w.extension(oidNonce, mark)
	}
	if w.len() > whole {
		w.wrap(tagSequence, whole)
		w.wrap(tagExplicit+1, whole)
	}
	mark := w.len()
	for i := len(x.list) - 1; i >= 0; i-- {
		w.answer(&x.list[i])
	}
	w.wrap(tagSequence, mark)
	w.time(x.producedAt)
	w.raw(responderID)
	w.wrap(tagSequence, whole)
}

// response writes an OCSPResponse around what was signed. The signature's AlgorithmIdentifier and the embedded certificates
// are ready-made.
func (w *backwards) response(tbs, algorithm, signature, certs []byte) {
	w.raw(certs)
	mark := w.len()
	w.raw(signature)
	w.raw([]byte{0})
	w.wrap(tagBits, mark)
	w.raw(algorithm)
	w.raw(tbs)
	w.wrap(tagSequence, 0)
	w.wrap(tagOctets, 0)
	mark = w.len()
	w.text(oidBasic)
	w.wrap(tagOID, mark)
	w.wrap(tagSequence, 0)
	w.wrap(tagExplicit, 0)
	w.raw([]byte{tagEnum, 1, byte(Successful)})
	w.wrap(tagSequence, 0)
}

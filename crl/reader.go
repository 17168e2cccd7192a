package crl

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// Limits on what is read. Beside them a list may be as long as its outermost length can say in four octets, 4 GiB.
const (
	readBuffer       = 64 << 10
	maxReadHead      = 16 << 10 // before the entries: there is nothing longer than the issuer's name
	maxReadEntry     = 4 << 10  // one entry: foreign ones may have extensions of their own
	maxReadTail      = 32 << 10 // crlExtensions
	maxReadSignature = 4 << 10  // what follows the signed part
)

// ErrSignature is the reason why a list was refused if its octets are not what the issuer's key has signed.
var ErrSignature = errors.New("the signature is wrong")

// ErrIndirect is the reason why an indirect list was refused: its entries may be other issuers' (RFC 5280 §5.2.5, §5.3.3).
var ErrIndirect = errors.New("an indirect CRL, which may list other issuers' certificates, is not read")

// Read reads a complete or delta CRL in DER and gives every entry to visit, which may be nil. What was visited counts only
// once Read returns without an error: the signature comes last. It shares nothing with [Build], needs the same memory for
// lists of any length and allocates nothing for an entry. Steps:
//  1. the lengths of the whole and of the signed part
//  2. what stands before the entries; the algorithm says how the signed part is hashed while it passes
//  3. the entries
//  4. the extensions, of which none that is critical may be unknown
//  5. the signature, after which nothing may follow
//  6. that name and key are the issuer's, and the signature
//
// A list is refused for the first thing that is not DER, not as RFC 5280 §5 demands, beyond a limit, or not understood: of
// version 1, indirect, with a serial that is none of ours (see [jpki.Serial]), with an algorithm other than RSA or ECDSA with SHA-256, -384 or -512.
func Read(r io.Reader, issuer *x509.Certificate, visit func(Entry) error) (*Head, error) {
	if visit == nil {
		return readVerified(r, issuer, false, nil)
	}
	// What was just put together lies in the processor's queues, from where it is slow to copy: each entry is visited once the next one
	// has been read.
	var two [2]Entry
	n := 0
	head, err := readVerified(r, issuer, false, func(e *rawEntry) error {
		entry := &two[n&1]
		n++
		if err := entry.Serial.SetBytes(e.serial); err != nil {
			return err
		}
		entry.At, entry.Reason = time.Unix(e.at, 0).UTC(), e.reason
		if n == 1 {
			return nil
		}
		return visit(two[n&1])
	})
	if err != nil {
		return nil, err
	}
	if n > 0 {
		if err := visit(two[(n-1)&1]); err != nil {
			return nil, fmt.Errorf("read CRL: %w", err)
		}
	}
	return head, nil
}

// Lookup is [Read] for whoever asks about one certificate only and keeps nothing. Of other entries it reads what could
// forbid the use of the list, their critical extensions, but not the times; the head does not say whether they ascend.
func Lookup(r io.Reader, issuer *x509.Certificate, serial jpki.Serial) (entry Entry, found bool, head *Head, err error) {
	var octets [20]byte
	want := numberOf(serial.Append(octets[:0]))
	head, err = readVerified(r, issuer, true, func(e *rawEntry) (err error) {
		if e.number != want {
			return nil
		}
		if found {
			return fmt.Errorf("entry %s is there twice", serial)
		}
		var hit rawEntry
		if _, err = hit.decode(e.whole); err == nil {
			entry, err = hit.entry()
		}
		found = true
		return err
	})
	if err != nil {
		return Entry{}, false, nil, err
	}
	return entry, found, head, nil
}

func readVerified(r io.Reader, issuer *x509.Certificate, lazy bool, visit func(*rawEntry) error) (*Head, error) {
	if issuer == nil {
		return nil, errors.New("read CRL: no issuer's certificate")
	}
	s := newSource(r)
	head, err := s.list(issuer, lazy, visit, func(alg readAlgorithm, digest, signature []byte) error {
		return alg.verify(issuer.PublicKey, digest, signature)
	})
	if err != nil {
		return nil, fmt.Errorf("read CRL: %w", err)
	}
	return head, nil
}

// A source is a list on its way through a buffer. What leaves the buffer goes through the hash, from mark on.
type source struct {
	r          io.Reader
	buf        []byte
	start, end int       // what was not yet taken
	base       int64     // where in the list buf begins
	mark       int       // first octet to be hashed, kept until it is; -1 if none is
	hash       hash.Hash // nil until it is known
	eof        bool
}

func newSource(r io.Reader) *source { return &source{r: r, buf: make([]byte, readBuffer), mark: -1} }

func (s *source) pos() int64 { return s.base + int64(s.start) }

// peek returns the next n octets without taking them; n is at most the buffer's length.
func (s *source) peek(n int) ([]byte, error) {
	if err := s.fill(n); err != nil {
		return nil, err
	}
	return s.buf[s.start : s.start+n], nil
}

// fill makes sure that n octets are there to be taken, and reads as many more as there is room for.
func (s *source) fill(n int) error {
	if s.end-s.start >= n {
		return nil
	}
	if s.hash != nil {
		s.digest()
	}
	keep := s.start
	if s.mark >= 0 {
		keep, s.mark = s.mark, 0
	}
	copy(s.buf, s.buf[keep:s.end])
	s.base += int64(keep)
	s.end -= keep
	s.start -= keep
	for empty := 0; s.end-s.start < n && !s.eof; {
		got, err := s.r.Read(s.buf[s.end:])
		s.end += got
		switch {
		case errors.Is(err, io.EOF):
			s.eof = true
		case err != nil:
			return err
		case got == 0:
			if empty++; empty == 100 {
				return io.ErrNoProgress
			}
		}
	}
	if s.end-s.start < n {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// digest hashes what was taken.
func (s *source) digest() {
	_, _ = s.hash.Write(s.buf[s.mark:s.start])
	s.mark = s.start
}

// header takes the tag and the length of an element whose contents lie in the next most octets.
func (s *source) header(most int64) (tag byte, length int64, err error) {
	b, err := s.peek(int(min(most, 2)))
	if err != nil {
		return 0, 0, err
	}
	if len(b) < 2 {
		return 0, 0, errDER
	}
	tag, length = b[0], int64(b[1])
	n := 2
	if length >= 0x80 {
		octets := int(length & 0x7f)
		if octets < 1 || octets > 4 || most < int64(2+octets) {
			return 0, 0, errDER
		}
		if b, err = s.peek(2 + octets); err != nil {
			return 0, 0, err
		}
		length = 0
		for _, c := range b[2:] {
			length = length<<8 | int64(c)
		}
		if length < 0x80 || b[2] == 0 { // DER has the shortest form only
			return 0, 0, errDER
		}
		n += octets
	}
	if int64(n)+length > most {
		return 0, 0, errDER
	}
	s.start += n
	return tag, length, nil
}

var errDER = errors.New("not DER")

// longest is what four octets of length and their header can say.
const longest = 6 + 1<<32 - 1

func (s *source) list(issuer *x509.Certificate, lazy bool, visit func(*rawEntry) error, verify func(alg readAlgorithm, digest, signature []byte) error) (*Head, error) {
	const sequence = byte(cryptobyte_asn1.SEQUENCE)
	// 1.
	tag, length, err := s.header(longest)
	if err != nil || tag != sequence {
		return nil, fmt.Errorf("the whole: %w", firstOf(err, errDER))
	}
	end := s.pos() + length
	s.mark = s.start
	tag, length, err = s.header(end - s.pos())
	if err != nil || tag != sequence {
		return nil, fmt.Errorf("the signed part: %w", firstOf(err, errDER))
	}
	signedEnd := s.pos() + length
	// 2.
	b, err := s.peek(int(min(length, maxReadHead)))
	if err != nil {
		return nil, fmt.Errorf("before the entries: %w", err)
	}
	head, algID, n, err := readHead(b)
	if err != nil {
		return nil, fmt.Errorf("before the entries: %w", err)
	}
	alg, err := readAlgorithmOf(algID)
	if err != nil {
		return nil, err
	}
	s.start += n
	s.hash = alg.hash.New()
	// 3.
	removed := false
	if s.pos() < signedEnd {
		if b, err = s.peek(1); err != nil {
			return nil, err
		}
		if b[0] == sequence {
			if _, length, err = s.header(signedEnd - s.pos()); err != nil {
				return nil, fmt.Errorf("the entries: %w", err)
			}
			if length == 0 {
				return nil, errors.New("the entries: none, which must be absent")
			}
			if removed, err = s.entries(head, length, lazy, visit); err != nil {
				return nil, err
			}
		}
	}
	// 4.
	if signedEnd-s.pos() > maxReadTail {
		return nil, errors.New("the extensions: longer than admitted")
	}
	if b, err = s.peek(int(signedEnd - s.pos())); err != nil {
		return nil, fmt.Errorf("the extensions: %w", err)
	}
	if err := head.readExtensions(b); err != nil {
		return nil, fmt.Errorf("the extensions: %w", err)
	}
	if removed && head.Base == nil {
		return nil, errors.New("an entry is removed, which only a delta CRL can do")
	}
	s.start += len(b)
	s.digest()
	digest := s.hash.Sum(nil)
	s.hash, s.mark = nil, -1
	// 5.
	if end-s.pos() > maxReadSignature {
		return nil, errors.New("the signature: longer than admitted")
	}
	if b, err = s.peek(int(end - s.pos())); err != nil {
		return nil, fmt.Errorf("the signature: %w", err)
	}
	s.start += len(b)
	outer := cryptobyte.String(b)
	var outerAlg cryptobyte.String
	var signature []byte
	if !outer.ReadASN1Element(&outerAlg, cryptobyte_asn1.SEQUENCE) || !outer.ReadASN1BitStringAsBytes(&signature) || !outer.Empty() {
		return nil, fmt.Errorf("the signature: %w", errDER)
	}
	if string(outerAlg) != alg.der {
		return nil, errors.New("the signature: of another algorithm than the signed part says")
	}
	signature = bytes.Clone(signature)
	switch err := s.fill(1); {
	case err == nil:
		return nil, errors.New("something follows the list")
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	}
	// 6.
	if err := head.checkIssuer(issuer); err != nil {
		return nil, err
	}
	head.Algorithm = alg.name
	return head, verify(alg, digest, signature)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// entries takes the entries, which are length octets. removed says that one has the reason removeFromCRL.
func (s *source) entries(head *Head, length int64, lazy bool, visit func(*rawEntry) error) (removed bool, err error) {
	var e rawEntry
	var last number
	e.lazy = lazy
	head.Ascending = !lazy
	for left := length; left > 0; {
		if err := s.fill(int(min(left, maxReadEntry))); err != nil {
			return false, fmt.Errorf("entry %d: %w", head.Entries, err)
		}
		b := s.buf[s.start:s.end]
		if int64(len(b)) > left {
			b = b[:left]
		}
		for len(b) >= maxReadEntry || int64(len(b)) == left && left > 0 {
			n := usualOctets
			if !e.usual(b) {
				if n, err = e.decode(b); err != nil {
					return false, fmt.Errorf("entry %d: %w", head.Entries, err)
				}
			}
			if head.Ascending && !last.less(e.number) {
				head.Ascending = false
			}
			last = e.number
			removed = removed || e.reason == jpki.RemoveFromCRL
			head.Entries++
			if visit != nil {
				if err := visit(&e); err != nil {
					return false, err
				}
			}
			b = b[n:]
			s.start += n
			left -= int64(n)
		}
	}
	return removed, nil
}

// A rawEntry is an entry in the buffer.
type rawEntry struct {
	lazy   bool   // decode does not read the time
	whole  []byte // all of it
	serial []byte // without leading zeros, 1 to 20 octets
	number number // serial
	at     int64  // Unix time
	reason jpki.Reason
}

func (e *rawEntry) entry() (Entry, error) {
	serial, err := jpki.SerialFromBytes(e.serial)
	return Entry{Serial: serial, At: time.Unix(e.at, 0).UTC(), Reason: e.reason}, err
}

// A number is a serial in words: of hi the lower half is used.
type number struct{ hi, mid, lo uint64 }

func numberOf(serial []byte) number {
	var b [20]byte
	copy(b[20-len(serial):], serial)
	return number{uint64(binary.BigEndian.Uint32(b[:])), binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint64(b[12:])}
}

func (n number) less(other number) bool {
	return n.hi < other.hi || n.hi == other.hi && (n.mid < other.mid || n.mid == other.mid && n.lo < other.lo)
}

// reasonOnly is how an entry's extensions begin if they are a reasonCode, not critical, and nothing else; its value follows.
const reasonOnly = "\x30\x0c\x30\x0a\x06\x03\x55\x1d\x15\x04\x03\x0a\x01"

// usualOctets is how long nearly all entries are: a serial of 16 octets, UTCTime, reasonCode.
const usualOctets = 49

// usual is decode for entries that look like nearly all, of which there may be millions; false for any other and for what is
// wrong. It looks at several octets at once.
func (e *rawEntry) usual(b []byte) bool {
	const (
		beforeSerial = 0x10<<24 | 2<<16 | (usualOctets-2)<<8 | 0x30
		beforeTime   = 13<<8 | 0x17
		afterTime    = 0x55_03_06_0a_30_0c_30<<8 | 'Z' // and reasonOnly begins
		beforeReason = 0x01_0a_03_04_15_1d_55_03       // reasonOnly ends
	)
	if len(b) < usualOctets {
		return false
	}
	little, big, p := binary.LittleEndian, binary.BigEndian, (*[usualOctets]byte)(b)
	if little.Uint32(p[:]) != beforeSerial || little.Uint16(p[20:]) != beforeTime || little.Uint64(p[34:]) != afterTime || little.Uint64(p[40:]) != beforeReason {
		return false
	}
	reason := jpki.Reason(p[48])
	e.number = number{0, big.Uint64(p[4:]), big.Uint64(p[12:])}
	if reason > 10 || reason == 7 || e.number.mid-1<<56 >= 1<<63-1<<56 { // begins with 0, or negative
		return false
	}
	if !e.lazy {
		// Numbers of two digits each, one in every other octet.
		day, clock := little.Uint64(p[22:])^zeros8, (uint64(little.Uint32(p[30:]))|zeros)^zeros8
		if (day|(day+0x7676767676767676)|clock|(clock+0x7676767676767676))&0x8080808080808080 != 0 {
			return false
		}
		day, clock = day*10+day>>8, clock*10+clock>>8
		year, month, dayOfMonth, hour := int64(day&0xff), day>>16&0xff, int64(day>>32&0xff), int64(day>>48&0xff)
		minute, second := int64(clock&0xff), int64(clock>>16&0xff)
		if year < 50 {
			year += 100
		}
		months := &monthDays[(year&3+3)>>2] // every fourth year from 1950 to 2049 is a leap year
		if month-1 >= 12 || dayOfMonth-1 < 0 || dayOfMonth > int64(months[month]-months[month-1]) || hour > 23 || minute > 59 || second > 59 {
			return false
		}
		days := 365*(year-70) + (year-69)>>2 + int64(months[month-1]) + dayOfMonth - 1
		e.at = ((days*24+hour)*60+minute)*60 + second
	}
	e.whole, e.serial, e.reason = p[:], p[4:20], reason
	return true
}

// monthDays are the days of a year before each month, of a leap year and of another.
var monthDays = [2][16]int16{
	{0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335, 366},
	{0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365},
}

// decode reads the entry at the beginning of b, whatever it looks like, and returns how many octets it has.
func (e *rawEntry) decode(b []byte) (n int, err error) {
	if len(b) < 2 || b[0] != byte(cryptobyte_asn1.SEQUENCE) {
		return 0, errDER
	}
	n = 2 + int(b[1])
	start := 2
	if b[1] >= 0x80 {
		switch {
		case b[1] == 0x81 && len(b) >= 3 && b[2] >= 0x80:
			start, n = 3, 3+int(b[2])
		case b[1] == 0x82 && len(b) >= 4 && b[2] > 0:
			start, n = 4, 4+int(b[2])<<8+int(b[3])
		default:
			return 0, errDER
		}
	}
	if n > maxReadEntry {
		return 0, errors.New("longer than admitted")
	}
	if n > len(b) {
		return 0, errDER
	}
	e.whole = b[:n]
	b = b[start:n]

	if len(b) < 3 || b[0] != byte(cryptobyte_asn1.INTEGER) || b[1] == 0 || len(b) < 2+int(b[1]) {
		return 0, errDER
	}
	serial := b[2 : 2+int(b[1])]
	b = b[2+len(serial):]
	switch {
	case serial[0] >= 0x80:
		return 0, errors.New("its serial is negative")
	case serial[0] == 0 && len(serial) == 1:
		return 0, errors.New("its serial is zero")
	case serial[0] == 0 && serial[1] < 0x80:
		return 0, errDER
	case serial[0] == 0:
		serial = serial[1:]
	}
	if len(serial) > 20 {
		return 0, errors.New("its serial is longer than 20 octets")
	}
	e.serial, e.number = serial, numberOf(serial)

	if e.lazy && len(b) >= 15 && b[0] == byte(cryptobyte_asn1.UTCTime) && b[1] == 13 {
		b = b[15:]
	} else {
		at, used, ok := readTimeOctets(b)
		if !ok {
			return 0, errors.New("its time is not as RFC 5280 §5.1.2.4 says")
		}
		e.at, b = at, b[used:]
	}

	switch {
	case len(b) == 0:
		e.reason = jpki.Unspecified
	case len(b) == len(reasonOnly)+1 && string(b[:len(reasonOnly)]) == reasonOnly:
		e.reason = jpki.Reason(b[len(reasonOnly)])
	default:
		if e.reason, err = readEntryExtensions(b); err != nil {
			return 0, err
		}
	}
	if e.reason > 10 || e.reason == 7 {
		return 0, fmt.Errorf("its reason is %d, which is none", int(e.reason))
	}
	return n, nil
}

// Extensions that are known, by the contents of their identifiers.
const (
	extReasonCode         = "\x55\x1d\x15"
	extInvalidityDate     = "\x55\x1d\x18"
	extCertificateIssuer  = "\x55\x1d\x1d"
	extIssuerAltName      = "\x55\x1d\x12"
	extCRLNumber          = "\x55\x1d\x14"
	extDeltaIndicator     = "\x55\x1d\x1b"
	extIssuingPoint       = "\x55\x1d\x1c"
	extDistributionPoints = "\x55\x1d\x1f"
	extAuthorityKeyID     = "\x55\x1d\x23"
	extFreshest           = "\x55\x1d\x2e"
)

// forExtensions reads a SEQUENCE OF Extension, which is all of b, has one member at least and none twice.
func forExtensions(b []byte, each func(id string, critical bool, value cryptobyte.String) error) error {
	s := cryptobyte.String(b)
	var all cryptobyte.String
	if !s.ReadASN1(&all, cryptobyte_asn1.SEQUENCE) || !s.Empty() || all.Empty() {
		return errDER
	}
	var seen []string
	for !all.Empty() {
		var ext, id, value cryptobyte.String
		if !all.ReadASN1(&ext, cryptobyte_asn1.SEQUENCE) || !ext.ReadASN1(&id, cryptobyte_asn1.OBJECT_IDENTIFIER) || !validOID(id) {
			return errDER
		}
		critical := false
		if ext.PeekASN1Tag(cryptobyte_asn1.BOOLEAN) {
			if !ext.ReadASN1Boolean(&critical) || !critical { // FALSE is the default and must be absent
				return errDER
			}
		}
		if !ext.ReadASN1(&value, cryptobyte_asn1.OCTET_STRING) || !ext.Empty() {
			return errDER
		}
		if slices.Contains(seen, string(id)) {
			return fmt.Errorf("extension %x is there twice", []byte(id))
		}
		seen = append(seen, string(id))
		if len(seen) > 64 {
			return errors.New("more extensions than admitted")
		}
		if err := each(string(id), critical, value); err != nil {
			return err
		}
	}
	return nil
}

// validOID reports whether the contents of an identifier are whole numbers in their shortest form, and none too long.
func validOID(b []byte) bool {
	if len(b) == 0 || b[len(b)-1] >= 0x80 {
		return false
	}
	octets := 0
	for _, c := range b {
		if octets == 0 && c == 0x80 {
			return false
		}
		if octets++; octets > 4 {
			return false
		}
		if c < 0x80 {
			octets = 0
		}
	}
	return true
}

// readEntryExtensions returns the reason that crlEntryExtensions tell.
func readEntryExtensions(b []byte) (reason jpki.Reason, err error) {
	err = forExtensions(b, func(id string, critical bool, value cryptobyte.String) error {
		switch id {
		case extReasonCode:
			var code int
			if !value.ReadASN1Enum(&code) || !value.Empty() || code < 0 || code > 10 {
				return errors.New("its reason is none")
			}
			reason = jpki.Reason(code)
		case extInvalidityDate: // when things went wrong; a status begins with the revocation
		case extCertificateIssuer:
			return ErrIndirect
		default:
			if critical {
				return fmt.Errorf("its critical extension %x is unknown", id)
			}
		}
		return nil
	})
	return reason, err
}

// readTimeOctets reads a time in the one form that RFC 5280 §5.1.2.4 allows for its year, and says how many octets it has.
func readTimeOctets(b []byte) (unix int64, n int, ok bool) {
	if len(b) >= 15 && b[0] == byte(cryptobyte_asn1.UTCTime) && b[1] == 13 {
		year, ok1 := pairs(uint64(binary.LittleEndian.Uint16(b[2:])) | '0'<<16 | '0'<<24 | zeros)
		if year >= 50 {
			year -= 100
		}
		unix, ok2 := readClock(int64(year)+2000, b[4:15])
		return unix, 15, ok1 && ok2
	}
	if len(b) >= 17 && b[0] == byte(cryptobyte_asn1.GeneralizedTime) && b[1] == 15 {
		year, ok1 := pairs(uint64(binary.LittleEndian.Uint32(b[2:])) | zeros)
		year = year&0xff*100 + year>>8&0xff
		unix, ok2 := readClock(int64(year), b[6:17])
		return unix, 17, ok1 && ok2 && year >= 2050
	}
	return 0, 0, false
}

// zeros are four digits that fill up four others to eight.
const (
	zeros  = '0'<<32 | '0'<<40 | '0'<<48 | '0'<<56
	zeros8 = zeros | zeros>>32
)

// pairs reads eight digits at once: the numbers that pairs of them make, one in the lower octet of each.
func pairs(digits uint64) (numbers int, ok bool) {
	d := digits ^ zeros8 // 0 to 9, of digits
	ok = (d|(d+0x7676767676767676))&0x8080808080808080 == 0
	d = d*10 + d>>8
	return int(d&0xff | d>>8&0xff00 | d>>16&0xff0000 | d>>24&0xff000000), ok
}

// readClock reads month to second, and the Z.
func readClock(year int64, b []byte) (unix int64, ok bool) {
	n1, ok1 := pairs(binary.LittleEndian.Uint64(b))
	n2, ok2 := pairs(uint64(binary.LittleEndian.Uint16(b[8:])) | '0'<<16 | '0'<<24 | zeros)
	month, day, hour, minute, second := n1&0xff, n1>>8&0xff, n1>>16&0xff, n1>>24, n2&0xff
	if !ok1 || !ok2 || b[10] != 'Z' || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	leap := year%4 == 0 && (year%100 != 0 || year%400 == 0)
	before, length := int(daysBefore[month-1]), int(daysBefore[month]-daysBefore[month-1])
	switch {
	case leap && month == 2:
		length++
	case leap && month > 2:
		before++
	}
	if day > length {
		return 0, false
	}
	y := year - 1
	days := y*365 + y/4 - y/100 + y/400 + int64(before+day) - 719163 // since 1970-01-01
	return ((days*24+int64(hour))*60+int64(minute))*60 + int64(second), true
}

var daysBefore = [...]int16{0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365}

// A readAlgorithm is how a list may be signed.
type readAlgorithm struct {
	der  string // AlgorithmIdentifier
	hash crypto.Hash
	name x509.SignatureAlgorithm
	rsa  bool
}

// readAlgorithms are RSASSA-PKCS1-v1_5, whose parameters are NULL (RFC 4055 §5), and ECDSA, which has none (RFC 5758 §3.2).
var readAlgorithms = [...]readAlgorithm{
	{"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00", crypto.SHA256, x509.SHA256WithRSA, true},
	{"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00", crypto.SHA384, x509.SHA384WithRSA, true},
	{"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00", crypto.SHA512, x509.SHA512WithRSA, true},
	{"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", crypto.SHA256, x509.ECDSAWithSHA256, false},
	{"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03", crypto.SHA384, x509.ECDSAWithSHA384, false},
	{"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04", crypto.SHA512, x509.ECDSAWithSHA512, false},
}

func readAlgorithmOf(der []byte) (readAlgorithm, error) {
	for _, alg := range readAlgorithms {
		if alg.der == string(der) {
			return alg, nil
		}
	}
	return readAlgorithm{}, errors.New("the algorithm is neither RSA (PKCS #1 v1.5) nor ECDSA with SHA-256, SHA-384 or SHA-512")
}

func (a readAlgorithm) verify(key crypto.PublicKey, digest, signature []byte) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if !a.rsa {
			break
		}
		if k.N.BitLen() < 2048 {
			return errors.New("the issuer's key has less than 2048 bits")
		}
		if rsa.VerifyPKCS1v15(k, a.hash, digest, signature) != nil {
			return ErrSignature
		}
		return nil
	case *ecdsa.PublicKey:
		if a.rsa {
			break
		}
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return errors.New("the issuer's key is on another curve than P-256, P-384 and P-521")
		}
		if !ecdsa.VerifyASN1(k, digest, signature) {
			return ErrSignature
		}
		return nil
	}
	return fmt.Errorf("%w: of another algorithm than the issuer's key", ErrSignature)
}

// readHead reads what stands before the entries and says how many octets that is; b may go on beyond it.
func readHead(b []byte) (head *Head, alg []byte, n int, err error) {
	s := cryptobyte.String(b)
	if !s.PeekASN1Tag(cryptobyte_asn1.INTEGER) {
		return nil, nil, 0, errors.New("version 1, which has no extensions, or not DER")
	}
	version := 0
	var algorithm, issuer cryptobyte.String
	switch {
	case !s.ReadASN1Integer(&version):
		return nil, nil, 0, errDER
	case version != 1:
		return nil, nil, 0, errors.New("a version other than 2")
	case !s.ReadASN1Element(&algorithm, cryptobyte_asn1.SEQUENCE) || !s.ReadASN1Element(&issuer, cryptobyte_asn1.SEQUENCE):
		return nil, nil, 0, errDER
	}
	head = &Head{Issuer: bytes.Clone(issuer)}
	this, used, ok := readTimeOctets(s)
	if !ok {
		return nil, nil, 0, errors.New("thisUpdate is not as RFC 5280 §5.1.2.4 says")
	}
	s.Skip(used)
	head.ThisUpdate = time.Unix(this, 0).UTC()
	if s.PeekASN1Tag(cryptobyte_asn1.UTCTime) || s.PeekASN1Tag(cryptobyte_asn1.GeneralizedTime) {
		next, used, ok := readTimeOctets(s)
		if !ok {
			return nil, nil, 0, errors.New("nextUpdate is not as RFC 5280 §5.1.2.5 says")
		}
		s.Skip(used)
		head.NextUpdate = time.Unix(next, 0).UTC()
	}
	return head, bytes.Clone(algorithm), len(b) - len(s), nil
}

// readNumber reads a cRLNumber: not negative and of at most 20 octets (RFC 5280 §5.2.3).
func readNumber(value cryptobyte.String) (*big.Int, error) {
	n := new(big.Int)
	if !value.ReadASN1Integer(n) || !value.Empty() || n.Sign() < 0 || n.BitLen() > 20*8-1 {
		return nil, errors.New("a number is negative or longer than 20 octets")
	}
	return n, nil
}

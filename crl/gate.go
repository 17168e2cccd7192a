package crl

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// A gateList is a CRL of any size that is read once, from the front: openGateList, nextEntry until there is no more, finishSigned,
// and finish, or sealed if there was no signature before. It takes only what this package publishes, octet for octet, and shares with Build no more than the AlgorithmIdentifiers.
type gateList struct {
	issuer  *x509.Certificate
	scope   Scope
	delta   bool
	old     bool // may have been published before its scope had deltas, or while it had
	trusted bool // was read before and is unchanged: neither hashed nor its signature checked again

	src    io.ReaderAt
	size   int64
	buf    []byte // window of the file that begins at off; at is what was consumed of it
	off    int64
	at     int
	alg    algorithm
	hash   hash.Hash
	hashed int64 // position up to which the hash has seen the file
	start  int64 // of the signed part
	tbsEnd int64

	this, next         time.Time
	bodyStart, bodyEnd int64 // where the entries lie
	entries            int64
	number, base       *big.Int // base: of a delta

	serial  [21]byte // of the last entry, without a leading zero
	serialN int
	revoked gateTime
	reason  byte

	marks  []mark
	markAt int64 // where the next one may be
}

// A mark is where an entry lies among the entries; some are remembered, so that places of others are found without reading them all.
type mark struct {
	at     int64
	serial [20]byte
	n      int
}

const (
	markEvery = 32 << 10 // octets between marks of shorter lists
	mostMarks = 4 << 10  // in longer ones
)

// remember makes a mark of an entry if the last one is far.
func (l *gateList) remember(at int64, serial []byte) {
	if at < l.markAt {
		return
	}
	m := mark{at: at - l.bodyStart}
	m.n = copy(m.serial[:], serial)
	l.marks = append(l.marks, m)
	l.markAt = at + max(markEvery, (l.bodyEnd-l.bodyStart)/mostMarks)
}

// gateTime is a time as digits: YYYYMMDDHHMMSS as a number, which orders like the time.
type gateTime uint64

func gateTimeOf(t time.Time) gateTime {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	n := gateTime(0)
	for _, v := range [...]int{year*100 + int(month), day, hour, minute, second} {
		n = n*100 + gateTime(v)
	}
	return n
}

// maxTail bounds what follows the entries: extensions, algorithm and signature.
const maxTail = 16 << 10

// openGateList reads all that comes before the entries.
func openGateList(src io.ReaderAt, size int64, issuer *x509.Certificate, scope Scope, delta, trusted bool) (*gateList, error) {
	alg, err := algorithmOf(issuer.PublicKey)
	if err != nil {
		return nil, err
	}
	if err := scope.Validate(); err != nil {
		return nil, err
	}
	l := &gateList{issuer: issuer, scope: scope, delta: delta, trusted: trusted, src: src, size: size, alg: alg, hash: alg.hash.New()}
	head, err := l.peek(int(min(size, maxHead)))
	if err != nil {
		return nil, err
	}
	s := cryptobyte.String(head)
	at := func() int64 { return int64(len(head) - len(s)) }
	length, ok := gateSequence(&s)
	switch {
	case !ok || at()+length > size:
		return nil, errors.New("parse: not a CRL, or not all of it")
	case at()+length < size:
		return nil, errors.New("something follows the CRL")
	}
	l.hashed, l.start = at(), at()
	length, ok = gateSequence(&s)
	l.tbsEnd = at() + length
	if !ok || l.tbsEnd > size {
		return nil, errors.New("parse: not a tbsCertList")
	}
	var version int
	var algorithm, name cryptobyte.String
	if !s.ReadASN1Integer(&version) || version != 1 || !s.ReadASN1Element(&algorithm, cryptobyte_asn1.SEQUENCE) || !s.ReadASN1Element(&name, cryptobyte_asn1.SEQUENCE) {
		return nil, errors.New("parse: version, algorithm or issuer")
	}
	if !bytes.Equal(name, issuer.RawSubject) {
		return nil, errors.New("the issuer's name is another")
	}
	if !bytes.Equal(algorithm, alg.identifier) {
		return nil, fmt.Errorf("not signed with %v", alg.name)
	}
	if !readTime(&s, &l.this) || !readTime(&s, &l.next) {
		return nil, errors.New("parse: times")
	}
	l.bodyStart = at()
	if len(s) > 0 && s[0] == tagSequence {
		length, ok = gateSequence(&s)
		if l.bodyStart = at(); !ok || length == 0 {
			return nil, errors.New("parse: revokedCertificates")
		}
		l.bodyEnd = l.bodyStart + length
	} else {
		l.bodyEnd = l.bodyStart
	}
	if l.bodyEnd > l.tbsEnd {
		return nil, errors.New("parse: more entries than octets")
	}
	l.at = int(l.bodyStart)
	return l, nil
}

// gateSequence reads the tag and the length of a SEQUENCE, of which the content may be longer than s.
func gateSequence(s *cryptobyte.String) (length int64, ok bool) {
	var tag, first uint8
	if !s.ReadUint8(&tag) || tag != 0x30 || !s.ReadUint8(&first) {
		return 0, false
	}
	if first < 0x80 {
		return int64(first), true
	}
	n := int(first & 0x7f)
	var octets []byte
	if n == 0 || n > 5 || !s.ReadBytes(&octets, n) || octets[0] == 0 {
		return 0, false
	}
	for _, o := range octets {
		length = length<<8 | int64(o)
	}
	return length, length >= 0x80 // DER: the shortest form
}

// peek returns the next n octets without consuming them.
func (l *gateList) peek(n int) ([]byte, error) {
	if len(l.buf)-l.at < n {
		if err := l.fill(n); err != nil {
			return nil, err
		}
	}
	return l.buf[l.at : l.at+n], nil
}

// fill moves the window so that it begins with what is not consumed and has at least n octets.
func (l *gateList) fill(n int) error {
	l.digest()
	rest := copy(l.buf[:cap(l.buf)], l.buf[l.at:])
	l.off += int64(l.at)
	l.at = 0
	if cap(l.buf) < max(n, bufferSize) {
		grown := make([]byte, max(n, bufferSize))
		copy(grown, l.buf[:rest])
		l.buf = grown
	}
	l.buf = l.buf[:cap(l.buf)]
	want := min(int64(len(l.buf)), l.size-l.off)
	read, err := l.src.ReadAt(l.buf[rest:want], l.off+int64(rest))
	l.buf = l.buf[:rest+read]
	if len(l.buf) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = errors.New("parse: the CRL ends too early")
		}
		return err
	}
	return nil
}

// digest shows the hash what was consumed and is signed.
func (l *gateList) digest() {
	if end := min(l.off+int64(l.at), l.tbsEnd); end > l.hashed && !l.trusted {
		_, _ = l.hash.Write(l.buf[l.hashed-l.off : end-l.off])
		l.hashed = end
	}
}

// maxEntry is the longest entry: serial of 21 octets, GeneralizedTime, reasonCode.
const maxEntry = 2 + 23 + 17 + 14

// entryReason is a crlEntryExtensions with a reasonCode (RFC 5280 §5.3.1), less the reason, its last octet.
const entryReason = "\x30\x0c\x30\x0a\x06\x03\x55\x1d\x15\x04\x03\x0a\x01"

// nextEntry reads one entry; false after the last.
func (l *gateList) nextEntry() (bool, error) {
	left := l.bodyEnd - l.off - int64(l.at)
	if left <= 0 {
		return false, nil
	}
	b, err := l.peek(int(min(left, maxEntry)))
	if err != nil {
		return false, err
	}
	if l.takeUsual(b) {
		return true, nil
	}
	return l.takeAny(b)
}

// takeAny takes the entry that begins with b.
func (l *gateList) takeAny(b []byte) (bool, error) {
	fail := func(what string) (bool, error) { return false, fmt.Errorf("parse: entry %d: %s", l.entries, what) }
	if len(b) < 4 || b[0] != 0x30 || int(b[1]) > len(b)-2 || b[2] != 2 {
		return fail("not a SEQUENCE of a serial, a time and nothing that may be long")
	}
	end, n := 2+int(b[1]), int(b[3])
	b = b[:end]
	l.at += end
	if n == 0 || n > 21 || len(b) < 4+n+2 {
		return fail("serial")
	}
	serial, rest := b[4:4+n], b[4+n:]
	switch {
	case serial[0] >= 0x80:
		return fail("the serial is not positive")
	case serial[0] == 0 && (n == 1 || serial[1] < 0x80):
		return fail("the serial is not positive, or not in its shortest form")
	case serial[0] == 0:
		serial = serial[1:]
	}
	if len(serial) > 20 {
		return fail("the serial is too long")
	}
	if l.entries > 0 && (len(serial) < l.serialN || len(serial) == l.serialN && bytes.Compare(serial, l.serial[:l.serialN]) <= 0) {
		return false, fmt.Errorf("entry %X is there twice or out of order", serial)
	}
	l.serialN = copy(l.serial[:], serial)
	l.remember(l.off+int64(l.at-end), serial)
	timeLength := 2 + int(rest[1])
	if len(rest) < timeLength || !l.readTime(rest[:timeLength]) {
		return fail("time")
	}
	rest = rest[timeLength:]
	switch {
	case len(rest) == 0:
		l.reason = 0
	case len(rest) == len(entryReason)+1 && string(rest[:len(entryReason)]) == entryReason && rest[len(entryReason)] != 0:
		l.reason = rest[len(entryReason)]
	default:
		return false, fmt.Errorf("entry %X has other extensions than its reason", serial)
	}
	if l.reason > byte(jpki.CertificateHold) && (!l.delta || l.reason != byte(jpki.RemoveFromCRL)) {
		return false, fmt.Errorf("entry %X has reason %d", serial, l.reason)
	}
	l.entries++
	return true, nil
}

// takeUsual is takeAny for entries as nearly all are, of which there may be millions: a serial of 16 octets, UTCTime, a reason. Of any other,
// and of what is wrong, it says false and has changed nothing.
func (l *gateList) takeUsual(b []byte) bool {
	const (
		length       = 4 + 16 + 15 + len(entryReason) + 1
		beforeSerial = 0x10<<24 | 2<<16 | (length-2)<<8 | 0x30
	)
	if len(b) < length {
		return false
	}
	little, big := binary.LittleEndian, binary.BigEndian
	b = b[:length]
	first, second, reason := big.Uint64(b[4:]), big.Uint64(b[12:]), b[length-1]
	if little.Uint32(b) != uint32(beforeSerial) || first>>56 == 0 || first>>63 != 0 || reason == 0 || reason > byte(jpki.CertificateHold) || string(b[35:length-1]) != entryReason {
		return false
	}
	x, y := big.Uint64(l.serial[:]), big.Uint64(l.serial[8:])
	if l.serialN > 16 || l.serialN == 16 && (first < x || first == x && second <= y) || !l.readTime(b[20:35]) {
		return false
	}
	big.PutUint64(l.serial[:], first)
	big.PutUint64(l.serial[8:], second)
	l.serialN, l.reason = 16, reason
	if at := l.off + int64(l.at); at >= l.markAt {
		l.remember(at, l.serial[:16])
	}
	l.at += length
	l.entries++
	return true
}

// readTime reads a Time in the form of RFC 5280 §5.1.2.4.
func (l *gateList) readTime(b []byte) bool {
	var century gateTime
	switch {
	case len(b) == 15 && b[0] == 0x17 && b[1] == 13:
		century = 19
		if b[2] < '5' {
			century = 20
		}
	case len(b) == 17 && b[0] == 0x18 && b[1] == 15 && b[2] >= '0' && b[2] <= '9' && b[3] >= '0' && b[3] <= '9':
		century = gateTime(b[2]-'0')*10 + gateTime(b[3]-'0')
	default:
		return false
	}
	rest := b[len(b)-13:]
	date, ok1 := pairs(binary.LittleEndian.Uint64(rest))
	clock, ok2 := pairs(uint64(binary.LittleEndian.Uint32(rest[8:])) | zeros)
	if !ok1 || !ok2 || rest[12] != 'Z' {
		return false
	}
	year, month, day, hour := century*100+gateTime(date&0xff), gateTime(date>>8&0xff), gateTime(date>>16&0xff), gateTime(date>>24)
	minute, second := gateTime(clock&0xff), gateTime(clock>>8&0xff)
	if second > 59 || minute > 59 || hour > 23 || day < 1 || day > daysIn(month, year) || (b[0] == 0x18) != (year >= 2050) {
		return false
	}
	n := ((((year*100+month)*100+day)*100+hour)*100+minute)*100 + second
	l.revoked = n
	return true
}

// daysIn returns how many days a month has, 0 for what is none.
func daysIn(month, year gateTime) gateTime {
	switch month {
	case 1, 3, 5, 7, 8, 10, 12:
		return 31
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 0
}

// sameBlock is how much of two lists is compared at once.
const sameBlock = 16 << 10

// same consumes the entries that two lists have in common, octet for octet, a block at a time; not the
// one of whose last serial stop says so. The other list was read entry by entry when it was published, so that these have been looked at.
func (l *gateList) same(other *gateList, stop func(lastSerial []byte) bool) (bool, error) {
	if min(l.bodyEnd-l.off-int64(l.at), other.bodyEnd-other.off-int64(other.at)) < sameBlock {
		return false, nil
	}
	a, err := l.peek(sameBlock)
	if err != nil {
		return false, err
	}
	b, err := other.peek(sameBlock)
	if err != nil || !bytes.Equal(a, b) {
		return false, err
	}
	end, last, n := 0, 0, int64(0)
	for end+1 < len(a) && end+2+int(a[end+1]) <= len(a) {
		last, n = end, n+1
		end += 2 + int(a[end+1])
	}
	if n == 0 || len(a)-last < 4+int(a[last+3]) {
		return false, nil
	}
	serial := a[last+4 : last+4+int(a[last+3])]
	if serial[0] == 0 {
		serial = serial[1:]
	}
	first := a[4 : 4+int(a[3])]
	if first[0] == 0 {
		first = first[1:]
	}
	if stop(serial) || l.entries > 0 && compare(first, l.serial[:l.serialN]) <= 0 {
		return false, nil
	}
	l.remember(l.off+int64(l.at), first)
	for _, list := range []*gateList{l, other} {
		list.at += end
		list.entries += n
		list.serialN = copy(list.serial[:], serial)
	}
	return true, nil
}

// finishSigned reads what is signed behind the entries, which must all have been read, and ends the hash.
func (l *gateList) finishSigned() error {
	if l.off+int64(l.at) != l.bodyEnd {
		return errors.New("parse: the entries do not end where their list does")
	}
	if l.size-l.bodyEnd > maxTail {
		return errors.New("parse: too much after the entries")
	}
	tail, err := l.peek(int(l.tbsEnd - l.bodyEnd))
	if err != nil {
		return err
	}
	s := cryptobyte.String(tail)
	var tagged, list cryptobyte.String
	if !s.ReadASN1(&tagged, cryptobyte_asn1.Tag(0).Constructed().ContextSpecific()) || !s.Empty() || !tagged.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) || !tagged.Empty() {
		return errors.New("parse: extensions")
	}
	if err := l.extensions(list); err != nil {
		return err
	}
	l.at += len(tail)
	l.digest()
	return nil
}

// finish reads what follows the signed part and checks the signature.
func (l *gateList) finish() error {
	tail, err := l.peek(int(l.size - l.tbsEnd))
	if err != nil {
		return err
	}
	signed := cryptobyte.String(tail)
	var algorithm cryptobyte.String
	var signature asn1.BitString
	if !signed.ReadASN1Element(&algorithm, cryptobyte_asn1.SEQUENCE) || !signed.ReadASN1BitString(&signature) || signature.BitLength%8 != 0 || !signed.Empty() {
		return errors.New("parse: signature")
	}
	if !bytes.Equal(algorithm, l.alg.identifier) {
		return fmt.Errorf("not signed with %v", l.alg.name)
	}
	if l.trusted {
		return nil
	}
	return verifyDigest(l.issuer.PublicKey, l.alg.hash, l.hash.Sum(nil), signature.Bytes)
}

// sealed reads what was written when the signed part had passed: the length of the whole, again, and what finish reads.
func (l *gateList) sealed(size int64) error {
	if size-l.tbsEnd > maxTail {
		return errors.New("parse: too much after the signed part")
	}
	l.size = size
	from := func(at int64) { l.off, l.at, l.buf = at, 0, l.buf[:0] }
	from(0)
	head, err := l.peek(int(l.start))
	if err != nil {
		return err
	}
	s := cryptobyte.String(head)
	if length, ok := gateSequence(&s); !ok || !s.Empty() || l.start+length != size {
		return errors.New("parse: not a CRL, or not all of it")
	}
	from(l.tbsEnd)
	return l.finish()
}

func verifyDigest(key crypto.PublicKey, h crypto.Hash, digest, signature []byte) error {
	var err error
	switch k := key.(type) {
	case *rsa.PublicKey:
		err = rsa.VerifyPKCS1v15(k, h, digest, signature)
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(k, digest, signature) {
			err = errors.New("ECDSA verification failure")
		}
	default:
		err = errors.New("no key that signs CRLs")
	}
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	return nil
}

func (l *gateList) extensions(list cryptobyte.String) error {
	var found []pkix.Extension
	for !list.Empty() {
		var extension, value cryptobyte.String
		var e pkix.Extension
		if !list.ReadASN1(&extension, cryptobyte_asn1.SEQUENCE) || !extension.ReadASN1ObjectIdentifier(&e.Id) {
			return errors.New("parse: extension")
		}
		if extension.PeekASN1Tag(cryptobyte_asn1.BOOLEAN) && (!extension.ReadASN1Boolean(&e.Critical) || !e.Critical) {
			return errors.New("parse: extension's criticality")
		}
		if !extension.ReadASN1(&value, cryptobyte_asn1.OCTET_STRING) || !extension.Empty() {
			return errors.New("parse: extension's value")
		}
		e.Value = value
		found = append(found, e)
	}
	for _, e := range found {
		value := cryptobyte.String(e.Value)
		switch {
		case e.Id.Equal(oidAuthorityKeyIdentifier):
			var outer, id cryptobyte.String
			if !value.ReadASN1(&outer, cryptobyte_asn1.SEQUENCE) || !value.Empty() || !outer.ReadASN1(&id, cryptobyte_asn1.Tag(0).ContextSpecific()) || !outer.Empty() {
				return errors.New("parse: authorityKeyIdentifier")
			}
			if len(id) == 0 || !bytes.Equal(id, l.issuer.SubjectKeyId) {
				return errors.New("the authorityKeyIdentifier is of another key")
			}
		case e.Id.Equal(oidCRLNumber):
			l.number = new(big.Int)
			if !value.ReadASN1Integer(l.number) || !value.Empty() {
				return errors.New("parse: cRLNumber")
			}
		case e.Id.Equal(oidDeltaCRLIndicator):
			l.base = new(big.Int)
			if !value.ReadASN1Integer(l.base) || !value.Empty() {
				return errors.New("parse: deltaCRLIndicator")
			}
		}
	}
	if l.old {
		return checkOldExtensions(found, l.number, l.scope, l.delta)
	}
	return checkExtensions(found, l.number, l.scope, l.delta)
}

// A gate is what one list has to pass before it takes another's place.
type gate struct {
	prev, next *gateList // prev is nil for the first
	now        time.Time
	mayVanish  func(jpki.Serial) (bool, error)
	changes    []Change // in order of serials: what the new list must say; nil to leave it to the source
	exactly    bool     // nothing but these changes
}

var errNotAsked = errors.New("cannot tell whether an entry may vanish")

// pass walks both lists side by side, so that its use of memory does not depend on their lengths. Of the new one it reads what
// is signed; its finish, or sealed, does the rest.
func (g gate) pass() error {
	switch {
	case g.next.this.After(g.now):
		return errors.New("thisUpdate is in the future")
	case !g.next.next.After(g.now):
		return errors.New("nextUpdate is not in the future")
	}
	nowTime := gateTimeOf(g.now)
	changes := g.changes
	unmatched := false // the old list's last entry has not been seen in the new one yet
	var buf [20]byte
	changed := func(last []byte) bool {
		return len(changes) > 0 && compare(changes[0].Serial.Append(buf[:0]), last) <= 0
	}
	for {
		for common := g.prev != nil && g.prev.trusted && !unmatched; common; {
			var err error
			if common, err = g.next.same(g.prev, changed); err != nil {
				return err
			}
		}
		more, err := g.next.nextEntry()
		if err != nil {
			return err
		}
		serial := g.next.serial[:g.next.serialN]
		if more && g.next.revoked > nowTime {
			return fmt.Errorf("entry %X is not yet revoked", serial)
		}
		for matched := g.prev == nil; !matched; {
			if !unmatched {
				if unmatched, err = g.prev.nextEntry(); err != nil {
					return fmt.Errorf("the published one: %w", err)
				}
			}
			order := 1
			if unmatched && more {
				order = compare(g.prev.serial[:g.prev.serialN], serial)
			} else if unmatched {
				order = -1
			}
			switch {
			case order < 0:
				if err := g.vanished(g.prev.serial[:g.prev.serialN]); err != nil {
					return err
				}
				unmatched = false
			case order == 0:
				unmatched, matched = false, true
			default:
				matched = true // an entry of the new list only
			}
		}
		for len(changes) > 0 {
			c := changes[0]
			order := -1
			if more {
				order = compare(c.Serial.Append(buf[:0]), serial)
			}
			if order > 0 {
				break
			}
			listed := !c.Released || g.next.delta
			switch {
			case listed && order < 0:
				return fmt.Errorf("entry %s is missing, which has changed", c.Serial)
			case listed && (g.next.reason != byte(c.reason()) || g.next.revoked != gateTimeOf(c.At)):
				return fmt.Errorf("entry %s does not say what has changed", c.Serial)
			case !listed && order == 0:
				return fmt.Errorf("entry %s is there, and is good again", c.Serial)
			}
			changes = changes[1:]
			if order == 0 {
				break
			}
		}
		if !more {
			break
		}
	}
	if g.exactly && g.next.entries != int64(len(g.changes)) {
		return errors.New("there are entries of what has not changed")
	}
	if err := g.next.finishSigned(); err != nil {
		return err
	}
	if g.prev == nil {
		return nil
	}
	if err := firstError(g.prev.finishSigned, g.prev.finish); err != nil {
		return fmt.Errorf("the published one: %w", err)
	}
	switch {
	case g.next.number.Cmp(g.prev.number) <= 0:
		return fmt.Errorf("number %v does not come after the published %v", g.next.number, g.prev.number)
	case g.next.this.Before(g.prev.this):
		return fmt.Errorf("thisUpdate %v is before the published %v", g.next.this, g.prev.this)
	}
	return nil
}

func (g gate) vanished(octets []byte) error {
	serial, err := jpki.SerialFromBytes(octets)
	if err != nil {
		return err
	}
	may := false
	if g.mayVanish != nil {
		if may, err = g.mayVanish(serial); err != nil {
			return fmt.Errorf("%w: ask whether entry %s may vanish: %w", errNotAsked, serial, err)
		}
	}
	if !may {
		return fmt.Errorf("entry %s has vanished, but its certificate has neither expired nor been released", serial)
	}
	return nil
}

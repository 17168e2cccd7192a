package relay

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// What lies in Redis. All keys share a hash tag, so that in a cluster they lie on one primary:
//
//	{PREFIX:1}:lease           token of the relay at work, with expiry
//	{PREFIX:1}:epoch           which copy of the log is the present one, 32 hexadecimal digits
//	{PREFIX:1}:entries:EPOCH   stream; entry N of the log has ID N-0 and field e = entry, below
//	{PREFIX:1}:questions       list of nonces, with expiry
//	{PREFIX:1}:beats           stream; field b = beat, below
//
// A copy is only ever appended to, in order, and trimmed from the front. When the log is no longer what was copied, or
// the copy is lost, a new epoch begins.
//
//	entry = body MAC             MAC over context, epoch, number, body
//	body  = version(1) CA(s|a) generation(uvarint) state(g|s|r) reason(1) since(8) version(uvarint) notAfter(8)
//	        serial(length 1, octets) partition(length 1, octets)
//	beat  = version(1) epoch(16) position(8) nonces(16 each) MAC             MAC over context, all before
//
// Integers are big-endian, times microseconds of Unix. There is one encoding of each entry: what is parsed, encodes to the
// same octets. The cause of a change is not in it, nor anything of the holder.
const (
	format       = 1 // also the 1 in the keys
	macSize      = 16
	maxBody      = 128
	maxNonces    = 1024 // in one beat
	entryPurpose = "jpki status entry 1"
	beatPurpose  = "jpki status beat 1"
)

type (
	epoch [16]byte // names a copy of the log; drawn at random
	nonce [16]byte // a question; drawn at random
)

func (e epoch) String() string { return hex.EncodeToString(e[:]) }

func parseEpoch(s string) (e epoch, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(e) {
		return e, false
	}
	return epoch(b), true
}

// A beat says that the log ended at a position when the nonces had been seen.
type beat struct {
	epoch    epoch
	position int64
	nonces   []nonce
}

var errEncoding = errors.New("not an encoding of ours")

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		_, _ = h.Write(p)
	}
	return h.Sum(nil)[:macSize]
}

func entryMAC(key []byte, e epoch, seq int64, body []byte) []byte {
	return mac(key, []byte(entryPurpose), e[:], binary.BigEndian.AppendUint64(nil, uint64(seq)), body)
}

// seal returns what stands in the stream for an entry.
func seal(key []byte, e epoch, seq int64, body []byte) []byte {
	return slices.Concat(body, entryMAC(key, e, seq, body))
}

// unseal returns the body of what stands in the stream, if a relay has put it there.
func unseal(key []byte, e epoch, seq int64, sealed []byte) ([]byte, error) {
	n := len(sealed) - macSize
	if n < 0 || !hmac.Equal(sealed[n:], entryMAC(key, e, seq, sealed[:n])) {
		return nil, errors.New("the entry's MAC is wrong")
	}
	return sealed[:n], nil
}

func (b *beat) marshal(key []byte) []byte {
	out := append([]byte{format}, b.epoch[:]...)
	out = binary.BigEndian.AppendUint64(out, uint64(b.position))
	for _, n := range b.nonces {
		out = append(out, n[:]...)
	}
	return append(out, mac(key, []byte(beatPurpose), out)...)
}

func parseBeat(key, in []byte) (b beat, err error) {
	const head = 1 + 16 + 8
	n := len(in) - macSize - head
	if n < 0 || n%16 != 0 || n/16 > maxNonces || in[0] != format {
		return b, errEncoding
	}
	if end := head + n; !hmac.Equal(in[end:], mac(key, []byte(beatPurpose), in[:end])) {
		return b, errors.New("the beat's MAC is wrong")
	}
	b.epoch = epoch(in[1:])
	if b.position = int64(binary.BigEndian.Uint64(in[17:])); b.position < 0 {
		return b, errEncoding
	}
	for i := head; i < head+n; i += 16 {
		b.nonces = append(b.nonces, nonce(in[i:]))
	}
	return b, nil
}

// letters of what an entry says in one octet
var (
	caLetters    = map[jpki.CA]byte{jpki.SignCA: 's', jpki.AuthCA: 'a'}
	stateLetters = map[jpki.State]byte{jpki.Good: 'g', jpki.Suspended: 's', jpki.Revoked: 'r'}
)

func word[W ~string](letters map[W]byte, b byte) (w W, ok bool) {
	for w, l := range letters {
		if l == b {
			return w, true
		}
	}
	return w, false
}

// marshalEntry encodes an entry without its number. What it cannot encode is no status of ours.
func marshalEntry(c jpki.StatusChange) ([]byte, error) {
	ca, known := caLetters[c.ID.Issuer.CA]
	state, valid := stateLetters[c.Status.State]
	switch {
	case !known || !valid || c.ID.Serial.IsZero() || c.ID.Issuer.Generation < 1 || c.ID.Issuer.Generation > math.MaxInt32:
	case c.Status.Reason < 0 || c.Status.Reason > math.MaxUint8 || c.Status.Version < 0 || len(c.Partition) > 64:
	default:
		b := []byte{format, ca}
		b = binary.AppendUvarint(b, uint64(c.ID.Issuer.Generation))
		b = append(b, state, byte(c.Status.Reason))
		b = binary.BigEndian.AppendUint64(b, uint64(c.Status.Since.UnixMicro()))
		b = binary.AppendUvarint(b, uint64(c.Status.Version))
		b = binary.BigEndian.AppendUint64(b, uint64(c.NotAfter.UnixMicro()))
		serial := c.ID.Serial.Bytes()
		b = append(append(b, byte(len(serial))), serial...)
		return append(append(b, byte(len(c.Partition))), c.Partition...), nil
	}
	return nil, errors.New("the entry has no encoding")
}

// parseEntry reads what marshalEntry writes, and nothing else.
func parseEntry(in []byte) (c jpki.StatusChange, err error) {
	if len(in) > maxBody {
		return c, errEncoding
	}
	rest, bad := in, false
	take := func(n int) []byte {
		if bad = bad || len(rest) < n; bad {
			return make([]byte, n)
		}
		out := rest[:n]
		rest = rest[n:]
		return out
	}
	number := func(limit uint64) uint64 {
		v, n := binary.Uvarint(rest)
		if bad = bad || n <= 0 || v > limit; bad {
			return 0
		}
		rest = rest[n:]
		return v
	}
	when := func() time.Time { return time.UnixMicro(int64(binary.BigEndian.Uint64(take(8)))).UTC() }
	octets := func() []byte { return take(int(take(1)[0])) }

	bad = take(1)[0] != format
	ca, known := word(caLetters, take(1)[0])
	c.ID.Issuer = jpki.IssuerID{CA: ca, Generation: int(number(math.MaxInt32))}
	state, valid := word(stateLetters, take(1)[0])
	c.Status.State, c.Status.Reason = state, jpki.Reason(take(1)[0])
	c.Status.Since = when()
	c.Status.Version = int64(number(math.MaxInt64))
	c.NotAfter = when()
	serial := octets()
	c.Partition = string(octets())
	if bad || !known || !valid || len(rest) > 0 {
		return jpki.StatusChange{}, errEncoding
	}
	if c.ID.Serial, err = jpki.SerialFromBytes(serial); err != nil {
		return jpki.StatusChange{}, errEncoding
	}
	// Numbers written longer than they need be, leading zeros, times no one can hold, partitions too long.
	if again, err := marshalEntry(c); err != nil || !bytes.Equal(again, in) {
		return jpki.StatusChange{}, errEncoding
	}
	return c, nil
}

// streamID and parseStreamID translate between an entry's number and its ID in the stream.
func streamID(seq int64) string { return strconv.FormatInt(seq, 10) + "-0" }

func parseStreamID(id string) (seq int64, err error) {
	digits, ok := strings.CutSuffix(id, "-0")
	seq, err = strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || seq < 1 || streamID(seq) != id {
		return 0, errors.New("the stream has an ID that is not ours")
	}
	return seq, nil
}

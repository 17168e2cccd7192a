package snapshot

import (
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/openjpki/jpki"
)

// A Config says whose snapshots are read.
type Config struct {
	IssuerCert *x509.Certificate // of the key whose certificates are asked about; trusted: the caller has checked its chain
	Now        func() time.Time
	Sequence   uint64 // the highest number seen so far: an older file is refused; 0 at first
}

// A Snapshot answers for the certificates of one issuer's key, offline.
type Snapshot struct {
	config  Config
	info    Info
	base    uint64 // sequence number of the snapshot itself
	hasher  hasher
	salt    [saltOctets]byte
	blocks  uint32
	heads   []byte
	filters []byte
	offsets []uint32 // where each block's filters begin
	changes map[[changeOctets]byte]uint8
}

const blockHead = 2 * cascadeHead

// Open checks a snapshot's signature, hash, form and times, and returns it. It goes on using the octets, which must not
// change: they may be a read-only map of the file. A snapshot that is out of date is [jpki.Unavailable], any other that is refused [jpki.Malformed].
func Open(file []byte, c Config) (*Snapshot, error) {
	if c.IssuerCert == nil || c.Now == nil {
		return nil, errors.New("open snapshot: IssuerCert or Now is missing")
	}
	h, body, err := unseal(file, magicSnapshot, c.IssuerCert)
	if err != nil {
		return nil, refuse(err)
	}
	s := &Snapshot{config: c, info: h.Info, base: h.Sequence, hasher: h.hasher(), salt: h.salt}
	if err := s.parseBody(body, h.units); err != nil {
		return nil, refuse(err)
	}
	if err := c.current(h.Info, c.Sequence); err != nil {
		return nil, err
	}
	return s, nil
}

func refuse(err error) error {
	return jpki.WrapError(jpki.Malformed, err, "the status snapshot is refused")
}

// current reports why a file cannot be used now.
func (c Config) current(i Info, sequence uint64) error {
	now := c.Now()
	switch {
	case i.Sequence < sequence:
		return jpki.Errorf(jpki.Unavailable, "status snapshot %d is older than %d, which was used before", i.Sequence, sequence)
	case now.Before(i.ThisUpdate):
		return jpki.Errorf(jpki.Unavailable, "status snapshot %d is of the future", i.Sequence)
	case !now.Before(i.NextUpdate):
		return jpki.Errorf(jpki.Unavailable, "status snapshot %d is out of date", i.Sequence)
	}
	return nil
}

// parseBody finds the blocks and makes sure that every look-up stays within them.
func (s *Snapshot) parseBody(body []byte, blocks uint32) error {
	if blocks == 0 || blocks > maxBlocks || uint64(len(body)) < uint64(blocks)*blockHead {
		return errors.New("the directory is too long or missing")
	}
	s.blocks, s.heads, s.filters = blocks, body[:blocks*blockHead], body[blocks*blockHead:]
	s.offsets = make([]uint32, blocks+1)
	end := 0
	for i := range int(blocks) {
		s.offsets[i] = uint32(end)
		var outer, inner cascade
		head := s.heads[i*blockHead:]
		if !outer.parseHead(head) || !inner.parseHead(head[cascadeHead:]) {
			return fmt.Errorf("block %d has no possible form", i)
		}
		if end += outer.length() + inner.length(); end > len(s.filters) {
			return errors.New("the filters are longer than the file")
		}
	}
	s.offsets[blocks] = uint32(end)
	if end != len(s.filters) {
		return errors.New("something follows the filters")
	}
	return nil
}

// Info returns what the snapshot, with the deltas applied, says about itself.
func (s *Snapshot) Info() Info { return s.info }

// A Question is about a certificate that is known to be of the issuer.
type Question struct {
	Serial              jpki.Serial
	NotBefore, NotAfter time.Time // as the certificate has them
}

// Lookup returns a certificate's state; covered is false, and the state empty, if the snapshot cannot know it: because it was
// issued later, has expired before or the snapshot is out of date. The certificate's signature must have been
// verified: of a serial that was never issued the state is arbitrary.
func (s *Snapshot) Lookup(q Question) (state jpki.State, covered bool) {
	return s.lookup(q, s.config.Now())
}

// An Answer is what Lookup returns.
type Answer struct {
	State   jpki.State
	Covered bool
}

// Answers looks up one certificate after the other, all as of the time of the call; each answer is there before the next question
// is asked for. [Snapshot.AppendAnswers] is quicker for questions that are there already.
func (s *Snapshot) Answers(questions iter.Seq[Question]) iter.Seq2[Question, Answer] {
	now := s.config.Now()
	return func(yield func(Question, Answer) bool) {
		for q := range questions {
			state, covered := s.lookup(q, now)
			if !yield(q, Answer{state, covered}) {
				return
			}
		}
	}
}

func (s *Snapshot) lookup(q Question, now time.Time) (jpki.State, bool) {
	if !s.covers(&q, now) {
		return "", false
	}
	state, ok := s.state(s.hasher.key(q.Serial))
	return words[state], ok
}

func (s *Snapshot) covers(q *Question, now time.Time) bool {
	i := &s.info
	return !q.Serial.IsZero() && !now.Before(i.ThisUpdate) && now.Before(i.NextUpdate) && !q.NotBefore.After(i.IssuedUntil) && !q.NotAfter.Before(i.ExpiresFrom)
}

var words = [states]jpki.State{good: jpki.Good, suspended: jpki.Suspended, revoked: jpki.Revoked}

func (s *Snapshot) state(k key) (state uint8, ok bool) {
	if state, ok = s.changed(k); ok {
		return state, true
	}
	var b block
	if !b.read(s, k) {
		return 0, false
	}
	return b.state(k), true
}

// changed returns what the deltas say of a key.
func (s *Snapshot) changed(k key) (state uint8, ok bool) {
	if len(s.changes) == 0 {
		return 0, false
	}
	state, ok = s.changes[k.octets()]
	return state, ok
}

// A block is one of a snapshot's: who is not good, and who of those is suspended.
type block struct{ outer, inner cascade }

// read takes a key's block from a snapshot; false if it has no possible form.
func (b *block) read(s *Snapshot, k key) bool {
	n := blockOf(k, s.blocks)
	return b.parse(s.heads[n*blockHead:], s.filters[s.offsets[n]:s.offsets[n+1]])
}

func (b *block) parse(head, filters []byte) bool {
	if !b.outer.parseHead(head) || !b.inner.parseHead(head[cascadeHead:]) || b.outer.length()+b.inner.length() != len(filters) {
		return false
	}
	b.inner.take(b.outer.take(filters))
	return true
}

func (b *block) state(k key) uint8 {
	switch {
	case !b.outer.contains(k, notGood):
		return good
	case b.inner.contains(k, suspends):
		return suspended
	}
	return revoked
}

// take64 and take32 read a number from the beginning of b and returns the rest.
func take64(b []byte) (uint64, []byte) { return binary.LittleEndian.Uint64(b), b[8:] }
func take32(b []byte) (int, []byte)    { return int(binary.LittleEndian.Uint32(b)), b[4:] }

package snapshot

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
)

// A Template says what a snapshot or a delta is besides its certificates.
type Template struct {
	Issuer     jpki.IssuerID
	IssuerCert *x509.Certificate // of the issuing key, with the right to sign CRLs
	Signer     crypto.Signer     // that key: RSA of at least 2048 bits (SHA-256), P-256 (SHA-256) or P-384 (SHA-384)
	Sequence   uint64            // greater than that of every file before
	ThisUpdate time.Time         // what the statuses are true of; to the second
	NextUpdate time.Time

	// IssuedUntil promises that every certificate of the issuer with a notBefore not after it is among those given. It is not
	// later than ThisUpdate, and earlier by as much as a notBefore is set back or an issuance may take.
	IssuedUntil time.Time
	ExpiresFrom time.Time // the same of every certificate with a notAfter not before it

	Rand     io.Reader                 // for the salt: crypto/rand.Reader
	TempDir  string                    // for some 17 octets a certificate; empty: where the system has its temporary files
	Progress func(taken, built uint64) // called now and then; may be nil
}

// A Certificate is an element of the universe: a serial and its state.
type Certificate struct {
	Serial jpki.Serial
	State  jpki.State
}

// How large a block becomes: as small as the directory's share allows, since equations that are few need less memory over.
const (
	blockMembers  = 4096
	blockUniverse = 1 << 20
)

// Build writes a snapshot of the certificates, which may come in any order and are walked once. Serials that are there twice
// and an error in the sequence end it. A temporary file spares memory, of which a hundred million certificates take a hundred
// megabytes; all processors take part. Every answer is looked up before anything is written.
func Build(w io.Writer, t Template, certificates iter.Seq2[Certificate, error]) (Info, error) {
	info, err := t.build(w, certificates)
	if err != nil {
		return Info{}, fmt.Errorf("build snapshot %d of %s: %w", t.Sequence, t.Issuer, err)
	}
	return info, nil
}

func (t Template) build(w io.Writer, certificates iter.Seq2[Certificate, error]) (Info, error) {
	h, err := t.header(magicSnapshot)
	if err != nil {
		return Info{}, err
	}
	if _, err := io.ReadFull(t.Rand, h.salt[:]); err != nil {
		return Info{}, fmt.Errorf("salt: %w", err)
	}
	s := &spill{dir: t.TempDir}
	defer s.remove()
	if err := t.take(s, h.hasher(), certificates); err != nil {
		return Info{}, err
	}
	h.Good, h.Suspended, h.Revoked = s.counts[good], s.counts[suspended], s.counts[revoked]
	h.units = blocksFor(h.Good, h.Suspended+h.Revoked)
	body, err := t.body(s, h)
	if err != nil {
		return Info{}, err
	}
	return h.Info, h.write(w, body, t)
}

// header checks the template and returns what it says of a file.
func (t Template) header(magic string) (*header, error) {
	if t.IssuerCert == nil || t.Signer == nil || t.Rand == nil {
		return nil, errors.New("the issuer's certificate or key or Rand is missing")
	}
	pub, ok := t.IssuerCert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(t.Signer.Public()) {
		return nil, errors.New("the issuer's certificate is for another key")
	}
	if err := mayIssue(t.IssuerCert); err != nil {
		return nil, err
	}
	if _, err := hashFor(t.IssuerCert.PublicKey); err != nil {
		return nil, err
	}
	second := func(at time.Time) time.Time { return time.Unix(at.Unix(), 0).UTC() }
	h := &header{magic: magic, Info: Info{
		Issuer: t.Issuer, Sequence: t.Sequence, ThisUpdate: second(t.ThisUpdate), NextUpdate: second(t.NextUpdate),
		IssuedUntil: second(t.IssuedUntil), ExpiresFrom: second(t.ExpiresFrom.Add(time.Second - 1)),
	}}
	var err error
	if h.issuerKey, err = keyHash(t.IssuerCert); err != nil {
		return nil, err
	}
	return h, h.check()
}

func (h *header) write(w io.Writer, body []byte, t Template) error {
	head, err := h.seal(body, t.IssuerCert, t.Signer)
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err = w.Write(body)
	return err
}

// elementOf hashes a certificate.
func (h hasher) elementOf(c Certificate) (element, error) {
	var e element
	switch c.State {
	case jpki.Good:
		e.state = good
	case jpki.Suspended:
		e.state = suspended
	case jpki.Revoked:
		e.state = revoked
	default:
		return e, errors.New("a certificate has no state")
	}
	if c.Serial.IsZero() {
		return e, errors.New("a certificate has no serial")
	}
	e.key = h.key(c.Serial)
	return e, nil
}

// progressEvery is after how many certificates Progress is called.
const progressEvery = 1 << 17

func (t Template) take(s *spill, h hasher, certificates iter.Seq2[Certificate, error]) error {
	var taken uint64
	for c, err := range certificates {
		if err != nil {
			return err
		}
		e, err := h.elementOf(c)
		if err != nil {
			return err
		}
		if err := s.add(e); err != nil {
			return err
		}
		if taken++; taken%progressEvery == 0 && t.Progress != nil {
			t.Progress(taken, 0)
		}
	}
	return nil
}

func blocksFor(good, notGood uint64) uint32 {
	n := max(1, (notGood+blockMembers-1)/blockMembers, (good+notGood+blockUniverse-1)/blockUniverse)
	return uint32(min(n, maxBlocks))
}

// blockOf returns the block of a key: in ascending order, as the keys are.
func blockOf(k key, blocks uint32) int {
	n, _ := bits.Mul64(k.a, uint64(blocks))
	return int(n)
}

// A job is a block to be built.
type job struct {
	n        int
	elements []element
}

// body cuts the sorted elements into blocks and has them built side by side.
func (t Template) body(s *spill, h *header) ([]byte, error) {
	total := s.counts[good] + s.counts[suspended] + s.counts[revoked]
	heads, filters := make([][]byte, h.units), make([][]byte, h.units)
	jobs := make(chan job)
	var failure atomic.Pointer[error]
	var built atomic.Uint64
	var work sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		work.Go(func() {
			var b blockBuilder
			for j := range jobs {
				if failure.Load() != nil {
					continue
				}
				var err error
				if heads[j.n], filters[j.n], err = b.build(j.elements); err != nil {
					failure.CompareAndSwap(nil, &err)
				}
				built.Add(uint64(len(j.elements)))
			}
		})
	}
	next, reported := 0, uint64(0)
	var rest []element
	for n := range s.buckets {
		elements, err := s.bucket(n)
		if err != nil {
			failure.CompareAndSwap(nil, &err)
		}
		if failure.Load() != nil {
			break
		}
		rest = append(rest, elements...)
		start := 0
		for i, e := range rest {
			for next < blockOf(e.key, h.units) {
				jobs <- job{next, rest[start:i]}
				next, start = next+1, i
			}
		}
		rest = append([]element(nil), rest[start:]...)
		if now := built.Load(); t.Progress != nil && now-reported >= progressEvery {
			t.Progress(total, now)
			reported = now
		}
	}
	if failure.Load() == nil {
		for ; next < int(h.units); next++ {
			jobs <- job{next, rest}
			rest = nil
		}
	}
	close(jobs)
	work.Wait()
	if err := failure.Load(); err != nil {
		return nil, *err
	}
	if t.Progress != nil {
		t.Progress(total, total)
	}
	var body []byte
	for _, part := range [][][]byte{heads, filters} {
		for _, octets := range part {
			body = append(body, octets...)
		}
	}
	return body, nil
}

// A blockBuilder builds one block after the other in the same memory.
type blockBuilder struct {
	solver
	sets [states + 1][]key // by state, and all that are not good
}

// build returns a block's two cascades, after it has asked them about all elements.
func (b *blockBuilder) build(elements []element) (head, filters []byte, err error) {
	for i := range b.sets {
		b.sets[i] = b.sets[i][:0]
	}
	for _, e := range elements {
		b.sets[e.state] = append(b.sets[e.state], e.key)
		if e.state != good {
			b.sets[states] = append(b.sets[states], e.key)
		}
	}
	outer, err := b.cascadeFor(b.sets[states], b.sets[good], notGood)
	if err != nil {
		return nil, nil, err
	}
	inner, err := b.cascadeFor(b.sets[suspended], b.sets[revoked], suspends)
	if err != nil {
		return nil, nil, err
	}
	head, filters = inner.appendHead(outer.appendHead(nil)), inner.appendTo(outer.appendTo(nil))
	var written block
	ok := written.parse(head, filters)
	for _, e := range elements {
		if !ok || written.state(e.key) != e.state {
			return nil, nil, errors.New("a block does not give back what was put into it")
		}
	}
	return head, filters, nil
}

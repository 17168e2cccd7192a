package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/openjpki/jpki"
)

// A delta's body has the sequence numbers of the snapshot it belongs to and of the file it follows, how many changes there are to
// each state, and the changes: the first twelve octets of hashes, in ascending order, by state.
const (
	changeOctets = 12
	deltaHead    = 8 + 8 + 3*4
	maxChanges   = 1 << 20 // in one delta
	maxAll       = 1 << 22 // in all deltas together
)

// BuildDelta writes what a reader that has since, with its deltas, has to know to answer for the certificates, which are the whole
// universe of now, good ones and new ones included: all for which since has another answer. Of certificates
// that are new it is mostly right about the good ones, by chance, so that a delta needs few entries for them.
func BuildDelta(w io.Writer, t Template, since *Snapshot, certificates iter.Seq2[Certificate, error]) (Info, error) {
	info, err := t.buildDelta(w, since, certificates)
	if err != nil {
		return Info{}, fmt.Errorf("build delta %d of %s: %w", t.Sequence, t.Issuer, err)
	}
	return info, nil
}

func (t Template) buildDelta(w io.Writer, since *Snapshot, certificates iter.Seq2[Certificate, error]) (Info, error) {
	h, err := t.header(magicDelta)
	if err != nil {
		return Info{}, err
	}
	if want, err := keyHash(since.config.IssuerCert); err != nil || want != h.issuerKey {
		return Info{}, errors.Join(errors.New("the snapshot is another issuer's"), err)
	}
	if err := since.follows(h.Info); err != nil {
		return Info{}, err
	}
	h.salt = since.salt
	var counts [states]uint64
	var changes [states][][changeOctets]byte
	all := 0
	var taken uint64
	for c, err := range certificates {
		if err != nil {
			return Info{}, err
		}
		e, err := since.hasher.elementOf(c)
		if err != nil {
			return Info{}, err
		}
		counts[e.state]++
		if state, ok := since.state(e.key); !ok || state != e.state {
			if all++; all > maxChanges {
				return Info{}, errors.New("more changes than a delta may have: it is time for a snapshot")
			}
			changes[e.state] = append(changes[e.state], e.octets())
		}
		if taken++; taken%progressEvery == 0 && t.Progress != nil {
			t.Progress(taken, taken)
		}
	}
	h.Good, h.Suspended, h.Revoked, h.units = counts[good], counts[suspended], counts[revoked], uint32(all)
	body := binary.LittleEndian.AppendUint64(nil, since.base)
	body = binary.LittleEndian.AppendUint64(body, since.info.Sequence)
	for _, list := range changes {
		body = binary.LittleEndian.AppendUint32(body, uint32(len(list)))
	}
	for _, list := range changes {
		slices.SortFunc(list, compareOctets)
		for _, o := range list {
			body = append(body, o[:]...)
		}
	}
	if _, err := since.overlay(body, h); err != nil { // finds serials that are there twice, and too many changes
		return Info{}, err
	}
	return h.Info, h.write(w, body, t)
}

// follows reports why a file cannot come after the snapshot.
func (s *Snapshot) follows(i Info) error {
	switch {
	case i.Issuer != s.info.Issuer:
		return errors.New("of another issuer")
	case i.Sequence <= s.info.Sequence:
		return fmt.Errorf("number %d does not follow %d", i.Sequence, s.info.Sequence)
	case i.ThisUpdate.Before(s.info.ThisUpdate), i.IssuedUntil.Before(s.info.IssuedUntil), i.ExpiresFrom.Before(s.info.ExpiresFrom):
		return errors.New("covers less than what it follows")
	}
	return nil
}

// Apply returns a snapshot that also knows a delta, which must be signed by the same key, in date and made for exactly this one with
// the deltas it has. The receiver stays as it was. A delta that does not follow is [jpki.Conflict]: one fetches those between, or a snapshot.
func (s *Snapshot) Apply(delta []byte) (*Snapshot, error) {
	h, body, err := unseal(delta, magicDelta, s.config.IssuerCert)
	if err != nil {
		return nil, refuse(err)
	}
	changes, err := s.overlay(body, h)
	if err != nil {
		return nil, err
	}
	if err := s.config.current(h.Info, s.info.Sequence); err != nil {
		return nil, err
	}
	next := *s
	next.info, next.changes = h.Info, changes
	return &next, nil
}

// overlay returns the changes of all deltas with those of a new one.
func (s *Snapshot) overlay(body []byte, h *header) (map[[changeOctets]byte]uint8, error) {
	if len(body) < deltaHead || h.units > maxChanges || len(body) != deltaHead+changeOctets*int(h.units) {
		return nil, refuse(errors.New("the body does not have the length it should"))
	}
	base, rest := take64(body)
	previous, rest := take64(rest)
	if h.salt != s.salt || base != s.base || previous != s.info.Sequence {
		return nil, jpki.Errorf(jpki.Conflict, "delta %d follows %d of snapshot %d, not %d of snapshot %d", h.Sequence, previous, base, s.info.Sequence, s.base)
	}
	if err := s.follows(h.Info); err != nil {
		return nil, refuse(err)
	}
	var counts [states]int
	sum := 0
	for i := range counts {
		counts[i], rest = take32(rest)
		sum += counts[i]
	}
	if sum != int(h.units) {
		return nil, refuse(errors.New("the numbers of changes are not their sum"))
	}
	changes := make(map[[changeOctets]byte]uint8, len(s.changes)+sum)
	maps.Copy(changes, s.changes)
	fresh := make(map[[changeOctets]byte]bool, sum)
	for state, n := range counts {
		var last [changeOctets]byte
		for i := range n {
			o := [changeOctets]byte(rest)
			if i > 0 && compareOctets(last, o) >= 0 || fresh[o] {
				return nil, refuse(errors.New("changes are there twice or not in order"))
			}
			last, rest = o, rest[changeOctets:]
			changes[o], fresh[o] = uint8(state), true
		}
	}
	if len(changes) > maxAll {
		return nil, refuse(errors.New("too many changes: it is time for a snapshot"))
	}
	return changes, nil
}

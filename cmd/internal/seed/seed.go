// Package seed makes up certificates by the hundred million for load and scale tests: numbers and statuses only.
//
// A [Plan] says all about them in a few numbers, so that whoever wants to ask for their statuses can compute any of them
// by itself; plans lie beside the snapshot that has the statuses ([Read]). Nothing is random, nothing was ever issued.
// Plans are values and safe for concurrent use. Start at Plan.At.
package seed

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp/status"
)

// A Plan describes Count certificates. Certificate k has the issuer k mod len(Issuers), and is that issuer's number
// i = k div len(Issuers), of n = ⌈Count / len(Issuers)⌉. With mix as below and all numbers of 64 bits, its serial is
//
//	h     = mix(Number + 2^56·(k mod len(Issuers)) + 2·i), l = mix(Number + 2^56·(k mod len(Issuers)) + 2·i + 1)
//	width = ⌊2^62 / ⌈n / 1024⌉⌋
//	octets 1 to 8   2^62 + ⌊i / 1024⌋·width + h mod width
//	octets 9 to 16  l
//
// so that serials are as evenly spread as real ones, and the k-th thousand of an issuer lies before the next: they are
// put in order a thousand at a time. mix is the finalizer of SplitMix64 after adding its constant.
type Plan struct {
	Number   uint64          `json:"number"` // tells plans apart
	Count    int             `json:"count"`
	Revoked  float64         `json:"revoked"` // share of them that is revoked, spread evenly
	Issuers  []jpki.IssuerID `json:"issuers"`
	Since    time.Time       `json:"since"` // when they were issued, and revoked
	NotAfter time.Time       `json:"notAfter"`
}

const (
	group = 1024
	space = 1 << 62 // of the first eight octets: the first two bits are fixed, see jpki.NewSerial
)

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Check says what is wrong with a plan.
func (p *Plan) Check() error {
	switch {
	case p.Count < 1 || p.Count > 1<<40:
		return errors.New("a plan needs a number of certificates that is possible")
	case !(p.Revoked >= 0 && p.Revoked <= 1):
		return errors.New("a share is between 0 and 1")
	case len(p.Issuers) < 1 || len(p.Issuers) > 16:
		return errors.New("a plan needs issuers")
	}
	return nil
}

// At returns certificate k, 0 ≤ k < Count.
func (p *Plan) At(k int) jpki.StatusChange {
	issuer := k % len(p.Issuers)
	high, low := p.serial(issuer, k/len(p.Issuers), p.width())
	return p.change(k, high, low)
}

// width is how much of the space a group has.
func (p *Plan) width() uint64 {
	each := (p.Count + len(p.Issuers) - 1) / len(p.Issuers)
	return space / uint64((each+group-1)/group)
}

func (p *Plan) serial(issuer, i int, width uint64) (high, low uint64) {
	from := p.Number + uint64(issuer)<<56 + 2*uint64(i)
	return space + uint64(i/group)*width + mix(from)%width, mix(from + 1)
}

func (p *Plan) change(k int, high, low uint64) jpki.StatusChange {
	var b [jpki.SerialBytes]byte
	binary.BigEndian.PutUint64(b[:], high)
	binary.BigEndian.PutUint64(b[8:], low)
	serial, _ := jpki.SerialFromBytes(b[:]) // it begins with 01
	c := jpki.StatusChange{
		ID: jpki.CertID{Issuer: p.Issuers[k%len(p.Issuers)], Serial: serial}, NotAfter: p.NotAfter,
		Status: jpki.Status{State: jpki.Good, Since: p.Since, Version: 1},
	}
	if IsRevoked(k, p.Revoked) {
		c.Status = jpki.Status{State: jpki.Revoked, Reason: jpki.AffiliationChanged, Cause: jpki.Moved, Since: p.Since, Version: 1}
	}
	return c
}

// IsRevoked reports whether certificate k is among a share of all that is spread evenly.
func IsRevoked(k int, share float64) bool {
	return int(float64(k+1)*share) > int(float64(k)*share)
}

// sorted returns one issuer's certificates in ascending order of their serials.
func (p *Plan) sorted(issuer int, each func()) iter.Seq[jpki.StatusChange] {
	type one struct {
		high, low uint64
		k         int
	}
	return func(yield func(jpki.StatusChange) bool) {
		width := p.width()
		batch := make([]one, 0, group)
		for k := issuer; k < p.Count; {
			batch = batch[:0]
			for ; k < p.Count && len(batch) < group; k += len(p.Issuers) {
				high, low := p.serial(issuer, k/len(p.Issuers), width)
				batch = append(batch, one{high, low, k})
			}
			slices.SortFunc(batch, func(a, b one) int {
				return cmp.Or(cmp.Compare(a.high, b.high), cmp.Compare(a.low, b.low))
			})
			for _, o := range batch {
				each()
				if !yield(p.change(o.k, o.high, o.low)) {
					return
				}
			}
		}
	}
}

// Add puts a plan's certificates into the snapshot of a status index and then the plan into the list at plans. It needs the
// memory of some million certificates, however many there are. No index may use the snapshot meanwhile. progress, if any,
// is called now and then.
func (p *Plan) Add(snapshot, plans string, now time.Time, progress func(done int)) error {
	if err := p.Check(); err != nil {
		return err
	}
	known, err := Read(plans)
	if err != nil {
		return err
	}
	done := 0
	each := func() {
		if done++; progress != nil && done%(1<<14) == 0 {
			progress(done)
		}
	}
	certs := map[jpki.IssuerID]iter.Seq[jpki.StatusChange]{}
	for i, issuer := range p.Issuers {
		if certs[issuer] != nil {
			return fmt.Errorf("the plan names %s twice", issuer)
		}
		certs[issuer] = p.sorted(i, each)
	}
	if err := status.AddTrial(snapshot, now, certs); err != nil {
		return err
	}
	text, err := json.MarshalIndent(append(known, *p), "", "\t")
	if err != nil {
		return fmt.Errorf("write plans: %w", err)
	}
	if err := os.WriteFile(plans+".new", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write plans: %w", err)
	}
	if err := os.Rename(plans+".new", plans); err != nil {
		return fmt.Errorf("write plans: %w", err)
	}
	if progress != nil {
		progress(done)
	}
	return nil
}

// Read returns the plans in a list that Add wrote; none if there is no list.
func Read(plans string) ([]Plan, error) {
	text, err := os.ReadFile(plans)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read plans: %w", err)
	}
	var out []Plan
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, fmt.Errorf("read plans: %w", err)
	}
	for i := range out {
		if err := out[i].Check(); err != nil {
			return nil, fmt.Errorf("read plans: %w", err)
		}
	}
	return out, nil
}

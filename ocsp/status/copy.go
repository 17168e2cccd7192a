package status

import (
	"fmt"
	"iter"
	"os"
	"time"

	"github.com/openjpki/jpki"
)

// A Copy is what a snapshot file knew: for who has lost the log.
type Copy struct {
	Created  time.Time
	Position int64 // of the last entry of the log that is in it
	parts    []*directoryPart
}

// OpenCopy reads a snapshot file that an [Index] has left, all of it. One with certificates that no log has is refused.
func OpenCopy(path string) (*Copy, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s, err := readDirectory(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if s.trial {
		return nil, errTrial
	}
	if err := s.loadAll(f); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return &Copy{Created: s.created, Position: s.last.Seq, parts: s.parts}, nil
}

// All walks every certificate that the file has, with its status; neither its end nor its CRL partition is in there.
func (c *Copy) All() iter.Seq2[jpki.CertID, jpki.Status] {
	return func(yield func(jpki.CertID, jpki.Status) bool) {
		for _, p := range c.parts {
			for i := range p.segments {
				s := p.segments[i].Load()
				if s == nil {
					continue
				}
				var r record
				for at := (cursor{s: s, details: s.details}); at.next(&r); {
					serial, err := jpki.SerialFromBytes(r.key[:p.length])
					if err != nil {
						continue // loadAll has checked the octets; no serial of ours is none
					}
					if !yield(jpki.CertID{Issuer: p.issuer, Serial: serial}, r.value.status()) {
						return
					}
				}
			}
		}
	}
}

package sources

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/path"
)

// Lists answers from complete CRLs, each in its issuer's folder as full.crl.
type Lists struct {
	FolderConfig
	now []atomic.Pointer[list] // of each issuer
}

// A list is a CRL in the two forms in which it is asked: for a certificate, and for the signer of a document.
type list struct {
	*crl.List
	text   [2]int64  // size and time of the file
	parsed *path.CRL // nil if it is longer than documents' lists may be
}

// NewLists takes up what the folder has.
func NewLists(cfg FolderConfig) (*Lists, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	l := &Lists{FolderConfig: cfg, now: make([]atomic.Pointer[list], len(cfg.Issuers))}
	for i := range cfg.Issuers {
		if err := l.open(i); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return l, nil
}

func (l *Lists) file(i int) string {
	return filepath.Join(l.Dir, l.Issuers[i].ID.String(), "full.crl")
}

// Refresh fetches what is new and takes it up. One issuer's failure does not keep the others back.
func (l *Lists) Refresh(ctx context.Context) error {
	var failed []error
	for i := range l.Issuers {
		if l.URL != "" {
			if err := l.fetch(ctx, i); err != nil {
				failed = append(failed, err)
				continue
			}
		}
		failed = append(failed, l.open(i))
	}
	return errors.Join(failed...)
}

// fetch puts the published list into the folder if it is one and is newer.
func (l *Lists) fetch(ctx context.Context, i int) error {
	text, err := fetchLimited(ctx, l.URL+"/crl/"+(crl.ID{Issuer: l.Issuers[i].ID}).Path(), maxList)
	if err != nil {
		return err
	}
	read, err := crl.Load(bytes.NewReader(text), l.Issuers[i].Certificate)
	if err != nil {
		return err
	}
	head := read.Head()
	if have := l.now[i].Load(); have != nil && !head.ThisUpdate.After(have.Head().ThisUpdate) || head.Delta() {
		return nil // an older list never takes the place of a newer one
	}
	if err := os.MkdirAll(filepath.Dir(l.file(i)), 0o700); err != nil {
		return err
	}
	return writeWhole(l.file(i), text)
}

const maxList = 1 << 30

// open takes up the file if it has changed and is newer.
func (l *Lists) open(i int) error {
	info, err := os.Stat(l.file(i))
	if err != nil {
		return err
	}
	have, stamp := l.now[i].Load(), [2]int64{info.Size(), info.ModTime().UnixNano()}
	if have != nil && have.text == stamp {
		return nil
	}
	read, err := crl.OpenList(l.file(i), l.Issuers[i].Certificate)
	if err != nil {
		return err
	}
	head := read.Head()
	switch {
	case head.Delta():
		return fmt.Errorf("%s is a delta and should be complete", l.file(i))
	case have != nil && head.ThisUpdate.Before(have.Head().ThisUpdate):
		return fmt.Errorf("%s is older than what was there", l.file(i))
	}
	fresh := &list{List: read, text: stamp}
	if info.Size() <= path.MaxCRLBytes {
		text, err := os.ReadFile(l.file(i))
		if err != nil {
			return err
		}
		if fresh.parsed, err = path.ParseCRL(text); err != nil {
			return fmt.Errorf("%s: %w", l.file(i), err)
		}
	}
	l.now[i].Store(fresh)
	return nil
}

// Age is how old the oldest issuer's list is, in seconds; an issuer that has none is as old as the century.
func (l *Lists) Age() float64 {
	var oldest time.Duration
	for i := range l.now {
		at := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		if have := l.now[i].Load(); have != nil {
			at = have.Head().ThisUpdate
		}
		oldest = max(oldest, l.Now().Sub(at))
	}
	return oldest.Seconds()
}

// Check is [verifier.StatusChecker]'s.
func (l *Lists) Check(_ context.Context, leaf, issuer *x509.Certificate, _ time.Time) (verifier.Revocation, error) {
	i := find(l.Issuers, issuer)
	if i < 0 {
		return verifier.Revocation{}, notCovered("no CRL of this issuer")
	}
	have := l.now[i].Load()
	if have == nil {
		return verifier.Revocation{}, notCovered("there is no CRL yet")
	}
	head, now := have.Head(), l.Now()
	if err := head.Fresh(now.Add(verifier.DefaultSkew), 0); err != nil {
		return verifier.Revocation{}, &verifier.StatusError{Failure: verifier.AnswerNotCurrent, Err: err}
	}
	if err := head.Covers(leaf); err != nil {
		return verifier.Revocation{}, notCovered(err.Error())
	}
	serial, err := jpki.SerialFromBig(leaf.SerialNumber)
	if err != nil {
		return verifier.Revocation{}, err
	}
	rev := verifier.Revocation{State: jpki.Good, Source: "crl " + l.Issuers[i].ID.String(), ThisUpdate: head.ThisUpdate, NextUpdate: head.NextUpdate, CheckedAt: now}
	if entry, listed := have.Find(serial); listed {
		rev.State, rev.Reason, rev.RevokedAt = jpki.Revoked, entry.Reason, &entry.At
		if entry.Reason == jpki.CertificateHold {
			rev.State = jpki.Suspended
		}
	}
	return rev, nil
}

// Documents is the same for who verifies documents.
func (l *Lists) Documents() verifier.RevocationSource {
	return verifier.RevocationSource{Name: "crl", Find: func(ctx context.Context, certificate, issuer *path.Certificate, at time.Time) (verifier.RevocationData, error) {
		var crls []*path.CRL
		for i := range l.now {
			if have := l.now[i].Load(); have != nil && have.parsed != nil {
				crls = append(crls, have.parsed)
			}
		}
		return verifier.StoredSource("crl", crls, nil).Find(ctx, certificate, issuer, at)
	}}
}

package ca

import (
	"context"
	"errors"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// A SearchRequest says which certificates a counter looks for: exactly one of holder, token and serial, and optionally
// only those in a state.
type SearchRequest struct {
	Holder string
	Token  string
	Serial jpki.Serial
	State  jpki.State
	Page
}

// A Page is a part of a list in the order of issue.
type Page struct {
	After jpki.CertID // the last certificate of the page before; zero for the first page
	Limit int         // at most MaxPage; 0 means that
}

// MaxPage is how many certificates a page has at most.
const MaxPage = 100

// Search finds certificates of people that the counter may act for; of others it finds none, except that a holder, or a
// token, of another municipality is named as such. more says that there is another page.
func (a *Authority) Search(ctx context.Context, by jpki.Actor, req SearchRequest) (certs []store.Certificate, more bool, err error) {
	given := 0
	for _, b := range []bool{req.Holder != "", req.Token != "", !req.Serial.IsZero()} {
		if b {
			given++
		}
	}
	if given != 1 {
		return nil, false, jpki.Errorf(jpki.Malformed, "name one of holder, token and serial")
	}
	switch {
	case req.Holder != "":
		err = checkIdentifier("holder", req.Holder)
	case req.Token != "":
		err = checkIdentifier("token", req.Token)
	}
	if err != nil {
		return nil, false, err
	}
	switch req.State {
	case "", jpki.Good, jpki.Suspended, jpki.Revoked:
	default:
		return nil, false, jpki.Errorf(jpki.Malformed, "state is none of good, suspended and revoked")
	}
	return a.find(ctx, by, req.Page, store.CertificateFilter{Holder: req.Holder, Token: req.Token, Serial: req.Serial, State: req.State}, func(tx *store.Tx) error {
		holder := req.Holder
		if req.Token != "" {
			t, err := tx.Token(req.Token)
			if err != nil {
				return err
			}
			holder = t.Holder
		}
		if holder == "" {
			return nil
		}
		h, err := tx.Holder(holder)
		if err != nil {
			return err
		}
		return mayActFor(by, h)
	})
}

// Undelivered lists the certificates in force of the counter's municipality that were issued at least age ago and have
// not reached their holder: those to hand over or to discard.
func (a *Authority) Undelivered(ctx context.Context, by jpki.Actor, age time.Duration, p Page) (certs []store.Certificate, more bool, err error) {
	if age < 0 {
		return nil, false, jpki.Errorf(jpki.Malformed, "an age is not negative")
	}
	now := a.now()
	return a.find(ctx, by, p, store.CertificateFilter{Undelivered: now.Add(-age), Now: now}, func(*store.Tx) error { return nil })
}

func (a *Authority) find(ctx context.Context, by jpki.Actor, p Page, f store.CertificateFilter, allowed func(*store.Tx) error) (certs []store.Certificate, more bool, err error) {
	if by.Role != jpki.Counter {
		return nil, false, jpki.Errorf(jpki.Forbidden, "a %s does not search", by.Role)
	}
	if p.Limit < 0 || p.Limit > MaxPage {
		return nil, false, jpki.Errorf(jpki.Malformed, "a page has 1 to %d certificates", MaxPage)
	}
	if p.Limit == 0 {
		p.Limit = MaxPage
	}
	f.Municipality, f.After, f.Limit = by.Municipality, p.After, p.Limit+1
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if err := allowed(tx); err != nil {
			return err
		}
		certs, err = tx.FindCertificates(f)
		return err
	})
	if errors.Is(err, jpki.UnknownCertificate) {
		err = jpki.Errorf(jpki.Malformed, "after names no certificate")
	}
	if err != nil {
		return nil, false, err
	}
	if len(certs) > p.Limit {
		return certs[:p.Limit], true, nil
	}
	return certs, false, nil
}

// Package watch looks at published CRLs from outside, as a stranger would, and says what is wrong with them.
//
// [Look] fetches each [Target], reads it with package crl's reader, compares it with what the last look remembered in a
// [State], asks OCSP about some of its entries, and reports every [Finding]. It trusts nothing but the issuers' certificates.
// It publishes and repairs nothing. It follows RFC 5280 §5 and §6.3.3; a list that stands at another's address is found by the
// distribution point it names. Look keeps nothing: its caller keeps the State. Start at Look.
package watch

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// A Target is a list that must be there.
type Target struct {
	URL  string
	Full bool // of all that the issuer's key certified, so it names no distribution point
	// Delta says that it is a delta CRL, and Point the address of the complete one, which is the one that it names.
	Delta bool
	Point string
}

// A Status is what OCSP says of a certificate.
type Status struct {
	Unknown bool
	Revoked bool
	Reason  jpki.Reason
	At      time.Time // when it was revoked
}

// A Config says what to look at. Targets, Issuers, Fetch and Now are required.
type Config struct {
	Targets []Target
	Issuers []*x509.Certificate
	Fetch   func(ctx context.Context, url string) (io.ReadCloser, error)
	Now     func() time.Time
	MaxAge  time.Duration // a list older than that is old, whatever it says itself; 0 believes its nextUpdate

	// Ask asks OCSP; nil compares nothing. Sample is how many entries of each list are asked about; Seed picks them.
	Ask      func(ctx context.Context, issuer *x509.Certificate, serial jpki.Serial) (Status, error)
	Sample   int
	Seed     uint64
	Unlisted []*x509.Certificate // issued certificates that are asked about if the list for them does not name them

	// Expired reports whether a certificate that is listed no more has expired; nil knows of none.
	Expired func(ctx context.Context, issuer *x509.Certificate, serial jpki.Serial) (bool, error)
}

// A Check is what a finding is about.
type Check string

// The checks, in the order in which they are made. A list that fails one of the first four is not looked at further.
const (
	Fetch     Check = "fetch"     // it is there
	Form      Check = "form"      // it can be read
	Signature Check = "signature" // it is the issuer's
	Scope     Check = "scope"     // it is the one for this address
	Age       Check = "age"
	Number    Check = "number"   // it grows, and with it thisUpdate does not go back
	Vanished  Check = "vanished" // what was listed is listed, or expired, or released
	OCSP      Check = "ocsp"     // OCSP says the same
	Gone      Check = "gone"     // what was a target still is one
)

// A Finding is something wrong with a list.
type Finding struct {
	URL    string `json:"url"`
	Check  Check  `json:"check"`
	Detail string `json:"detail"`
}

// A Row is one list as it was found.
type Row struct {
	URL        string    `json:"url"`
	Number     *big.Int  `json:"number,omitempty"`
	ThisUpdate time.Time `json:"this_update,omitzero"`
	NextUpdate time.Time `json:"next_update,omitzero"`
	Entries    int       `json:"entries"`
	Asked      int       `json:"asked"` // of OCSP
	OK         bool      `json:"ok"`
}

// A Report is what one look found.
type Report struct {
	At       time.Time `json:"at"`
	Rows     []Row     `json:"lists"`
	Findings []Finding `json:"findings"`
}

// A Memory is what is kept of a list for the next look.
type Memory struct {
	Number     *big.Int                    `json:"number"`
	ThisUpdate time.Time                   `json:"this_update"`
	Entries    map[jpki.Serial]jpki.Reason `json:"entries"`
}

// A State is what the next look compares with, by URL. A list that failed keeps what was remembered before.
type State map[string]Memory

// Look looks at every target once. An error means that it could not look, not that something is wrong.
func Look(ctx context.Context, cfg Config, last State) (Report, State, error) {
	switch {
	case len(cfg.Targets) == 0:
		return Report{}, nil, errors.New("watch.Config.Targets is missing")
	case len(cfg.Issuers) == 0:
		return Report{}, nil, errors.New("watch.Config.Issuers is missing")
	case cfg.Fetch == nil:
		return Report{}, nil, errors.New("watch.Config.Fetch is missing")
	case cfg.Now == nil:
		return Report{}, nil, errors.New("watch.Config.Now is missing")
	}
	next := maps.Clone(last)
	if next == nil {
		next = State{}
	}
	w := &watcher{Config: cfg, now: cfg.Now(), rnd: rand.New(rand.NewPCG(cfg.Seed, 0))} //nolint:gosec // picks a sample
	report := Report{At: w.now, Findings: []Finding{}}
	wanted := map[string]bool{}
	for _, t := range cfg.Targets {
		wanted[t.URL] = true
		row, memory, err := w.look(ctx, t, last[t.URL])
		if err != nil {
			return Report{}, nil, err
		}
		if memory != nil {
			next[t.URL] = *memory
		}
		row.OK = len(w.found) == 0
		report.Rows = append(report.Rows, row)
		report.Findings = append(report.Findings, w.found...)
		w.found = nil
	}
	for _, url := range slices.Sorted(maps.Keys(last)) {
		if !wanted[url] {
			report.Findings = append(report.Findings, Finding{url, Gone, "it was looked at before and is no target any more"})
		}
	}
	return report, next, nil
}

// A watcher is one look under way.
type watcher struct {
	Config
	now   time.Time
	rnd   *rand.Rand
	found []Finding
}

func (w *watcher) fault(url string, check Check, format string, args ...any) {
	w.found = append(w.found, Finding{url, check, fmt.Sprintf(format, args...)})
}

// look looks at one target. A list that can be relied upon is remembered.
func (w *watcher) look(ctx context.Context, t Target, last Memory) (row Row, memory *Memory, err error) {
	row.URL = t.URL
	list, issuer := w.read(ctx, t.URL)
	if err := ctx.Err(); err != nil {
		return row, nil, err
	}
	if list == nil {
		return row, nil, nil
	}
	head := list.Head()
	row.Number, row.ThisUpdate, row.NextUpdate, row.Entries = head.Number, head.ThisUpdate, head.NextUpdate, head.Entries
	switch err := head.For(cmp.Or(t.Point, t.URL)); {
	case head.Delta() && !t.Delta:
		w.fault(t.URL, Scope, "it is a delta")
	case !head.Delta() && t.Delta:
		w.fault(t.URL, Scope, "it is no delta")
	case t.Full && (head.Points != nil || head.OnlyUser || head.OnlyCA || head.OnlyAttribute || head.Reasons != nil):
		w.fault(t.URL, Scope, "it is not of all that the issuer certified")
	case !t.Full && err != nil:
		w.fault(t.URL, Scope, "%v", err)
	}
	if len(w.found) > 0 {
		return row, nil, nil
	}
	if err := head.Fresh(w.now, w.MaxAge); err != nil {
		w.fault(t.URL, Age, "%v", err)
	}
	switch {
	case head.Number == nil:
		w.fault(t.URL, Number, "it has none")
	case last.Number == nil:
	case head.Number.Cmp(last.Number) < 0:
		w.fault(t.URL, Number, "%v, after %v", head.Number, last.Number)
	case head.Number.Cmp(last.Number) == 0 && !head.ThisUpdate.Equal(last.ThisUpdate):
		w.fault(t.URL, Number, "%v twice, of %s and of %s", head.Number, last.ThisUpdate.Format(time.RFC3339), head.ThisUpdate.Format(time.RFC3339))
	case head.ThisUpdate.Before(last.ThisUpdate):
		w.fault(t.URL, Number, "%v grew and thisUpdate went back", head.Number)
	}
	if len(w.found) > 0 && last.Number != nil && head.Number != nil && head.Number.Cmp(last.Number) < 0 {
		return row, nil, nil // an old list: what it does not name says nothing
	}
	entries := map[jpki.Serial]jpki.Reason{}
	for e := range list.All() {
		entries[e.Serial] = e.Reason
	}
	if t.Delta { // what it says goes into the complete list and vanishes with the base
		entries = nil
	} else if err := w.vanished(ctx, t.URL, issuer, last.Entries, entries); err != nil {
		return row, nil, err
	}
	row.Asked = w.compare(ctx, t.URL, issuer, list)
	return row, &Memory{head.Number, head.ThisUpdate, entries}, nil
}

// read fetches a list and finds out whose it is.
func (w *watcher) read(ctx context.Context, url string) (*crl.List, *x509.Certificate) {
	var why error
	check := Form
	for _, issuer := range w.Issuers {
		body, err := w.Fetch(ctx, url)
		if err != nil {
			w.fault(url, Fetch, "%v", err)
			return nil, nil
		}
		list, err := crl.Load(body, issuer)
		_ = body.Close()
		if err == nil {
			return list, issuer
		}
		if why == nil || errors.Is(err, crl.ErrSignature) { // says more than that it is another issuer's
			why = err
		}
	}
	if errors.Is(why, crl.ErrSignature) || errors.Is(why, crl.ErrIssuer) {
		check = Signature
	}
	w.fault(url, check, "%v", why)
	return nil, nil
}

// vanished looks for entries of the last list that are not in the new one, though neither expired nor released.
func (w *watcher) vanished(ctx context.Context, url string, issuer *x509.Certificate, last, now map[jpki.Serial]jpki.Reason) error {
	for serial, reason := range last {
		if _, listed := now[serial]; listed {
			continue
		}
		if w.Expired != nil {
			expired, err := w.Expired(ctx, issuer, serial)
			if err != nil {
				return fmt.Errorf("ask whether %s has expired: %w", serial, err)
			}
			if expired {
				continue
			}
		}
		if reason == jpki.CertificateHold && w.Ask != nil {
			if s, err := w.Ask(ctx, issuer, serial); err == nil && !s.Revoked && !s.Unknown {
				continue
			}
		}
		w.fault(url, Vanished, "%s (%s) is listed no more", serial, reason)
	}
	return nil
}

// compare asks OCSP about some entries and some certificates that are none.
func (w *watcher) compare(ctx context.Context, url string, issuer *x509.Certificate, list *crl.List) (asked int) {
	if w.Ask == nil {
		return 0
	}
	head := list.Head()
	for _, e := range w.sample(list) {
		asked++
		s, err := w.Ask(ctx, issuer, e.Serial)
		switch {
		case err != nil:
			w.fault(url, OCSP, "%s: %v", e.Serial, err)
		case e.Reason == jpki.RemoveFromCRL && (!s.Revoked && !s.Unknown || !s.At.Before(head.ThisUpdate)): // or suspended again since
		case e.Reason == jpki.RemoveFromCRL:
			w.fault(url, OCSP, "%s is released, OCSP says that it is %s", e.Serial, map[bool]string{true: "unknown", false: "revoked"}[s.Unknown])
		case !s.Revoked && e.Reason == jpki.CertificateHold && !s.Unknown: // released since
		case !s.Revoked:
			w.fault(url, OCSP, "%s is listed, OCSP says it is %s", e.Serial, map[bool]string{true: "unknown", false: "good"}[s.Unknown])
		case !s.At.Before(head.ThisUpdate): // changed since, or within the same second: times tell no more
		case s.Reason != e.Reason || !s.At.Equal(e.At):
			w.fault(url, OCSP, "%s is listed as %s since %s, OCSP says %s since %s", e.Serial, e.Reason, e.At.Format(time.RFC3339), s.Reason, s.At.Format(time.RFC3339))
		}
	}
	for _, cert := range w.Unlisted {
		if head.Delta() { // says nothing of what it does not name
			break
		}
		serial, err := jpki.SerialFromBig(cert.SerialNumber)
		if err != nil || head.Covers(cert) != nil || w.now.After(cert.NotAfter) {
			continue
		}
		if _, listed := list.Find(serial); listed {
			continue
		}
		asked++
		switch s, err := w.Ask(ctx, issuer, serial); {
		case err != nil:
			w.fault(url, OCSP, "%s: %v", serial, err)
		case s.Unknown:
			w.fault(url, OCSP, "%s was issued, OCSP does not know it", serial)
		case s.Revoked && s.At.Before(head.ThisUpdate):
			w.fault(url, OCSP, "%s is not listed, OCSP says revoked since %s", serial, s.At.Format(time.RFC3339))
		}
	}
	return asked
}

// sample picks entries, each as likely as any other.
func (w *watcher) sample(list *crl.List) (picked []crl.Entry) {
	seen := 0
	for e := range list.All() {
		seen++
		if len(picked) < w.Sample {
			picked = append(picked, e)
		} else if i := w.rnd.IntN(seen); i < w.Sample {
			picked[i] = e
		}
	}
	return picked
}

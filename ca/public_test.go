package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/status"
)

// A public is the zone that answers: CRLs and OCSP made from what the authority's database says, by the real parts.
type public struct {
	dir       string
	lists     *crl.Publisher
	index     *status.Index
	responder *ocsp.Responder
	keys      map[jpki.IssuerID]crypto.Signer // delegates'
	certified time.Time                       // when the delegates were
}

// kept is how long an expired certificate stays listed: two publication periods (RFC 5280 §3.3).
const kept = 48 * time.Hour

// A source shows the database to the CRL publisher.
type source struct{ w *world }

func (s source) Revoked(ctx context.Context, issuer jpki.IssuerID, partition string) (iter.Seq2[crl.Entry, error], crl.Mark, error) {
	return func(yield func(crl.Entry, error) bool) {
		for c, err := range s.w.db.EachListed(ctx, issuer, partition) {
			reason, at, _ := c.Status.Revocation()
			if err == nil && !s.w.now.Before(c.NotAfter.Add(kept)) {
				continue
			}
			if !yield(crl.Entry{Serial: c.ID.Serial, At: at, Reason: reason}, err) {
				return
			}
		}
	}, crl.Mark{AsOf: s.w.now}, nil
}

func (s source) MayVanish(ctx context.Context, issuer jpki.IssuerID, serial jpki.Serial) (bool, error) {
	c, err := s.w.db.StatusOf(ctx, jpki.CertID{Issuer: issuer, Serial: serial})
	return err == nil && (c.Status.State == jpki.Good || s.w.now.After(c.NotAfter)), err
}

// inForce returns the generations whose certificates have not expired: after that nobody asks.
func (w *world) inForce() []ca.Issuer {
	return slices.DeleteFunc(slices.Clone(w.generations), func(i ca.Issuer) bool { return w.now.After(i.Certificate.NotAfter) })
}

// open makes the public zone, or brings it up to the time and the generations of now.
func (w *world) open() *public {
	w.t.Helper()
	now := func() time.Time { return w.now }
	if w.public == nil {
		p := &public{dir: w.t.TempDir(), keys: map[jpki.IssuerID]crypto.Signer{}}
		p.index = must(status.New(status.Config{Log: &w.db.StatusReader, Now: now}))
		w.public = p
	}
	p := w.public
	if age := w.now.Sub(p.certified); p.responder != nil && age >= 0 && age < 29*24*time.Hour && len(p.keys) == len(w.generations) {
		return p
	}
	cfg := crl.Config{Dir: p.dir, Source: source{w}, Now: now}
	var delegates []ocsp.Delegate
	for _, i := range w.inForce() {
		issuer := crl.Issuer{ID: i.ID, Cert: i.Certificate, Signer: i.Signer}
		for _, partition := range w.profile.Partitions(i.ID.CA) {
			scope, _ := w.profile.CRLScope("http://status.example", i.ID, partition)
			issuer.Partitions = append(issuer.Partitions, scope)
		}
		cfg.Issuers = append(cfg.Issuers, issuer)
		if p.keys[i.ID] == nil {
			p.keys[i.ID] = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		}
		cert, err := must(ceremony.NewSigner(i.Certificate, i.Signer, now)).Responder(p.keys[i.ID], i.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		delegates = append(delegates, ocsp.Delegate{Issuer: i.ID, IssuerCertificate: i.Certificate, Certificate: cert, Key: p.keys[i.ID]})
	}
	p.lists, p.certified = must(crl.NewPublisher(cfg)), w.now
	p.responder = must(ocsp.New(ocsp.Config{Delegates: delegates, Statuses: p.index, Now: now}))
	return p
}

// published checks that every CRL and every OCSP answer says of every certificate what the status log says last.
func (w *world) published(log map[jpki.CertID]jpki.StatusChange) {
	w.t.Helper()
	if w.now.Before(w.latest()) || len(w.inForce()) == 0 {
		return // what is said of the future is not published, nor is a CRL taken back
	}
	p := w.open()
	for _, i := range w.inForce() {
		for _, partition := range append(w.profile.Partitions(i.ID.CA), "") {
			id := crl.ID{Issuer: i.ID, Partition: partition}
			if err := p.lists.Publish(context.Background(), id); err != nil {
				w.fault("%v", err)
				continue
			}
			w.listed(i, id, log)
		}
		w.answered(i, log)
	}
}

// listed compares a CRL with the log.
func (w *world) listed(i ca.Issuer, id crl.ID, log map[jpki.CertID]jpki.StatusChange) {
	w.t.Helper()
	list := must(x509.ParseRevocationList(must(os.ReadFile(filepath.Join(w.public.dir, id.Path())))))
	if err := list.CheckSignatureFrom(i.Certificate); err != nil {
		w.fault("CRL %s: %v", id, err)
	}
	got := map[jpki.Serial]x509.RevocationListEntry{}
	for _, e := range list.RevokedCertificateEntries {
		got[must(jpki.SerialFromBig(e.SerialNumber))] = e
	}
	for cert, c := range log {
		if cert.Issuer != i.ID || id.Partition != "" && id.Partition != c.Partition {
			continue
		}
		e, found := got[cert.Serial]
		want := c.Status.State != jpki.Good && w.now.Before(c.NotAfter.Add(kept))
		switch {
		case found != want:
			w.fault("CRL %s lists %s: %v; it is %s and ends %s", id, cert, found, c.Status.State, c.NotAfter)
		case found && (jpki.Reason(e.ReasonCode) != c.Status.Reason || !e.RevocationTime.Equal(c.Status.Since)):
			w.fault("CRL %s says of %s reason %d since %s, the log %s since %s", id, cert, e.ReasonCode, e.RevocationTime, c.Status.Reason, c.Status.Since)
		}
		delete(got, cert.Serial)
	}
	for serial := range got {
		w.fault("CRL %s lists %s, which the log does not know there", id, serial)
	}
}

// answered asks OCSP about all of an issuer's certificates and one that never was.
func (w *world) answered(i ca.Issuer, log map[jpki.CertID]jpki.StatusChange) {
	w.t.Helper()
	if err := w.public.index.Refresh(context.Background()); err != nil { // a clock that a test turns back has no monotonic part to tell
		w.fault("%v", err)
	}
	serials := []jpki.Serial{must(jpki.NewSerial(rand.Reader))}
	for cert := range log {
		if cert.Issuer == i.ID {
			serials = append(serials, cert.Serial)
		}
	}
	for some := range slices.Chunk(serials, ocsp.MaxCertIDs) {
		req := must(must(ocsp.NewRequest(i.Certificate, crypto.SHA256, nil, some...)).Marshal())
		rec := httptest.NewRecorder()
		w.public.responder.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(req)).WithContext(context.Background()))
		resp, err := ocsp.ParseResponse(rec.Body.Bytes())
		if err != nil || resp.Status != ocsp.Successful {
			w.fault("OCSP for %s: %v %v", i.ID, resp, err)
			return
		}
		if err := resp.Verify(ocsp.VerifyOptions{Issuer: i.Certificate, At: w.now}); err != nil {
			w.fault("OCSP for %s: %v", i.ID, err)
		}
		for _, serial := range some {
			a, err := resp.Answer(i.Certificate, serial)
			if err != nil {
				w.fault("OCSP on %s: %v", serial, err)
				continue
			}
			c, known := log[jpki.CertID{Issuer: i.ID, Serial: serial}]
			reason, at, revoked := c.Status.Revocation()
			if a.Unknown == known || known && (a.Revoked != revoked || a.Reason != reason || revoked && !a.RevokedAt.Equal(at)) {
				w.fault("OCSP says of %s %+v, the log %+v", serial, a, c.Status)
			}
		}
	}
}

// An auditedStatus is what an audit entry says of a certificate's status.
type auditedStatus struct {
	State   jpki.State `json:"state"`
	Reason  string     `json:"reason"`
	Cause   jpki.Cause `json:"cause"`
	Version int64      `json:"version"`
}

var actionOf = map[string]string{"issue": "good", "issue.abandoned": "revoked", "suspend": "suspended", "resume": "good", "revoke": "revoked"}

// invariants checks what must hold at any time, whatever was done or went wrong, and returns the status of every
// certificate: the audit record's chain; the status log without gaps, terminal where revoked, never going back in time; the
// audit record telling of each certificate the same story as the log; the status rows; every certificate of every holder
// with its status, and no good status without a certificate; lineages; at most one certificate of a kind in force.
func (w *world) invariants() map[jpki.CertID]jpki.StatusChange {
	w.t.Helper()
	audited := map[string][]auditedStatus{}
	if _, err := audit.Verify(w.db.AuditEntries(context.Background()), func(e audit.Entry) error {
		state, about := actionOf[e.Action]
		if !about {
			return nil
		}
		var s auditedStatus
		if err := json.Unmarshal([]byte(e.Detail), &s); err != nil || string(s.State) != state {
			return fmt.Errorf("audit entry %d: %s says %q (%w)", e.Seq, e.Action, e.Detail, err)
		}
		audited[e.Subject] = append(audited[e.Subject], s)
		return nil
	}); err != nil {
		w.fault("%v", err)
	}
	changes, err := w.db.StatusChanges(context.Background(), 0, 1_000_000)
	if err != nil {
		w.t.Fatal(err)
	}
	log := map[jpki.CertID]jpki.StatusChange{}
	logged := map[string][]auditedStatus{}
	for i, c := range changes {
		if c.Seq != int64(i+1) {
			w.fault("status log: entry %d at place %d", c.Seq, i+1)
		}
		before, known := log[c.ID]
		switch {
		case known && before.Status.State == jpki.Revoked:
			w.fault("%s came back from revocation", c.ID)
		case known && before.Status.State == c.Status.State:
			w.fault("%s became %s twice", c.ID, c.Status.State)
		case c.Status.Version != before.Status.Version+1:
			w.fault("%s: version %d after %d", c.ID, c.Status.Version, before.Status.Version)
		case known && (c.Partition != before.Partition || !c.NotAfter.Equal(before.NotAfter)):
			w.fault("%s changed its partition or its end", c.ID)
		case c.Status.Since.Before(before.Status.Since):
			w.fault("%s is %s since %s, but was %s since %s", c.ID, c.Status.State, c.Status.Since, before.Status.State, before.Status.Since)
		}
		s := auditedStatus{State: c.Status.State, Cause: c.Status.Cause, Version: c.Status.Version}
		if s.State != jpki.Good {
			s.Reason = c.Status.Reason.String()
		}
		logged[c.ID.String()] = append(logged[c.ID.String()], s)
		log[c.ID] = c
	}
	if !maps.EqualFunc(audited, logged, slices.Equal[[]auditedStatus]) {
		w.fault("the audit record tells another story than the status log:\n%v\n%v", audited, logged)
	}
	for id, c := range log {
		if now, err := w.db.StatusOf(context.Background(), id); err != nil || now.Status != c.Status {
			w.fault("%s: status %v, log says %v (%v)", id, now.Status, c.Status, err)
		}
	}
	w.holders(log)
	return log
}

// holders checks every person's certificates against the log.
func (w *world) holders(log map[jpki.CertID]jpki.StatusChange) {
	w.t.Helper()
	open := map[jpki.CertID]bool{}
	var all []store.Certificate
	err := w.db.View(context.Background(), func(tx *store.Tx) error {
		intents, err := tx.OpenIntents(time.UnixMicro(1<<62), 1000)
		for _, i := range intents {
			open[i.ID] = true
		}
		all = nil
		for _, h := range w.people {
			certs, err := tx.CertificatesOf(h)
			if err != nil {
				return err
			}
			w.lineages(h, certs)
			all = append(all, certs...)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	certified := map[jpki.CertID]bool{}
	for _, c := range all {
		certified[c.ID] = true
		l, found := log[c.ID]
		if !found || l.Status != c.Status || l.Partition != c.Partition || !l.NotAfter.Equal(c.NotAfter) || l.Status.Cause == jpki.Abandoned {
			w.fault("%s has status %v, the log says %v", c.ID, c.Status, l.Status)
		}
		x, err := x509.ParseCertificate(c.DER)
		if err != nil || !x.NotAfter.Equal(c.NotAfter) || !x.NotBefore.Equal(c.NotBefore) || must(jpki.SerialFromBig(x.SerialNumber)) != c.ID.Serial {
			w.fault("%s is not what is recorded of it (%v)", c.ID, err)
		}
	}
	for id, c := range log {
		if !certified[id] && (c.Status.Cause != jpki.Abandoned || c.Status.State != jpki.Revoked) {
			w.fault("%s is %s and there is no such certificate", id, c.Status.State)
		}
	}
	for id := range open {
		if _, found := log[id]; found {
			w.fault("%s has a status and is still being made", id)
		}
	}
}

// lineages checks that a person's certificates of a kind form one chain, each the successor of one other, and that one at
// most is in force.
func (w *world) lineages(holder string, certs []store.Certificate) {
	w.t.Helper()
	for _, kind := range jpki.Kinds {
		next := map[jpki.CertID]jpki.CertID{} // by the one replaced; the zero value before the first
		n, live := 0, 0
		for _, c := range certs {
			if c.Kind != kind {
				continue
			}
			n++
			if c.Live(w.latest()) {
				live++
			}
			var before jpki.CertID
			if c.Replaces != nil {
				before = *c.Replaces
			}
			if twice, found := next[before]; found {
				w.fault("%s: %s and %s both replace %s", holder, twice, c.ID, before)
			}
			next[before] = c.ID
		}
		length := 0
		for id, found := next[jpki.CertID{}]; found; id, found = next[id] {
			length++
		}
		if length != n {
			w.fault("%s has %d %s certificates, of which %d form a chain", holder, n, kind, length)
		}
		if live > 1 {
			w.fault("%s has %d %s certificates in force", holder, live, kind)
		}
	}
}

// latest is the latest time the world has seen: where a clock has gone back, what has expired may seem not to have.
func (w *world) latest() time.Time {
	if w.now.After(w.high) {
		w.high = w.now
	}
	return w.high
}

// check is all of it.
func (w *world) check() {
	w.t.Helper()
	w.published(w.invariants())
}

func TestTheChecksCanFail(t *testing.T) {
	onBoth(t, func(w *world) {
		id := w.issue("h1", "card-1", jpki.CardSign)[0].ID
		log := w.invariants()
		w.published(log)
		faults := 0
		w.fault = func(string, ...any) { faults++ }
		c := log[id]
		c.Status.State, c.Status.Reason = jpki.Revoked, jpki.Superseded
		log[id] = c
		if w.published(log); faults != 3 { // two CRLs and OCSP
			w.t.Errorf("%d faults in what is published of another state, want 3", faults)
		}
		w.fault = w.t.Errorf
	})
}

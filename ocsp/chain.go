package ocsp

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/openjpki/jpki"
)

// Exchange answers one request. Steps:
//  1. who asks may ask, and not too often
//  2. the request is read; of one issuer that is ours, or it is unauthorized as a whole: one response has one signer
//  3. the status is taken from a view that is fresh enough, with its version
//  4. an answer that says exactly this is taken from a shelf, or signed and put there
//  5. had it taken too long, or had the process been stopped in between, the answer is tryLater
//
// What is wrong with a request is said by an OCSP response with code 200. The octets of q are not kept.
func (r *Responder) Exchange(ctx context.Context, q *Query) Reply {
	at := r.cfg.Now()
	known, refusal := r.access.admit(&q.Client)
	if refusal != Successful {
		return r.refuse(refusal)
	}
	if !r.quota.take(&q.Client, known, 1, at) {
		r.counts.one(countQuota)
		return r.refuse(TryLater)
	}
	if one, ok := readSimple(q.Request); ok && !r.access.mustSign(known) {
		if n, ok := r.roster.Load().named[string(one.issuer)]; ok {
			if serial, err := readSerial(one.serial); err == nil {
				return r.single(ctx, q, &question{at: at, named: n, certID: one.certID, octets: one.serial, serial: serial})
			}
		}
	}
	return r.general(ctx, q, known, at)
}

var errSerial = errors.New("no authority may issue such a number")

// readSerial reads the contents of an INTEGER.
func readSerial(octets []byte) (jpki.Serial, error) {
	if octets[0] >= 0x80 {
		return jpki.Serial{}, errSerial
	}
	return jpki.SerialFromBytes(octets)
}

// general answers what is not simple.
func (r *Responder) general(ctx context.Context, q *Query, known bool, at time.Time) Reply {
	var m message
	if err := m.parse(bytes.Clone(q.Request)); err != nil { // a clone, for what is signed may be waited for in vain
		return r.refuse(MalformedRequest)
	}
	if refusal := r.access.checkSignature(m.signed, known, at); refusal != Successful {
		return r.refuse(refusal)
	}
	if n := len(m.CertIDs) - 1; n > 0 && !r.quota.take(&q.Client, known, n, at) {
		r.counts.one(countQuota)
		return r.refuse(TryLater)
	}
	n, ok := r.roster.Load().owner(m.CertIDs)
	if !ok {
		return r.refuse(Unauthorized)
	}
	if id := &m.CertIDs[0]; len(m.CertIDs) == 1 && m.Nonce == nil && !id.Serial.IsZero() {
		_, octets, _ := splitCertID(id.Raw)
		return r.single(ctx, q, &question{at: at, named: n, certID: id.Raw, octets: octets, serial: id.Serial, preferred: m.preferred})
	}
	return r.several(ctx, q, n, &m, at)
}

// owner returns the one issuer whom all the CertIDs name.
func (r *roster) owner(ids []CertID) (out named, ok bool) {
	for i := range ids {
		prefix, _, ok := splitCertID(ids[i].Raw)
		if !ok {
			return out, false
		}
		n, ok := r.named[string(prefix)]
		if !ok || i > 0 && n.issuer != out.issuer {
			return out, false
		}
		if i == 0 {
			out = n
		}
	}
	return out, len(ids) > 0
}

// A question is about one certificate and may be answered by what was said before.
type question struct {
	at        time.Time // taken before the status is read: it becomes producedAt
	named     named
	certID    []byte // DER
	octets    []byte // of the serial
	serial    jpki.Serial
	preferred []preference
}

// single answers a question about one certificate.
func (r *Responder) single(ctx context.Context, q *Query, ask *question) Reply {
	d := ask.named.pick(ask.at, ask.octets[len(ask.octets)-1], ask.preferred, &r.cfg)
	if d == nil {
		r.counts.one(countExpired)
		return r.refuse(TryLater)
	}
	st, asOf, err := r.cfg.Statuses.Status(ctx, jpki.CertID{Issuer: ask.named.id, Serial: ask.serial})
	if err != nil {
		if !errors.Is(err, jpki.UnknownCertificate) {
			return r.refuse(trouble(ctx, err))
		}
		if r.cfg.NeverIssued == AsUnauthorized {
			r.counts.one(countUnknown)
			return r.refuse(Unauthorized)
		}
		// What was never issued is not kept: there is no end of such numbers.
		x := &answers{producedAt: ask.at, list: []Answer{{CertID: CertID{Raw: bytes.Clone(ask.certID)}, Unknown: true}}}
		r.date(x, d, asOf)
		return r.uncached(ctx, q, d, x)
	}
	if stateNumber(st.State) == 0 || !writable(st.Since) {
		return r.refuse(InternalError)
	}
	var k key
	k.set(d, ask.named.form, ask.octets, &st)
	var had kept
	if r.cfg.Near != nil {
		if value, ok := r.near(ctx, &k); ok {
			if had, ok = k.openNear(value); ok {
				switch t := r.terms(had.thisUpdate, had.nextUpdate, st.State); {
				case !t.covers(ask.at):
				case t.due(ask.at):
					r.refresh(&k, d, ask, &st, asOf)
					fallthrough
				default:
					r.counts.one(countNear)
					return r.reply(q, ask.at, &had, st.State)
				}
			}
		}
	}
	got, refusal := r.fetch(ctx, &k, d, ask, &st, asOf)
	switch {
	case refusal == Successful:
		return r.reply(q, ask.at, &got, st.State)
	case refusal == TryLater && had.body != nil && had.thisUpdate <= ask.at.Unix() && ask.at.Unix() < had.nextUpdate:
		// It is what would have been said anew, and holds for a moment yet: so do answers when the keys are away.
		left := had.nextUpdate - ask.at.Unix()
		had.head = r.head(had.body, time.Unix(had.thisUpdate, 0), time.Unix(had.nextUpdate, 0), left/2, true)
		r.counts.one(countNear)
		return r.reply(q, ask.at, &had, st.State)
	}
	return r.refuse(refusal)
}

// names are keys in a form that a shelf can be asked for without allocating: it keeps none.
var names = sync.Pool{New: func() any { return new(key) }}

func (r *Responder) near(ctx context.Context, k *key) (value []byte, ok bool) {
	name := names.Get().(*key)
	*name = *k
	value, ok = r.cfg.Near.Get(ctx, unsafe.String(&name[0], keySize)) //nolint:gosec // see Shelf: the octets stay as they are until Get returns
	names.Put(name)
	return value, ok
}

// trouble is what is answered when the statuses cannot be had.
func trouble(ctx context.Context, err error) ResponseStatus {
	if errors.Is(err, jpki.Unavailable) || ctx.Err() != nil {
		return TryLater
	}
	return InternalError
}

// several answers about several certificates, with a nonce or about a number that no authority may issue.
func (r *Responder) several(ctx context.Context, q *Query, n named, m *message, at time.Time) Reply {
	first, _, _ := splitSerial(m.CertIDs[0].Raw)
	d := n.pick(at, first, m.preferred, &r.cfg)
	if d == nil {
		r.counts.one(countExpired)
		return r.refuse(TryLater)
	}
	list, asOf, refusal := r.find(ctx, n.id, m.CertIDs, at)
	if refusal != Successful {
		return r.refuse(refusal)
	}
	if r.cfg.NeverIssued == AsUnauthorized {
		for i := range list {
			if list[i].Unknown {
				r.counts.one(countUnknown)
				return r.refuse(Unauthorized)
			}
		}
	}
	x := &answers{producedAt: at, list: list, nonce: m.Nonce}
	r.date(x, d, asOf)
	return r.uncached(ctx, q, d, x)
}

// splitSerial returns the last octet of a CertID's serial, which is as random as any.
func splitSerial(certID []byte) (last byte, serial []byte, ok bool) {
	if _, serial, ok = splitCertID(certID); ok {
		last = serial[len(serial)-1]
	}
	return last, serial, ok
}

// find reads the statuses of the certificates and the time up to which the oldest view they rest on is complete.
func (r *Responder) find(ctx context.Context, issuer jpki.IssuerID, ids []CertID, at time.Time) (list []Answer, asOf time.Time, refusal ResponseStatus) {
	list, asOf = make([]Answer, len(ids)), at
	for i := range ids {
		a := &list[i]
		a.CertID = ids[i]
		if a.CertID.Serial.IsZero() {
			a.Unknown = true // no authority may issue such a number
			continue
		}
		if i > 0 && r.late(at) {
			r.counts.one(countLate)
			return nil, asOf, TryLater
		}
		var st jpki.Status
		var view time.Time
		var err error
		if id := (jpki.CertID{Issuer: issuer, Serial: a.CertID.Serial}); r.many != nil {
			st, view, err = r.many.StatusAt(ctx, id, at)
		} else {
			st, view, err = r.cfg.Statuses.Status(ctx, id)
		}
		switch {
		case errors.Is(err, jpki.UnknownCertificate):
			a.Unknown = true
		case err != nil:
			return nil, asOf, trouble(ctx, err)
		case !a.set(&st):
			return nil, asOf, InternalError
		}
		asOf = earliest(asOf, view)
	}
	return list, asOf, Successful
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (r *Responder) late(at time.Time) bool { return r.cfg.Now().Sub(at) > r.cfg.Late }

// set enters a status, and reports false for one that is none of the states: nothing is signed about it.
func (a *Answer) set(st *jpki.Status) bool {
	a.Reason, a.RevokedAt, a.Revoked = st.Revocation()
	return stateNumber(st.State) != 0 && writable(a.RevokedAt)
}

// date enters the times into answers. producedAt was taken before the statuses were read, so that an answer never claims
// to be newer than what it is made of; thisUpdate is the view it rests on.
func (r *Responder) date(x *answers, d *delegate, asOf time.Time) {
	this := earliest(x.producedAt, asOf).UTC().Truncate(time.Second)
	next := earliest(this.Add(r.cfg.Validity), d.Certificate.NotAfter.UTC())
	for i := range x.list {
		x.list[i].ThisUpdate, x.list[i].NextUpdate = this, next
	}
}

// uncached signs for one request alone.
func (r *Responder) uncached(ctx context.Context, q *Query, d *delegate, x *answers) Reply {
	var seen [3]int
	final := true
	for i := range x.list {
		a := &x.list[i]
		switch {
		case a.Unknown:
			seen[2]++
			if r.cfg.NeverIssued == AsRevoked { // RFC 6960 §2.2
				a.Unknown, a.Revoked, a.Reason, a.RevokedAt = false, true, jpki.CertificateHold, time.Unix(0, 0).UTC()
				x.extended = true
			}
		case a.Revoked:
			seen[1]++
		default:
			seen[0]++
		}
		final = final && a.Revoked && a.Reason != jpki.CertificateHold
	}
	d.complete(x)
	body, refusal := r.signAlone(ctx, d, x)
	if refusal != Successful {
		return r.refuse(refusal)
	}
	if r.late(x.producedAt) {
		r.counts.one(countLate)
		return r.refuse(TryLater)
	}
	state := jpki.Good
	if final {
		state = jpki.Revoked
	}
	this, next := x.list[0].ThisUpdate, x.list[0].NextUpdate
	t := r.terms(this.Unix(), next.Unix(), state)
	out := r.conditional(q, Reply{Code: http.StatusOK, Head: r.head(body, this, next, t.maxAge, x.nonce == nil), Body: body}, this.Unix())
	if out.Code == http.StatusNotModified {
		r.counts.one(countNotModified)
		return out
	}
	for i, n := range seen {
		r.counts[countGood+count(i)].Add(uint64(n))
	}
	return out
}

// reply serves what is kept.
func (r *Responder) reply(q *Query, at time.Time, a *kept, state jpki.State) Reply {
	if r.late(at) {
		r.counts.one(countLate)
		return r.refuse(TryLater)
	}
	out := r.conditional(q, Reply{Code: http.StatusOK, Head: a.head, Body: a.body}, a.thisUpdate)
	switch {
	case out.Code == http.StatusNotModified:
		r.counts.one(countNotModified)
	case state == jpki.Good:
		r.counts.one(countGood)
	default:
		r.counts.one(countRevoked)
	}
	return out
}

// The times of an answer that is kept, in Unix seconds.
type terms struct {
	thisUpdate, refresh, end int64 // is served from thisUpdate until end, and signed anew from refresh on
	maxAge                   int64
}

// terms says how long an answer is of use: until what an HTTP cache then takes would outlive it. One that is cut short by
// the end of its signer's certificate has less of everything.
func (r *Responder) terms(thisUpdate, nextUpdate int64, state jpki.State) terms {
	maxAge := r.cfg.MaxAge
	if state == jpki.Revoked {
		maxAge = r.cfg.RevokedMaxAge
	}
	life := nextUpdate - thisUpdate
	t := terms{thisUpdate: thisUpdate, refresh: thisUpdate + min(int64(r.cfg.Refresh/time.Second), life/2)}
	t.maxAge = min(int64(maxAge/time.Second), max(0, nextUpdate-t.refresh))
	t.end = nextUpdate - t.maxAge
	return t
}

func (t *terms) covers(at time.Time) bool {
	return t.thisUpdate <= at.Unix() && at.Unix() <= t.end
}

func (t *terms) due(at time.Time) bool { return at.Unix() >= t.refresh }

// conditional answers 304 if the client has this very answer (RFC 9110 §13.2.2). A date alone has to be later than
// thisUpdate: within a second two different answers may have been given.
func (r *Responder) conditional(q *Query, full Reply, thisUpdate int64) Reply {
	if !q.GET || q.IfNoneMatch == "" && q.IfModifiedSince == "" || len(full.Head) < len(headType)+len(headModified)+len(headTag)+tagLength {
		return full
	}
	rest := full.Head[len(headType)+len(headModified):]
	same := false
	if q.IfNoneMatch != "" {
		same = strings.TrimSpace(q.IfNoneMatch) == "*" || strings.Contains(q.IfNoneMatch, string(rest[len(headTag):len(headTag)+tagLength]))
	} else if t, err := http.ParseTime(q.IfModifiedSince); err == nil {
		same = thisUpdate < t.Unix()
	}
	if !same {
		return full
	}
	return Reply{Code: http.StatusNotModified, Head: rest}
}

package ocsp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
)

// Statuses is where a responder learns what is true of a certificate.
//
// Status returns the status and asOf, the time up to which the source's view is complete: no change committed before asOf
// is missing from it. How far asOf may lie behind is the source's promise. For a certificate that was never issued the
// error is jpki.UnknownCertificate, by errors.Is, and asOf still holds; for a view that is too old and cannot be refreshed
// it is jpki.Unavailable. Status is called by several goroutines at once.
type Statuses interface {
	Status(ctx context.Context, id jpki.CertID) (st jpki.Status, asOf time.Time, err error)
}

// Config is what a [Responder] needs.
type Config struct {
	Delegates []Delegate       // required: one for each issuer answered for
	Statuses  Statuses         // required
	Now       func() time.Time // required

	Prefix   string        // path under which the responder lives, as in "/ocsp"; "" for the root
	Validity time.Duration // thisUpdate to nextUpdate, in whole seconds; 0 means 5 minutes
	MaxAge   time.Duration // how long an HTTP cache may keep a GET's answer, in whole seconds, at most Validity; 0 means 1 minute

	// Late is the longest time from taking up a request to having its answer signed; a responder that was stopped in
	// between, or waited longer for its key, says tryLater. 0 means 1 second.
	Late time.Duration
}

// A Responder answers OCSP requests over HTTP. Mount it before any router, see [Responder.Before].
type Responder struct {
	cfg       Config
	delegates atomic.Pointer[[]*delegate]
	outcomes  jpki.Tally
}

// New returns a responder, having checked its delegates and tried their keys.
func New(cfg Config) (*Responder, error) {
	if cfg.Validity == 0 {
		cfg.Validity = 5 * time.Minute
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = min(time.Minute, cfg.Validity)
	}
	if cfg.Late == 0 {
		cfg.Late = time.Second
	}
	switch {
	case cfg.Statuses == nil:
		return nil, errors.New("make OCSP responder: Statuses is required")
	case cfg.Now == nil:
		return nil, errors.New("make OCSP responder: Now is required")
	case cfg.Validity < time.Second || cfg.Validity%time.Second != 0:
		return nil, errors.New("make OCSP responder: Validity is not a positive number of seconds")
	case cfg.MaxAge < time.Second || cfg.MaxAge%time.Second != 0 || cfg.MaxAge > cfg.Validity:
		return nil, errors.New("make OCSP responder: MaxAge is not a number of seconds between 1 and Validity")
	case cfg.Late < 0:
		return nil, errors.New("make OCSP responder: Late is negative")
	case cfg.Prefix != "" && (cfg.Prefix[0] != '/' || strings.HasSuffix(cfg.Prefix, "/")):
		return nil, errors.New("make OCSP responder: Prefix does not begin with a slash or ends with one")
	}
	r := &Responder{cfg: cfg}
	if err := r.SetDelegates(cfg.Delegates); err != nil {
		return nil, fmt.Errorf("make OCSP responder: %w", err)
	}
	return r, nil
}

// SetDelegates replaces all delegates at once, for a roll-over, after the checks that [New] makes. Answers begun are
// finished with the old ones. After an error the old ones stay.
func (r *Responder) SetDelegates(delegates []Delegate) error {
	if len(delegates) == 0 {
		return errors.New("set delegates: there is none")
	}
	checked := make([]*delegate, 0, len(delegates))
	for _, d := range delegates {
		c, err := newDelegate(d)
		if err != nil {
			return fmt.Errorf("set delegates: delegate for %s: %w", d.Issuer, err)
		}
		for _, other := range checked {
			if other.Issuer == d.Issuer || other.issued(c.ids[0]) {
				return fmt.Errorf("set delegates: two for %s", d.Issuer)
			}
		}
		checked = append(checked, c)
	}
	r.delegates.Store(&checked)
	return nil
}

// Outcomes returns how often each outcome occurred: good, revoked and unknown count certificates; notModified, the names
// of unsuccessful response statuses and those of HTTP refusals count requests. delegateExpired and late say why some of
// the tryLater were.
func (r *Responder) Outcomes() map[string]uint64 { return r.outcomes.Snapshot() }

// Before returns a handler that answers everything under the prefix itself and leaves the rest to next. It belongs in
// front of every router: routers clean paths, and base64 does not survive that.
func (r *Responder) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, ok := under(r.cfg.Prefix, req); ok {
			r.ServeHTTP(w, req)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// ServeHTTP answers a GET or POST (RFC 6960 appendix A.1, RFC 9919 §6). What is wrong with HTTP is answered by a problem,
// what is wrong with the OCSP request by an OCSP response with status 200. One response has one signer, so a request is
// unauthorized as a whole if it asks about any certificate of a foreign issuer or about those of two issuers.
func (r *Responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	der, ok := r.read(w, req)
	if !ok {
		return
	}
	q, err := ParseRequest(der)
	if err != nil {
		r.refuse(w, MalformedRequest)
		return
	}
	d := r.owner(q.CertIDs)
	if d == nil {
		r.refuse(w, Unauthorized)
		return
	}
	f, status := r.find(req.Context(), d, q.CertIDs)
	if status != Successful {
		r.refuse(w, status)
		return
	}
	cacheable := req.Method == http.MethodGet && q.Nonce == nil
	if cacheable && !r.late(f) && r.notModified(w, req, f) {
		return
	}
	body, err := d.respond(f.at, f.answers, q.Nonce)
	if err != nil {
		r.refuse(w, InternalError)
		return
	}
	if r.late(f) {
		r.outcomes.Add("late")
		r.refuse(w, TryLater)
		return
	}
	for _, a := range f.answers {
		r.outcomes.Add(a.outcome())
	}
	if cacheable {
		r.cacheHeaders(w.Header(), f, f.nextUpdate)
		w.Header().Set("Last-Modified", f.thisUpdate.Format(http.TimeFormat))
	} else {
		w.Header().Set("Cache-Control", uncached)
	}
	write(w, body)
}

// read returns the request's octets, or answers itself and returns false.
func (r *Responder) read(w http.ResponseWriter, req *http.Request) ([]byte, bool) {
	rest, ok := under(r.cfg.Prefix, req)
	switch {
	case !ok:
		r.outcomes.Add(string(jpki.WriteProblem(w, req, jpki.NotFound)))
		return nil, false
	case req.Method == http.MethodGet:
		der, err := DecodePath(rest)
		if err != nil {
			r.refuse(w, MalformedRequest)
		}
		return der, err == nil
	case req.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, POST")
		r.outcomes.Add(string(jpki.WriteProblem(w, req, jpki.MethodNotAllowed)))
		return nil, false
	case strings.Trim(rest, "/") != "":
		r.outcomes.Add(string(jpki.WriteProblem(w, req, jpki.NotFound)))
		return nil, false
	}
	sent := req.Header.Get("Content-Type")
	if t, _, _ := mime.ParseMediaType(sent); sent != "" && t != "application/ocsp-request" && t != "application/octet-stream" {
		r.outcomes.Add("unsupported-media-type")
		unsupportedMediaType(w, req)
		return nil, false
	}
	der, err := jpki.ReadBody(req, MaxRequestBytes)
	if err != nil {
		r.refuse(w, MalformedRequest)
	}
	return der, err == nil
}

// owner returns the delegate of the one issuer that all the CertIDs name, or nil.
func (r *Responder) owner(ids []CertID) *delegate {
	for _, d := range *r.delegates.Load() {
		if !d.issued(ids[0]) {
			continue
		}
		for _, id := range ids[1:] {
			if !d.issued(id) {
				return nil
			}
		}
		return d
	}
	return nil
}

// findings are the answers to one request before they are signed.
type findings struct {
	at                     time.Time // taken before the statuses were read: it becomes producedAt
	answers                []Answer
	thisUpdate, nextUpdate time.Time
	signer                 *delegate
}

// find reads the statuses. producedAt is taken before, so that an answer never claims to be newer than what it is made
// of, however long the process was stopped in between; thisUpdate is the oldest view it rests on.
func (r *Responder) find(ctx context.Context, d *delegate, ids []CertID) (findings, ResponseStatus) {
	f := findings{at: r.cfg.Now(), signer: d}
	// An expired delegate would sign what no verifier accepts; another responder may have its successor already.
	if f.at.Before(d.Certificate.NotBefore) || f.at.After(d.Certificate.NotAfter) {
		r.outcomes.Add("delegateExpired")
		return f, TryLater
	}
	f.thisUpdate = f.at
	f.answers = make([]Answer, len(ids))
	for i, id := range ids {
		f.answers[i].CertID = id
		if id.Serial.IsZero() {
			f.answers[i].Unknown = true // no authority may issue such a number
			continue
		}
		if i > 0 && r.late(f) {
			r.outcomes.Add("late")
			return f, TryLater
		}
		st, asOf, err := r.cfg.Statuses.Status(ctx, jpki.CertID{Issuer: d.Issuer, Serial: id.Serial})
		switch {
		case err == nil:
			if !f.answers[i].set(st) {
				return f, InternalError
			}
		case errors.Is(err, jpki.UnknownCertificate):
			f.answers[i].Unknown = true
		case errors.Is(err, jpki.Unavailable), ctx.Err() != nil:
			return f, TryLater
		default:
			return f, InternalError
		}
		if asOf.Before(f.thisUpdate) {
			f.thisUpdate = asOf
		}
	}
	f.thisUpdate = f.thisUpdate.UTC().Truncate(time.Second)
	f.nextUpdate = f.until(f.thisUpdate.Add(r.cfg.Validity))
	for i := range f.answers {
		f.answers[i].ThisUpdate, f.answers[i].NextUpdate = f.thisUpdate, f.nextUpdate
	}
	return f, Successful
}

func (r *Responder) late(f findings) bool { return r.cfg.Now().Sub(f.at) > r.cfg.Late }

// set enters a status, and reports false for one that is none of the states: nothing is signed about it.
func (a *Answer) set(st jpki.Status) bool {
	switch st.State {
	case jpki.Good, jpki.Suspended, jpki.Revoked:
		a.Reason, a.RevokedAt, a.Revoked = st.Revocation()
		return true
	}
	return false
}

func (a *Answer) outcome() string {
	switch {
	case a.Revoked:
		return "revoked"
	case a.Unknown:
		return "unknown"
	}
	return "good"
}

// until caps a time at the end of the signer's certificate.
func (f findings) until(t time.Time) time.Time {
	if end := f.signer.Certificate.NotAfter; t.After(end) {
		return end.UTC()
	}
	return t
}

// window is the beginning of the interval of MaxAge that thisUpdate lies in.
func (r *Responder) window(f findings) time.Time { return f.thisUpdate.Truncate(r.cfg.MaxAge) }

// tag is a validator of what the answer says. Answers of one window that say the same have the same tag though each is
// signed anew, so the tag is weak.
func (r *Responder) tag(f findings) string {
	h := sha256.New()
	h.Write(f.signer.Certificate.Raw)
	fmt.Fprintf(h, "%d", r.window(f).Unix())
	for _, a := range f.answers {
		h.Write(a.CertID.Raw)
		fmt.Fprintf(h, "%s %d %d ", a.outcome(), a.Reason, a.RevokedAt.Unix())
	}
	return `W/"` + hex.EncodeToString(h.Sum(nil)[:16]) + `"`
}

// notModified answers 304 if the client holds an answer that says the same and is still good for a while. The client's
// is as old as the window at most, so it ends no sooner than the window's beginning plus Validity.
func (r *Responder) notModified(w http.ResponseWriter, req *http.Request, f findings) bool {
	wanted := req.Header.Values("If-None-Match")
	if len(wanted) == 0 {
		return false
	}
	end := f.until(r.window(f).Add(r.cfg.Validity))
	if !f.at.Before(end) || !strings.Contains(strings.Join(wanted, ","), strings.TrimPrefix(r.tag(f), "W/")) {
		return false
	}
	r.outcomes.Add("notModified")
	r.cacheHeaders(w.Header(), f, end)
	w.WriteHeader(http.StatusNotModified)
	return true
}

// cacheHeaders says how long an answer that holds until end may be kept (RFC 9919 §6 and §7.2).
func (r *Responder) cacheHeaders(h http.Header, f findings, end time.Time) {
	age := max(0, min(r.cfg.MaxAge, end.Sub(f.at)))
	h.Set("Cache-Control", "max-age="+strconv.Itoa(int(age/time.Second))+", public, no-transform, must-revalidate")
	h.Set("Expires", end.Format(http.TimeFormat))
	h.Set("ETag", r.tag(f))
}

// uncached is for refusals and for signed answers that are meant for one client only: to a POST or with its nonce.
const uncached = "no-store"

// refuse sends an unsigned response, which nobody may keep.
func (r *Responder) refuse(w http.ResponseWriter, s ResponseStatus) {
	r.outcomes.Add(s.String())
	w.Header().Set("Cache-Control", uncached)
	write(w, refusals[s])
}

func write(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/ocsp-response")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

// unsupportedMediaType answers with a problem that has no type of its own (RFC 9457 §4.2.1).
func unsupportedMediaType(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", uncached)
	w.WriteHeader(http.StatusUnsupportedMediaType)
	_ = json.NewEncoder(w).Encode(jpki.ProblemDetails{
		Type: "about:blank", Title: http.StatusText(http.StatusUnsupportedMediaType), Status: http.StatusUnsupportedMediaType,
		Detail: "send application/ocsp-request", RequestID: jpki.RequestID(req.Context()),
	})
}

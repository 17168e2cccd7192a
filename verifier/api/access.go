package api

import (
	"crypto/sha256"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/store"
)

// believed is how long what a credential opens is believed before the store is asked again: how late a revoked token ends.
const believed = time.Second

// maxBelieved bounds how many credentials are remembered.
const maxBelieved = 10_000

// A keyring remembers what credentials open. Only those that open something are remembered, so strangers cannot fill it.
type keyring struct {
	mu    sync.Mutex
	known map[store.Credential]believedAccess
}

type believedAccess struct {
	access *store.Access
	until  time.Time
}

// access returns what the request's bearer token opens, or, without one, the key of the client certificate of its connection. That
// the caller has the key is what TLS proved; the certificate itself needs no issuer, since its key was told to us.
func (a *API) access(r *http.Request) (*store.Access, error) {
	var c store.Credential
	switch header := r.Header.Get("Authorization"); {
	case header != "":
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") || token == "" {
			return nil, jpki.Errorf(jpki.Unauthorized, "send Authorization: Bearer with your token")
		}
		c = store.Credential{Kind: store.BearerToken, Hash: sha256.Sum256([]byte(token))}
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		c = store.Credential{Kind: store.ClientCertificate, Hash: sha256.Sum256(r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)}
	default:
		return nil, jpki.Errorf(jpki.Unauthorized, "send Authorization: Bearer with your token")
	}
	now := a.Now()
	k := &a.readers
	k.mu.Lock()
	b, ok := k.known[c]
	k.mu.Unlock()
	if ok && now.Before(b.until) && !b.until.After(now.Add(believed)) {
		return b.access, nil
	}
	access, err := a.Store.Access(r.Context(), c, now)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		delete(k.known, c)
		return nil, err
	}
	if k.known == nil || len(k.known) >= maxBelieved {
		k.known = map[store.Credential]believedAccess{}
	}
	k.known[c] = believedAccess{access, now.Add(believed)}
	return access, nil
}

// meters count requests and verdicts of tenants. They are this process's: several processes allow as many times as much, and a
// restart begins anew.
type meters struct {
	mu      sync.Mutex
	tenants map[jpki.CorporateNumber]*meter
}

type meter struct {
	left float64   // requests that may come at once
	at   time.Time // when left was that
	day  string    // of verdicts
	used int64

	waiting int // requests that wait for something new
}

func (m *meters) of(t *store.Tenant) *meter {
	if m.tenants == nil {
		m.tenants = map[jpki.CorporateNumber]*meter{}
	}
	out := m.tenants[t.ID]
	if out == nil {
		out = &meter{left: math.Inf(1)}
		m.tenants[t.ID] = out
	}
	return out
}

// request takes one request from the tenant's bucket, which holds what two seconds bring.
func (m *meters) request(h http.Header, a *store.Access, standard int, now time.Time) error {
	rate := float64(standard)
	if a.Tenant.Rate > 0 {
		rate = float64(a.Tenant.Rate)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.of(&a.Tenant)
	t.left = min(t.left+rate*max(0, now.Sub(t.at).Seconds()), 2*rate)
	t.at = now
	if t.left < 1 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil((1-t.left)/rate))))
		return jpki.Errorf(jpki.RateLimited, "more than %g requests a second", rate)
	}
	t.left--
	return nil
}

// verdict takes one verdict from the tenant's quota of the day (UTC). h may be nil.
func (m *meters) verdict(h http.Header, a *store.Access, now time.Time) error {
	quota := a.Tenant.DailyQuota
	if quota == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t, now := m.of(&a.Tenant), now.UTC()
	if day := now.Format(time.DateOnly); t.day != day {
		t.day, t.used = day, 0
	}
	if t.used >= quota {
		if h != nil {
			h.Set("Retry-After", strconv.Itoa(int(now.Truncate(24*time.Hour).Add(24*time.Hour).Sub(now)/time.Second)+1))
		}
		return jpki.Errorf(jpki.RateLimited, "the quota of %d verdicts a day is used up; days end at midnight UTC", quota)
	}
	t.used++
	return nil
}

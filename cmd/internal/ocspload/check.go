package ocspload

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// A sample is an answer to be verified in full.
type sample struct {
	message *message
	nonce   []byte
	body    []byte
	at      time.Time
}

// sample hands an answer to the checker, unless that is busy: load comes first.
func (w *worker) sample(m *message, resp response) {
	s := sample{message: m, body: bytes.Clone(resp.body), at: time.Now()}
	if m.nonce > 0 {
		s.nonce = bytes.Clone(w.scratch[m.nonce:])
	}
	select {
	case w.samples <- s:
	default:
		w.check.skipped.Add(1)
	}
}

// A checker verifies samples as a relying party would.
type checker struct {
	set      *Set
	opt      Options
	checked  atomic.Uint64
	skipped  atomic.Uint64
	noNonce  atomic.Uint64
	wrong    atomic.Uint64
	mu       sync.Mutex
	examples []string
}

func (c *checker) verify(s sample) {
	c.checked.Add(1)
	if why := c.fault(s); why != "" {
		c.tell(s.message, why)
	}
}

// tell counts a wrong answer and remembers the first few.
func (c *checker) tell(m *message, why string) {
	c.wrong.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.set.targets[m.target]; len(c.examples) < maxExamples {
		c.examples = append(c.examples, fmt.Sprintf("%s, expected %s: %s", t.Serial, t.State, why))
	}
}

// fault says what is wrong with an answer, "" for nothing.
func (c *checker) fault(s sample) string {
	t := c.set.targets[s.message.target]
	r, err := ocsp.ParseResponse(s.body)
	if err != nil {
		return err.Error()
	}
	if r.Status == ocsp.Unauthorized && t.State == Unknown {
		return ""
	}
	o := ocsp.VerifyOptions{Issuer: t.Issuer, At: s.at, Skew: c.opt.Skew}
	if s.nonce != nil {
		if o.Nonce = s.nonce; r.Nonce == nil {
			c.noNonce.Add(1)
			if !c.opt.Nonces {
				o.Nonce = nil // RFC 9919 §3.2.1 allows it
			}
		}
	}
	if err := r.Verify(o); err != nil {
		return err.Error()
	}
	a, err := r.Answer(t.Issuer, t.Serial)
	if err != nil {
		return err.Error()
	}
	if err := a.Fresh(s.at, c.opt.Skew, c.opt.MaxAge); err != nil {
		return err.Error()
	}
	if got := StateOf(a); t.State != Any && got != t.State {
		return "says " + string(got)
	}
	return ""
}

// StateOf returns what an answer says in the words of targets.
func StateOf(a ocsp.Answer) State {
	switch {
	case a.Unknown:
		return Unknown
	case a.Revoked && a.Reason == jpki.CertificateHold:
		return Suspended
	case a.Revoked:
		return Revoked
	}
	return Good
}

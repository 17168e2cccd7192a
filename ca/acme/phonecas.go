package acme

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"sync"

	"github.com/go-chi/chi/v5"
	stepacme "github.com/smallstep/certificates/acme"
	casapi "github.com/smallstep/certificates/cas/apiv1"
	"go.step.sm/crypto/keyutil"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// A finalization is an order that is being finalized. smallstep's signing call knows only the key: it finds the order, and
// through that the enrolment, by the fingerprint that was attested for the order and is compared with the request's.
type finalization struct {
	ctx         context.Context // of the request, which ends after the finalization
	order       string
	fingerprint string
}

type finalizationKey struct{}

// finalizations are those under way, by the attested key's fingerprint.
type finalizations struct {
	mu sync.Mutex
	m  map[string]*finalization
}

func (s *finalizations) add(fingerprint string, f *finalization) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.m[fingerprint]; other != nil && other != f {
		return jpki.Errorf(jpki.InProgress, "an order for this key is being finalized")
	}
	if s.m == nil {
		s.m = map[string]*finalization{}
	}
	f.fingerprint, s.m[fingerprint] = fingerprint, f
	return nil
}

// find returns the finalization of a key.
func (s *finalizations) find(fingerprint string) *finalization {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[fingerprint]
}

func (s *finalizations) drop(f *finalization) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[f.fingerprint] == f {
		delete(s.m, f.fingerprint)
	}
}

// finalize runs smallstep's handler for the order in the path.
func (e *Enrolment) finalize(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f := &finalization{ctx: r.Context(), order: chi.URLParam(r, "ordID")}
		defer e.finalizing.drop(f)
		h(w, r.WithContext(context.WithValue(r.Context(), finalizationKey{}, f)))
	}
}

// certifyPhone is the signing service for phones. Of smallstep's draft it takes nothing, of the request the key and for what
// it is meant. Steps:
//  1. find the order by the attested key
//  2. check it all again, in one transaction, and write down the request: it is the one that counts if this is repeated
//  3. ca.Authority.Issue does the rest, or Renew, under the order as idempotency key: rules, intents, lints, audit
//  4. end the order with the certificate
//
// Killed in between, the same order is finalized again: Issue returns what it issued, or begins anew once
// ca.Authority.Reconcile has ended what was begun.
func (e *Enrolment) certifyPhone(csr *x509.CertificateRequest) (*casapi.CreateCertificateResponse, error) {
	// 1.
	fingerprint, err := keyutil.Fingerprint(csr.PublicKey)
	if err != nil {
		return nil, asACME(jpki.WrapError(jpki.Malformed, err, "the request's key cannot be read"))
	}
	f := e.finalizing.find(fingerprint)
	if f == nil {
		return nil, errors.New("nobody finalizes an order for this key")
	}
	// 2.
	a, err := e.admit(f, csr)
	if err != nil {
		return nil, asACME(err)
	}
	// 3.
	command := e.Authority.Issue
	if a.renews {
		command = e.Authority.Renew
	}
	issued, err := command(f.ctx, a.By, ca.IssueRequest{
		IdempotencyKey: "acme-" + f.order, Holder: a.Holder, Token: a.Token, Parent: &a.Parent,
		Requests: []ca.KeyRequest{{Kind: a.kind, Request: a.request}},
	})
	if err != nil {
		return nil, asACME(err)
	}
	// 4.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(f.ctx), patience)
	defer cancel()
	if err := e.Store.Update(ctx, func(tx *store.Tx) error { return tx.CertifyACMEOrder(f.order, issued[0].ID) }); err != nil {
		return nil, asACME(err)
	}
	leaf, err := x509.ParseCertificate(issued[0].Certificate)
	if err != nil {
		return nil, err
	}
	issuer, err := x509.ParseCertificate(issued[0].Issuer)
	if err != nil {
		return nil, err
	}
	return &casapi.CreateCertificateResponse{Certificate: leaf, CertificateChain: []*x509.Certificate{issuer}}, nil
}

// admitted is what counts of an order that is being finalized.
type admitted struct {
	store.PhoneEnrolment
	kind    jpki.Kind
	request []byte
	renews  bool // in the place of a certificate that the phone has
}

// admit checks an order that is being finalized. It returns the request that counts.
func (e *Enrolment) admit(f *finalization, csr *x509.CertificateRequest) (a admitted, err error) {
	if ca.CarriesMyNumber(csr) { // which must not be written down
		return a, jpki.Errorf(jpki.MyNumberPresent, "in the certification request")
	}
	err = e.Store.Update(f.ctx, func(tx *store.Tx) error {
		o, err := tx.ACMEOrder(f.order)
		if err != nil {
			return err
		}
		az, err := tx.ACMEAuthorization(o.Authorization)
		if err != nil {
			return err
		}
		if a.PhoneEnrolment, err = tx.PhoneEnrolmentOf(o.Account); err != nil {
			return err
		}
		if az.Account != o.Account || az.Status != string(stepacme.StatusValid) || az.ChallengeStatus != string(stepacme.StatusValid) || az.Fingerprint != f.fingerprint {
			return jpki.Errorf(jpki.Unauthorized, "the key is not attested for this order")
		}
		if o.Request != nil {
			first, err := x509.ParseCertificateRequest(o.Request)
			if err != nil {
				return err
			}
			a.request, a.renews = o.Request, o.Renews
			a.kind, err = requestedKind(first, a.Kinds)
			return err
		}
		if !e.Now().Before(a.ExpiresAt) {
			return errEnded
		}
		if a.kind, err = requestedKind(csr, a.Kinds); err != nil {
			return err
		}
		if a.renews, err = e.Authority.Renews(tx, a.Holder, a.Token, a.kind); err != nil {
			return err
		}
		sum := sha256.Sum256([]byte(az.Identifier))
		if err := tx.SetPhoneDevice(a.ID, hex.EncodeToString(sum[:])); err != nil {
			return err
		}
		a.request = csr.Raw
		return tx.RequestACMEOrder(o.ID, a.request, a.renews)
	})
	return a, err
}

// Bits of keyUsage (RFC 5280 §4.2.1.3) as asn1.BitString counts them.
const (
	digitalSignature = 0
	nonRepudiation   = 1
)

var oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

// requestedKind reads from a certification request for what its key is meant: the keyUsage that it asks for is the signature
// certificate's if it has nonRepudiation, and else the authentication certificate's. Without one it is the only kind that the
// enrolment is for.
func requestedKind(csr *x509.CertificateRequest, wanted []jpki.Kind) (jpki.Kind, error) {
	var kind jpki.Kind
	for _, x := range csr.Extensions {
		if !x.Id.Equal(oidKeyUsage) {
			continue
		}
		var usage asn1.BitString
		rest, err := asn1.Unmarshal(x.Value, &usage)
		if err != nil || len(rest) > 0 || kind != "" {
			return "", jpki.Errorf(jpki.Malformed, "the keyUsage of the certification request cannot be read")
		}
		for i := range usage.BitLength {
			if usage.At(i) == 1 && i > nonRepudiation {
				return "", jpki.Errorf(jpki.Malformed, "a phone's keys sign, and do nothing else")
			}
		}
		switch {
		case usage.At(nonRepudiation) == 1:
			kind = jpki.PhoneSign
		case usage.At(digitalSignature) == 1:
			kind = jpki.PhoneAuth
		default:
			return "", jpki.Errorf(jpki.Malformed, "a phone's keys sign, and do nothing else")
		}
	}
	if kind == "" && len(wanted) == 1 {
		return wanted[0], nil
	}
	switch {
	case kind == "":
		return "", jpki.Errorf(jpki.Malformed, "the certification request must ask for a keyUsage: nonRepudiation for the signature certificate, digitalSignature alone for the other")
	case !slices.Contains(wanted, kind):
		return "", jpki.Errorf(jpki.Forbidden, "the enrolment is not for a %s certificate", kind)
	}
	return kind, nil
}

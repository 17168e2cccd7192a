package ocsp

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"
)

// Admission says who is answered.
type Admission string

// The admissions. Whoever may not ask learns nothing: the refusals are unsigned and the same for every certificate.
const (
	Everybody     Admission = ""            // statuses are public
	ByCertificate Admission = "certificate" // whose client certificate is registered; others are unauthorized
	BySignature   Admission = "signature"   // whose request is signed with a registered certificate; unsigned: sigRequired
	ByEither      Admission = "either"
)

// A Register knows the relying parties by the SHA-256 of their certificates. It is asked by several goroutines at once.
type Register interface {
	Registered(certificate [sha256.Size]byte) bool
}

// Access is who may ask.
type Access struct {
	Who      Admission
	Register Register // required unless Everybody

	// Anchors are the certificates from which those of requestors descend; required for signatures. With anchors every
	// signature has to be right, even where none is needed; without, nobody can judge them and they are not looked at.
	//
	// A signature says who asks; it does not keep others from sending the same request again. That is accepted: OCSP
	// requests have no time, so only a memory of every nonce ever signed, shared by all responders, could tell, and a
	// shorter one would promise what it does not keep. Whoever can record a request has seen its answer beside it and learns
	// later statuses of the same certificates, of no others. Such a request counts against the quota of the address that
	// sends it, never of the requestor, whom it would otherwise lock out. To keep statuses from others use ByCertificate:
	// over TLS there is nothing to record.
	Anchors []*x509.Certificate
}

type access struct {
	Access
	anchors *x509.CertPool // nil without anchors
}

func newAccess(a Access) (access, error) {
	out := access{Access: a}
	switch a.Who {
	case Everybody:
	case ByCertificate, BySignature, ByEither:
		if a.Register == nil {
			return out, errors.New("Access.Register is required where not everybody is answered")
		}
	default:
		return out, errors.New("Access.Who is none of the admissions")
	}
	if (a.Who == BySignature || a.Who == ByEither) && len(a.Anchors) == 0 {
		return out, errors.New("Access.Anchors are required for signatures")
	}
	if len(a.Anchors) > 0 {
		out.anchors = x509.NewCertPool()
		for _, c := range a.Anchors {
			if c == nil || !c.IsCA {
				return out, errors.New("an anchor is not a certification authority")
			}
			out.anchors.AddCert(c)
		}
	}
	return out, nil
}

func (a *access) open() bool { return a.Who == Everybody }

// admit looks at what is known before the request is read. known: the client's certificate is registered.
func (a *access) admit(c *Client) (known bool, refusal ResponseStatus) {
	if a.Register != nil && a.Who != BySignature && len(c.Certificate) == sha256.Size {
		known = a.Register.Registered([sha256.Size]byte(c.Certificate))
	}
	if a.Who == ByCertificate && !known {
		return false, Unauthorized
	}
	return known, Successful
}

// mustSign reports whether an unsigned request is refused.
func (a *access) mustSign(known bool) bool {
	return a.Who == BySignature || a.Who == ByEither && !known
}

// checkSignature judges a request's signature, or its absence.
func (a *access) checkSignature(s *signedRequest, known bool, at time.Time) ResponseStatus {
	switch {
	case s == nil && a.mustSign(known):
		return SigRequired
	case s == nil || a.anchors == nil:
		return Successful
	}
	cert, err := s.verify(a.anchors, at)
	if err != nil || a.mustSign(known) && !a.Register.Registered(sha256.Sum256(cert.Raw)) {
		return Unauthorized
	}
	return Successful
}

// verify returns the certificate whose key signed the request (RFC 6960 §4.1.1, §4.1.2): that of the requestor named, which
// descends from an anchor and may make signatures.
func (s *signedRequest) verify(anchors *x509.CertPool, at time.Time) (*x509.Certificate, error) {
	if s.name == nil || s.algorithm == x509.UnknownSignatureAlgorithm {
		return nil, errors.New("requestor is not named or signs in a way that is not accepted")
	}
	var signer *x509.Certificate
	others := x509.NewCertPool()
	for _, der := range s.certs {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		if err := checkKey(c.PublicKey); err != nil {
			return nil, err // or its signatures could cost us anything
		}
		if signer == nil && bytes.Equal(c.RawSubject, s.name) {
			signer = c
		} else {
			others.AddCert(c)
		}
	}
	switch {
	case signer == nil:
		return nil, errors.New("no certificate is the requestor's")
	case signer.KeyUsage != 0 && signer.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0:
		return nil, errors.New("certificate is not for signatures")
	}
	if err := checkSignature(signer, s.algorithm, s.tbs, s.signature); err != nil {
		return nil, err
	}
	_, err := signer.Verify(x509.VerifyOptions{Roots: anchors, Intermediates: others, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return signer, err
}

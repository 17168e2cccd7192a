package acme

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"

	"github.com/openjpki/jpki"
)

// maxTokenLife bounds how far ahead a one-time token may end; step's live for five minutes. smallstep also takes tokens
// without an end.
const maxTokenLife = time.Hour

// authorize checks a one-time token and a request for it. Steps:
//  1. smallstep checks signature, issuer, audience and times, and what the request may say
//  2. we check what it leaves open: identifier, lifetime, the names
//  3. the operator's table says whether this provisioner admits this station; a station that speaks for itself is
//     authenticated as everywhere
//  4. the token is spent, and only now: smallstep's own order would let anybody spend a token by its identifier, or fill
//     the table with forgeries
func (e *Enrolment) authorize(ctx context.Context, ott string, csr *x509.CertificateRequest) (*order, []provisioner.SignOption, error) {
	options, err := e.step.Authorize(authority.NewContextWithSkipTokenReuse(provisioner.NewContextWithMethod(ctx, provisioner.SignMethod)), ott)
	if err != nil {
		return nil, nil, jpki.WrapError(jpki.Unauthorized, err, "the token is not valid here and now")
	}
	token, claims, err := readToken(ott)
	if err != nil {
		return nil, nil, err
	}
	if err := e.checkClaims(claims, csr); err != nil {
		return nil, nil, err
	}
	key, err := x509.MarshalPKIXPublicKey(csr.PublicKey)
	if err != nil {
		return nil, nil, jpki.WrapError(jpki.Malformed, err, "the request's key cannot be read")
	}

	by := provisionerOf(options)
	station, listed := e.stations[claims.Subject]
	if by == nil || !listed {
		return nil, nil, jpki.Errorf(jpki.Forbidden, "this token does not admit a station of this name")
	}
	o := &order{ctx: ctx}
	o.Station, o.Key = station.Actor, key
	switch {
	case by.GetName() == bySelf:
		chains, err := token.Headers[0].Certificates(x509.VerifyOptions{Roots: e.roots, CurrentTime: e.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if err != nil {
			return nil, nil, jpki.WrapError(jpki.ClientCertificateInvalid, err, "")
		}
		o.Present = chains[0][0]
		self, err := e.Authority.Authenticate(ctx, chains[0])
		if err != nil {
			return nil, nil, err
		}
		if self.ID != station.ID {
			return nil, nil, jpki.Errorf(jpki.Forbidden, "a station can renew its own certificate only")
		}
	case by.GetName() == station.Provisioner:
		o.By = jpki.Actor{Role: jpki.System, ID: "provisioner/" + station.Provisioner}
	default:
		return nil, nil, jpki.Errorf(jpki.Forbidden, "this token does not admit a station of this name")
	}

	if err := e.step.UseToken(ctx, ott, by); err != nil {
		return nil, nil, jpki.WrapError(jpki.Unauthorized, err, "the token has been used before")
	}
	return o, options, nil
}

type tokenClaims struct {
	jose.Claims
	SANs []string `json:"sans"`
}

// readToken reads a token that has been verified.
func readToken(ott string) (*jose.JSONWebToken, tokenClaims, error) {
	var claims tokenClaims
	token, err := jose.ParseSigned(ott)
	if err == nil {
		err = token.UnsafeClaimsWithoutVerification(&claims)
	}
	if err != nil {
		return nil, claims, jpki.WrapError(jpki.Unauthorized, err, "the token is not valid here and now")
	}
	return token, claims, nil
}

func (e *Enrolment) checkClaims(c tokenClaims, csr *x509.CertificateRequest) error {
	switch {
	case c.ID == "" || len(c.ID) > 256:
		return jpki.Errorf(jpki.Unauthorized, "the token has no identifier of reasonable length")
	case c.Expiry == nil || c.Expiry.Time().After(e.Now().Add(maxTokenLife)):
		return jpki.Errorf(jpki.Unauthorized, "the token lives longer than %s", maxTokenLife)
	}
	for _, name := range c.SANs {
		if name != c.Subject {
			return jpki.Errorf(jpki.Forbidden, "the token is for other names than the station's")
		}
	}
	return checkNames(csr, c.Subject)
}

// checkNames refuses a request for any name but the station's. Names in requests are never copied; one who asks for
// others is mistaken about what it will get.
func checkNames(csr *x509.CertificateRequest, station string) error {
	if cn := csr.Subject.CommonName; cn != "" && cn != station || len(csr.EmailAddresses)+len(csr.IPAddresses)+len(csr.URIs) > 0 {
		return jpki.Errorf(jpki.Forbidden, "the request is for other names than the station's")
	}
	for _, name := range csr.DNSNames {
		if name != station {
			return jpki.Errorf(jpki.Forbidden, "the request is for other names than the station's")
		}
	}
	return nil
}

// provisionerOf returns who made the token that led to these options.
func provisionerOf(options []provisioner.SignOption) provisioner.Interface {
	for _, o := range options {
		if p, ok := o.(provisioner.Interface); ok {
			return p
		}
	}
	return nil
}

package verifier

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/openjpki/jpki/verifier/path"
)

// A RevocationSource finds lists and answers that may say whether a certificate is revoked. It is not believed: what it
// returns counts as far as the issuer, or whom it named, signed it and it is current.
type RevocationSource struct {
	// Name says in results where something came from: "ocsp-cache", "http://crl.example.jp". It has no secrets.
	Name string
	// Find returns what the source has on certificate, nothing if it has nothing. at is the time of the verdict. An error is
	// reported as a fetch that failed, and the next source is asked. It must be safe for concurrent use.
	Find func(ctx context.Context, certificate, issuer *path.Certificate, at time.Time) (RevocationData, error)
}

// RevocationData is what a source has.
type RevocationData struct {
	CRLs  []*path.CRL
	OCSPs []*path.OCSP
}

// CheckerSource makes a source of a [StatusChecker] that answers with an OCSP response as evidence, such as [OCSP].
func CheckerSource(name string, c StatusChecker) RevocationSource {
	return RevocationSource{Name: name, Find: func(ctx context.Context, certificate, issuer *path.Certificate, at time.Time) (RevocationData, error) {
		leaf, err := x509.ParseCertificate(certificate.Raw)
		if err != nil {
			return RevocationData{}, errors.New("the certificate is one that crypto/x509 does not read")
		}
		by, err := x509.ParseCertificate(issuer.Raw)
		if err != nil {
			return RevocationData{}, errors.New("the issuer's certificate is one that crypto/x509 does not read")
		}
		rev, err := c.Check(ctx, leaf, by, at)
		if err != nil || rev.Format != mediaResponse {
			return RevocationData{}, err
		}
		answer, err := path.ParseOCSP(rev.Evidence)
		if err != nil {
			return RevocationData{}, err
		}
		return RevocationData{OCSPs: []*path.OCSP{answer}}, nil
	}}
}

// StoredSource makes a source of lists and answers that the caller keeps, such as yesterday's CRLs.
func StoredSource(name string, crls []*path.CRL, ocsps []*path.OCSP) RevocationSource {
	return RevocationSource{Name: name, Find: func(_ context.Context, certificate, issuer *path.Certificate, _ time.Time) (RevocationData, error) {
		out := RevocationData{OCSPs: ocsps}
		for _, l := range crls {
			if l.Issuer.Equal(issuer.Subject) || l.Issuer.Equal(certificate.Issuer) {
				out.CRLs = append(out.CRLs, l)
			}
		}
		return out, nil
	}}
}

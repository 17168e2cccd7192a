package ocsp_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

func TestRequestVectors(t *testing.T) {
	dir := vectors(t, "pyca-ocsp")
	for name, want := range map[string]struct {
		certs, nonce int
		extra, bad   bool
	}{
		"ocsp-army.inapplicable-req.der": {certs: 1}, "ocsp-army.revoked-req.der": {certs: 1}, "ocsp-army.valid-req.der": {certs: 1},
		"req-acceptable-responses.der": {certs: 1, extra: true}, "req-duplicate-ext.der": {bad: true},
		"req-ext-nonce.der": {certs: 1, nonce: 16}, "req-ext-unknown-oid.der": {certs: 1, extra: true},
		"req-invalid-hash-alg.der": {certs: 1}, "req-multi-sha1.der": {certs: 2}, "req-sha1.der": {certs: 1},
	} {
		q, err := ocsp.ParseRequest(must(os.ReadFile(filepath.Join(dir, name))))
		switch {
		case (err != nil) != want.bad:
			t.Errorf("%s: %v", name, err)
		case err == nil && (len(q.CertIDs) != want.certs || len(q.Nonce) != want.nonce || q.Extra != want.extra):
			t.Errorf("%s: %d certificates, nonce of %d, extra %v", name, len(q.CertIDs), len(q.Nonce), q.Extra)
		}
	}
}

func TestResponseVectors(t *testing.T) {
	dir := vectors(t, "pyca-ocsp")
	// As openssl ocsp -respin … -noverify -resp_text shows them.
	type want struct {
		answer       string // of the first certificate
		reason       jpki.Reason
		answers      int // 0 means 1
		certificates int
		byKey        bool
		noNext       bool
		unknownHash  bool
		status       ocsp.ResponseStatus
		bad          bool
	}
	for name, want := range map[string]want{
		"ocsp-army.deps.mil-resp.der":           {answer: "revoked", answers: 20, certificates: 1, byKey: true},
		"resp-delegate-unknown-cert.der":        {answer: "unknown", certificates: 1, byKey: true},
		"resp-invalid-signature-oid.der":        {answer: "good"},
		"resp-responder-key-hash.der":           {answer: "revoked", byKey: true},
		"resp-response-type-unknown-oid.der":    {bad: true},
		"resp-revoked-no-next-update.der":       {answer: "revoked", noNext: true},
		"resp-revoked-reason.der":               {answer: "revoked", reason: jpki.Superseded, certificates: 1},
		"resp-revoked.der":                      {answer: "revoked", byKey: true},
		"resp-sct-extension.der":                {answer: "good", certificates: 1},
		"resp-sha256.der":                       {answer: "good"},
		"resp-single-extension-reason.der":      {answer: "good", byKey: true},
		"resp-successful-no-response-bytes.der": {bad: true},
		"resp-unauthorized.der":                 {status: ocsp.Unauthorized},
		"resp-unknown-extension.der":            {answer: "revoked", reason: jpki.Superseded, certificates: 1},
		"resp-unknown-hash-alg.der":             {answer: "revoked", byKey: true, unknownHash: true},
		"resp-unknown-response-status.der":      {bad: true},
	} {
		r, err := ocsp.ParseResponse(must(os.ReadFile(filepath.Join(dir, name))))
		if (err != nil) != want.bad {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if r.Status != want.status {
			t.Errorf("%s: status %v", name, r.Status)
		}
		if r.Status != ocsp.Successful {
			continue
		}
		a := r.Answers[0]
		if answer(a) != want.answer || a.Reason != want.reason || len(r.Answers) != max(1, want.answers) || len(r.Certificates) != want.certificates ||
			a.NextUpdate.IsZero() != want.noNext || (r.ResponderKeyHash != nil) != want.byKey || (r.ResponderName != nil) == want.byKey ||
			(a.CertID.Hash == 0) != want.unknownHash {
			t.Errorf("%s: %s %v, %d answers, %d certificates, until %v, by key %x, hash %v", name,
				answer(a), a.Reason, len(r.Answers), len(r.Certificates), a.NextUpdate, r.ResponderKeyHash, a.CertID.Hash)
		}
	}
}

func answer(a ocsp.Answer) string {
	switch {
	case a.Revoked:
		return "revoked"
	case a.Unknown:
		return "unknown"
	}
	return "good"
}

// The certificates of these vectors are RSA with SHA-1: no signature of theirs is accepted any more, the rightly made as
// little as the others. Whom an answer is about can still be told, and wrong hashes are.
func TestSHA1Vectors(t *testing.T) {
	dir := vectors(t, "openssl-ocsp")
	cert := func(name string) *x509.Certificate {
		block, _ := pem.Decode(must(os.ReadFile(filepath.Join(dir, name))))
		return must(x509.ParseCertificate(block.Bytes))
	}
	for _, test := range []struct {
		response, issuer, cert string
		found                  bool
	}{
		{"D1.ors", "D1_Issuer_ICA.pem", "D1_Cert_EE.pem", true},
		{"ND1.ors", "ND1_Issuer_ICA.pem", "ND1_Cert_EE.pem", true},
		{"ND3.ors", "ND3_Issuer_Root.pem", "ND3_Cert_EE.pem", true},
		{"WIKH_D3.ors", "D3_Issuer_Root.pem", "D3_Cert_EE.pem", false},
		{"WINH_D3.ors", "D3_Issuer_Root.pem", "D3_Cert_EE.pem", false},
	} {
		text := must(os.ReadFile(filepath.Join(dir, test.response)))
		r, err := ocsp.ParseResponse(must(base64.StdEncoding.DecodeString(strings.ReplaceAll(string(text), "\n", ""))))
		if err != nil {
			t.Errorf("%s: %v", test.response, err)
			continue
		}
		issuer := cert(test.issuer)
		if a, err := r.Answer(issuer, must(jpki.SerialFromBig(cert(test.cert).SerialNumber))); (err == nil) != test.found || a.Revoked || a.Unknown {
			t.Errorf("%s: answer %+v, %v; found %v", test.response, a, err, test.found)
		}
		err = r.Verify(ocsp.VerifyOptions{Issuer: issuer, At: time.Date(2012, 11, 1, 0, 0, 0, 0, time.UTC)})
		if err == nil || !strings.Contains(err.Error(), "algorithm is not accepted") {
			t.Errorf("%s: %v", test.response, err)
		}
	}
}

package verifier

import (
	"bytes"
	"slices"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/jws"
	"github.com/openjpki/jpki/verifier/primitive"
)

// jwsCodes gives our code to the errors of package jws.
var jwsCodes = []struct {
	err  error
	code Code
}{
	{jws.ErrDigest, DigestMismatch},
	{jws.ErrNotFound, SignedDataMissing},
	{jws.ErrNoKey, SigningCertificateMissing},
	{jws.ErrCertificate, SigningCertificateMissing},
	{jws.ErrValue, SignatureWrong},
	{jws.ErrUnsupported, WeakAlgorithm},
	{jws.ErrMalformed, MalformedSignature},
}

// readJSON reads a JWS, compact or JSON, JAdES among them.
func readJSON(in *DocumentInput, e *Evidence) error {
	data, err := in.whole()
	if err != nil {
		return err
	}
	data = bytes.TrimSpace(data)
	options := jws.Options{Resolve: in.detachedBytes}
	signatures, err := jws.Read(data, options)
	if err == nil && slices.ContainsFunc(signatures, func(s *jws.Signature) bool { return !s.Inside && s.Payload == nil && s.Mechanism == "" }) {
		if payload, ok := in.detachedBytes(""); ok {
			options.Payload = payload
			signatures, err = jws.Read(data, options)
		}
	}
	if err != nil {
		return jpki.WrapError(jpki.Malformed, err, "the document is no JWS that is read here")
	}
	for _, s := range signatures {
		v := s.Verify()
		f := Facts{
			Certificate: v.Certificate, Named: len(s.Header.References) > 0 || len(s.Header.Certificates) > 0, PolicyID: s.Header.PolicyID, Policy: in.comparePolicy(s.Header.PolicyID, s.Header.Policy), Commitments: s.Header.Commitments, ClaimsRoles: s.Header.ClaimsRoles,
			ClaimedTime: s.Header.SigningTime.UTC(), NotBefore: s.Header.NotBefore.UTC(), NotAfter: s.Header.Expires.UTC(),
			Level: "JWS", Scope: Scope{Whole: !s.Inside}, Countersigns: s.Inside,
		}
		if len(s.Header.References) > 0 {
			f.Level = "JAdES"
		}
		for _, o := range s.Objects {
			f.Scope.Parts = append(f.Scope.Parts, o.URI)
		}
		f.sign(v.Key, s.Algorithm)
		f.Integrity, f.Detail = codeFor(v.Err, jwsCodes)
		if in.TokenHash != 0 && f.Integrity == OK {
			input, parts, err := s.Covered()
			if err != nil {
				return jpki.WrapError(jpki.Malformed, err, "what a token must name cannot be read")
			}
			f.Binding = in.binding(s.Value, primitive.Digest(in.TokenHash, input))
			for _, p := range parts {
				f.Binding.Data = append(f.Binding.Data, BoundData{p.Ref, primitive.Digest(in.TokenHash, p.Octets)})
			}
		}
		e.bring(s.Header.Certificates, nil, nil)
		e.bring(s.CertificateValues, s.CRLs, s.OCSPs)
		certificates := slices.Concat(s.Header.Certificates, s.CertificateValues)
		for i := range s.Stamps {
			kind, ok := map[string]StampKind{
				jws.SignatureStamp: SignatureStamp, jws.ArchiveStamp: ArchiveStamp, jws.ContentStamp: ContentStamp,
			}[s.Stamps[i].Kind]
			if ok {
				f.Stamps = append(f.Stamps, readStamp(e, kind, s.Stamps[i].Token, s.Stamps[i].Imprint, certificates))
			} else {
				f.Stamps = append(f.Stamps, unreadStamp(s.Stamps[i].Kind, s.Stamps[i].Token))
			}
		}
		e.Signatures = append(e.Signatures, f)
	}
	return nil
}

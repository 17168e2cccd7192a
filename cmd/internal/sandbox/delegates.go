package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/cmd/internal/delegates"
	"github.com/openjpki/jpki/ocsp"
)

// delegates is where the status zone keeps its keys.
func (d dir) delegates() delegates.Folder {
	return delegates.Folder{Dir: d.path("status"), Now: time.Now}
}

// certifyDelegate signs with the keys of whatever generations there are.
func certifyDelegate(issuers func() []ca.Issuer) ca.CertifyDelegate {
	return func(_ context.Context, id jpki.IssuerID, serial jpki.Serial, request []byte) (*x509.Certificate, error) {
		all := issuers()
		i := slices.IndexFunc(all, func(i ca.Issuer) bool { return i.ID == id })
		if i < 0 { // recorded a moment ago by another process
			return nil, jpki.Errorf(jpki.Unavailable, "the key of %s is not open yet", id)
		}
		signer, err := ceremony.NewSigner(all[i].Certificate, all[i].Signer, time.Now)
		if err != nil {
			return nil, err
		}
		return signer.CertifyResponder(request, id, serial)
	}
}

// certifiedBy has the status zone's keys certified by the authority of this process.
func certifiedBy(authority *ca.Authority, certify ca.CertifyDelegate) delegates.By {
	return func(ctx context.Context, issuer jpki.IssuerID, request []byte) (*x509.Certificate, error) {
		return authority.CertifyResponder(ctx, system, issuer, request, certify)
	}
}

// newKeeper returns a keeper that has a delegate for each generation, and renews them all.
func (s *System) newKeeper(ctx context.Context) (*ocsp.Keeper, error) {
	folder := s.dir.delegates()
	cfg := ocsp.KeeperConfig{
		// Whoever asks has the generation's key at hand: prepare announces it only when its post is filled.
		Certifier: certifiedBy(s.ca, func(ctx context.Context, id jpki.IssuerID, serial jpki.Serial, request []byte) (*x509.Certificate, error) {
			key, err := s.dir.openGeneration(ctx, id)
			if err != nil {
				return nil, err
			}
			cert, err := ReadCertificate(s.dir.certificate(id))
			if err != nil {
				return nil, err
			}
			return certifyDelegate(func() []ca.Issuer { return []ca.Issuer{{ID: id, Certificate: cert, Signer: key}} })(ctx, id, serial, request)
		}),
		Use: s.use, Keep: folder.Keep, Now: time.Now, Rand: rand.Reader,
	}
	for _, i := range s.keys.all() {
		post, err := folder.Post(ctx, i.ID, i.Certificate)
		if err != nil {
			return nil, err
		}
		cfg.Posts = append(cfg.Posts, post)
	}
	k, err := ocsp.NewKeeper(cfg)
	if err != nil {
		return nil, err
	}
	return k, k.Look(ctx)
}

// use has the responder sign by these, once there is one.
func (s *System) use(all []ocsp.Delegate) error {
	if s.responder == nil {
		return nil
	}
	return s.responder.SetDelegates(all)
}

// makeDelegate has a responder of a generation certified, if there is none yet.
func makeDelegate(ctx context.Context, authority *ca.Authority, d dir, i ca.Issuer) error {
	folder := d.delegates()
	post, err := folder.Post(ctx, i.ID, i.Certificate)
	if err != nil {
		return err
	}
	k, err := ocsp.NewKeeper(ocsp.KeeperConfig{
		Posts: []ocsp.Post{post}, Certifier: certifiedBy(authority, certifyDelegate(func() []ca.Issuer { return []ca.Issuer{i} })),
		Use: func([]ocsp.Delegate) error { return nil }, Keep: folder.Keep, Now: time.Now, Rand: rand.Reader,
	})
	if err != nil {
		return err
	}
	return k.Look(ctx)
}

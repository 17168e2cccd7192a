package sandbox

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/crl"
)

// follow sees to it that what another process did to the generations is so here: for a recorded one, OCSP, CRLs, the CA
// certificate and the bank stand ready; then the active one issues.
func (s *System) follow(ctx context.Context) error {
	var recorded []store.Generation
	if err := s.db.View(ctx, func(tx *store.Tx) (err error) { recorded, err = tx.Generations(); return err }); err != nil {
		return fmt.Errorf("read generations: %w", err)
	}
	for _, g := range recorded {
		if slices.ContainsFunc(s.keys.all(), func(i ca.Issuer) bool { return i.ID == g.Issuer }) {
			continue
		}
		cert, err := x509.ParseCertificate(g.Certificate)
		if err != nil {
			return fmt.Errorf("read generation %s: %w", g.Issuer, err)
		}
		key, err := s.dir.openGeneration(ctx, g.Issuer)
		if err != nil {
			return err
		}
		if err := s.prepare(ctx, ca.Issuer{ID: g.Issuer, Certificate: cert, Signer: key}); err != nil {
			return fmt.Errorf("prepare generation %s: %w", g.Issuer, err)
		}
	}
	return s.ca.Follow(ctx)
}

// prepare puts a generation into the service of the certificates that it will issue. What fails is begun anew by the next follow.
func (s *System) prepare(ctx context.Context, i ca.Issuer) error {
	s.preparing.Lock()
	defer s.preparing.Unlock()
	all := append(slices.Clone(s.keys.all()), i)
	post, err := s.dir.delegates().Post(ctx, i.ID, i.Certificate)
	if err != nil {
		return err
	}
	if err := s.keeper.AddPost(ctx, post); err != nil {
		return err
	}
	bank, err := s.newBank(all)
	if err != nil {
		return err
	}
	listed, err := s.listed(ctx, i)
	if err != nil {
		return err
	}
	if err := s.publisher.AddIssuer(listed); err != nil {
		return err
	}
	banks := append(slices.Clone(*s.banks.Load()), bank)
	s.banks.Store(&banks)
	s.keys.issuers.Store(&all)
	s.log.InfoContext(ctx, "a generation stands ready", slog.String("generation", i.ID.String()))
	return nil
}

// publishPatience is how long a roll waits for the sandbox that is running.
const publishPatience = 30 * time.Second

// awaitPublished waits until a running sandbox serves a generation's CA certificate and its full CRL.
func awaitPublished(ctx context.Context, env Env, id jpki.IssuerID) error {
	ctx, cancel := context.WithTimeout(ctx, publishPatience)
	defer cancel()
	get := func(url string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("HTTP status %d", resp.StatusCode)
		}
		return nil
	}
	for {
		err := errors.Join(get(env.StatusURL()+"/ca/"+id.String()+".cer"), get(env.CRLURL+"/"+(crl.ID{Issuer: id}).Path()))
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the running sandbox does not publish what belongs to %s, so it is not activated: %w", id, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/crl/watch"
	"github.com/openjpki/jpki/ocsp"
)

// watchOptions are the command line of crl watch.
type watchOptions struct {
	lists, state, ocspURL, metrics string
	certs, issuers                 []string
	sample                         int
	maxAge, every                  time.Duration
	asJSON                         bool
}

func crlWatchCommand() *cobra.Command {
	var o watchOptions
	c := &cobra.Command{
		Use: "watch", Short: "Look at every published CRL from outside and say what is wrong",
		Long: `Fetches every CRL and checks that it is there and the issuer's; that it is the one for its address and not another
partition's; its age; and, with -state FILE, that its number grew since the last look and that entries vanished only because
their certificates expired or were released. It asks OCSP about a random sample of its entries and about the certificates given.

What must be there: the addresses in -lists FILE, one a line; those that the certificates in -cert name; without either,
everything the sandbox in -dir publishes. An address that the last look had and this one has not is a finding, too. A list whose
address ends in /full.crl is one of all certificates, one in -delta.crl a delta of the one without. Whether a certificate has expired is known only of the sandbox.

Exit code 0: all is well; 3: something is not; 1: it could not look. With -every it goes on until Ctrl-C, and -metrics ADDRESS
shows what it finds to Prometheus.`,
		Example: `  jpki crl watch -state watch.json
  jpki crl watch -lists urls.txt -issuer sign-1.crt -issuer auth-1.crt -ocsp http://127.0.0.1:8080/ocsp -json
  jpki crl watch -state watch.json -every 1m -metrics 127.0.0.1:9101`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.sample < 0 || o.maxAge < 0 || o.every < 0 || o.metrics != "" && o.every == 0 {
				return usageError{errors.New("-sample, -max-age and -every are not negative, and -metrics needs -every")}
			}
			if o.every > 0 {
				return o.loop(c)
			}
			report, err := o.look(c.Context(), dirOf(c))
			if err != nil {
				return err
			}
			if err := o.print(c.OutOrStdout(), report); err != nil {
				return err
			}
			if len(report.Findings) > 0 {
				return errNo
			}
			return nil
		},
	}
	c.Flags().StringVar(&o.lists, "lists", "", "file with the addresses of the lists, one a line")
	c.Flags().StringSliceVar(&o.certs, "cert", nil, "issued certificate: its list is looked at, and OCSP asked about it")
	c.Flags().StringSliceVar(&o.issuers, "issuer", nil, "CA certificate, PEM or DER (default: the sandbox's)")
	c.Flags().StringVar(&o.state, "state", "", "file that remembers what was seen for the next look")
	c.Flags().StringVar(&o.ocspURL, "ocsp", "", "responder to compare with (default: the sandbox's)")
	c.Flags().IntVar(&o.sample, "sample", 10, "entries of each list that OCSP is asked about")
	c.Flags().DurationVar(&o.maxAge, "max-age", 0, "how old a list may be (default: as it says itself)")
	c.Flags().DurationVar(&o.every, "every", 0, "look again and again, that far apart")
	c.Flags().StringVar(&o.metrics, "metrics", "", "address for /metrics, /healthz and /readyz, with -every")
	c.Flags().BoolVar(&o.asJSON, "json", false, "print the report as JSON")
	return c
}

// look looks once and remembers what it saw.
func (o *watchOptions) look(ctx context.Context, dir string) (report watch.Report, err error) {
	cfg, done, err := o.config(dir)
	if err != nil {
		return report, err
	}
	defer done()
	last := watch.State{}
	if o.state != "" {
		text, err := os.ReadFile(o.state)
		if err == nil {
			err = json.Unmarshal(text, &last)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return report, fmt.Errorf("read what the last look saw: %w", err)
		}
	}
	report, next, err := watch.Look(ctx, cfg, last)
	if err != nil || o.state == "" {
		return report, err
	}
	text, err := json.Marshal(next)
	if err != nil {
		return report, err
	}
	if err := os.WriteFile(o.state+".new", text, 0o600); err != nil {
		return report, err
	}
	return report, os.Rename(o.state+".new", o.state)
}

// config finds out what to look at.
func (o *watchOptions) config(dir string) (cfg watch.Config, done func(), err error) {
	done = func() {}
	client := &http.Client{Timeout: 5 * time.Minute}
	cfg = watch.Config{Now: time.Now, MaxAge: o.maxAge, Sample: o.sample, Fetch: func(ctx context.Context, url string) (io.ReadCloser, error) { return fetchList(ctx, client, url) }}
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return cfg, done, err
	}
	cfg.Seed = binary.BigEndian.Uint64(seed[:])
	for _, path := range o.issuers {
		cert, err := sandbox.ReadCertificate(path)
		if err != nil {
			return cfg, done, err
		}
		cfg.Issuers = append(cfg.Issuers, cert)
	}
	for _, path := range o.certs {
		cert, err := sandbox.ReadCertificate(path)
		if err != nil {
			return cfg, done, err
		}
		cfg.Unlisted = append(cfg.Unlisted, cert)
		for _, url := range cert.CRLDistributionPoints {
			cfg.Targets = append(cfg.Targets, watch.Target{URL: url})
		}
	}
	if o.lists != "" {
		text, err := os.ReadFile(o.lists)
		if err != nil {
			return cfg, done, err
		}
		for url := range strings.FieldsSeq(string(text)) {
			cfg.Targets = append(cfg.Targets, targetAt(url))
		}
	}
	ocspURL := o.ocspURL
	if len(cfg.Targets) == 0 || len(cfg.Issuers) == 0 {
		if done, err = o.sandboxConfig(dir, &cfg, &ocspURL); err != nil {
			return cfg, done, err
		}
	}
	if ocspURL != "" {
		cfg.Ask = func(ctx context.Context, issuer *x509.Certificate, serial jpki.Serial) (watch.Status, error) {
			return askStatus(ctx, client, ocspURL, issuer, serial)
		}
	}
	slices.SortFunc(cfg.Targets, func(a, b watch.Target) int { return strings.Compare(a.URL, b.URL) })
	cfg.Targets = slices.Compact(cfg.Targets)
	return cfg, done, nil
}

// sandboxConfig fills in what the sandbox in dir publishes, whose certificates are its own and what its database knows.
func (o *watchOptions) sandboxConfig(dir string, cfg *watch.Config, ocspURL *string) (done func(), err error) {
	done = func() {}
	env, err := sandbox.Load(dir)
	if err != nil {
		return done, err
	}
	anchors, err := env.Anchors()
	if err != nil {
		return done, err
	}
	if len(cfg.Issuers) == 0 {
		cfg.Issuers = anchors
	}
	if *ocspURL == "" {
		*ocspURL = env.OCSPURL
	}
	if len(cfg.Targets) > 0 {
		return done, nil
	}
	root := filepath.Join(dir, "public", "crl")
	files, err := filepath.Glob(filepath.Join(root, "*", "*.crl"))
	if err != nil {
		return done, err
	}
	for _, f := range files {
		rel, err := filepath.Rel(root, f)
		if err != nil {
			return done, err
		}
		id, err := crl.ParsePath(filepath.ToSlash(rel))
		if err != nil {
			continue // something else that lies there
		}
		cfg.Targets = append(cfg.Targets, targetAt(env.CRLURL+"/"+id.Path()))
	}
	for _, path := range []string{env.SampleSignCert, env.SampleAuthCert} {
		cert, err := sandbox.ReadCertificate(path)
		if err != nil {
			return done, err
		}
		cfg.Unlisted = append(cfg.Unlisted, cert)
	}
	reader, err := store.OpenStatusReader("sqlite:" + filepath.Join(dir, "authority", "ca.db"))
	if err != nil {
		return done, err
	}
	cfg.Expired = func(ctx context.Context, issuer *x509.Certificate, serial jpki.Serial) (bool, error) {
		for _, f := range files {
			id, err := jpki.ParseIssuerID(filepath.Base(filepath.Dir(f)))
			if err != nil {
				continue
			}
			if cert, err := sandbox.ReadCertificate(sandbox.CertificateFile(dir, id)); err != nil || !cert.Equal(issuer) {
				continue
			}
			s, err := reader.StatusOf(ctx, jpki.CertID{Issuer: id, Serial: serial})
			if errors.Is(err, jpki.UnknownCertificate) {
				return false, nil
			}
			return err == nil && time.Now().After(s.NotAfter), err
		}
		return false, nil
	}
	return func() { _ = reader.Close() }, nil
}

// targetAt says what must be at an address, by its end.
func targetAt(url string) watch.Target {
	t := watch.Target{URL: url}
	if complete, delta := strings.CutSuffix(url, "-delta.crl"); delta {
		t.Delta, t.Point = true, complete+".crl"
	}
	t.Full = strings.HasSuffix(cmp.Or(t.Point, url), "/full.crl")
	return t
}

// maxList bounds what is fetched of a list.
const maxList = 4 << 30

func fetchList(ctx context.Context, client *http.Client, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("answered with status %d", resp.StatusCode)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxList), resp.Body}, nil
}

// askStatus asks OCSP about a serial number, of which there need be no certificate at hand.
func askStatus(ctx context.Context, client *http.Client, url string, issuer *x509.Certificate, serial jpki.Serial) (s watch.Status, err error) {
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return s, err
	}
	request, err := ocsp.NewRequest(issuer, crypto.SHA256, nonce, serial)
	if err != nil {
		return s, err
	}
	der, err := request.Marshal()
	if err != nil {
		return s, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(der))
	if err != nil {
		return s, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	resp, err := client.Do(req)
	if err != nil {
		return s, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, ocsp.MaxResponseBytes+1))
	if err != nil {
		return s, err
	}
	response, err := ocsp.ParseResponse(body)
	if err != nil {
		return s, err
	}
	if err := response.Verify(ocsp.VerifyOptions{Issuer: issuer, At: time.Now(), Nonce: nonce, Skew: time.Minute}); err != nil {
		return s, err
	}
	a, err := response.Answer(issuer, serial)
	if err != nil {
		return s, err
	}
	return watch.Status{Unknown: a.Unknown, Revoked: a.Revoked, Reason: a.Reason, At: a.RevokedAt}, nil
}

func (o *watchOptions) print(out io.Writer, r watch.Report) error {
	if o.asJSON {
		return json.NewEncoder(out).Encode(r)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "list\tnumber\tthis update\tnext update\tentries\tasked\t")
	for _, row := range r.Rows {
		verdict := "ok"
		if !row.OK {
			verdict = "WRONG"
		}
		number, times := "-", "-\t-"
		if row.Number != nil {
			number = row.Number.String()
		}
		if !row.ThisUpdate.IsZero() {
			times = row.ThisUpdate.In(jpki.JST).Format(time.DateTime) + "\t" + row.NextUpdate.In(jpki.JST).Format(time.DateTime)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", row.URL, number, times, row.Entries, row.Asked, verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, f := range r.Findings {
		fmt.Fprintf(out, "%s: %s: %s\n", f.URL, f.Check, f.Detail)
	}
	return nil
}

// loop looks again and again, prints what is wrong, and counts for Prometheus.
func (o *watchOptions) loop(c *cobra.Command) error {
	var looks, findings jpki.Tally
	var oldest, lists, wrong, at atomic.Int64
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
	var services []boot.Service
	if o.metrics != "" {
		listener, err := (&net.ListenConfig{}).Listen(c.Context(), "tcp", o.metrics)
		if err != nil {
			return err
		}
		ready := func() error {
			if at.Load() == 0 {
				return errors.New("not looked yet")
			}
			return nil
		}
		gauge := func(name, help string, v *atomic.Int64) boot.Metric {
			return boot.Gauge(name, help, func() float64 { return float64(v.Load()) })
		}
		services = append(services, boot.Service{Name: "admin", Listener: listener, Handler: boot.Admin(ready,
			boot.Outcomes("jpki_crl_watch_looks_total", "Looks at all CRLs, by outcome.", looks.Snapshot),
			boot.Outcomes("jpki_crl_watch_findings_total", "What was wrong with CRLs, by check.", findings.Snapshot),
			gauge("jpki_crl_watch_lists", "CRLs looked at.", &lists),
			gauge("jpki_crl_watch_wrong", "Findings of the last look.", &wrong),
			gauge("jpki_crl_watch_oldest_this_update_seconds", "thisUpdate of the oldest CRL, Unix time.", &oldest),
			gauge("jpki_crl_watch_last_look_seconds", "When the last look ended, Unix time.", &at))})
	}
	return boot.Run(c.Context(), log, services, boot.Every(log, "watch", o.every, func(ctx context.Context) error {
		report, err := o.look(ctx, dirOf(c))
		if err != nil {
			looks.Add("failed")
			return err
		}
		looks.Add(map[bool]string{true: "well", false: "wrong"}[len(report.Findings) == 0])
		var first int64
		for _, row := range report.Rows {
			if t := row.ThisUpdate.Unix(); !row.ThisUpdate.IsZero() && (first == 0 || t < first) {
				first = t
			}
		}
		for _, f := range report.Findings {
			findings.Add(string(f.Check))
			fmt.Fprintf(c.OutOrStdout(), "%s %s: %s: %s\n", report.At.UTC().Format(time.RFC3339), f.URL, f.Check, f.Detail)
		}
		oldest.Store(first)
		lists.Store(int64(len(report.Rows)))
		wrong.Store(int64(len(report.Findings)))
		at.Store(time.Now().Unix())
		return nil
	}))
}

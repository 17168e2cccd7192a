package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/crl/bucket"
)

func crlMirrorCommand() *cobra.Command {
	var cfg bucket.Config
	var credentials, prefix string
	var every time.Duration
	c := &cobra.Command{
		Use: "mirror", Short: "Put published CRLs and status snapshots into a bucket of an S3-compatible store",
		Long: `Verifies every CRL and status snapshot that the sandbox has published and puts it into the bucket unless that has one as new. Several
may work for one bucket: an older list never takes the place of a newer one, for which the store must honour If-Match and If-None-Match. The
file -credentials has the access key in its first line and the secret key in its second.

Once, or with -every again and again until Ctrl-C.`,
		Example: `  jpki crl mirror -endpoint https://s3.example -bucket crls -credentials /etc/jpki/s3 -every 1s`,
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if every < 0 {
				return usageError{errors.New("-every is not negative")}
			}
			text, err := os.ReadFile(credentials)
			if err != nil {
				return fmt.Errorf("read -credentials: %w", err)
			}
			lines := strings.Fields(string(text))
			if len(lines) != 2 {
				return fmt.Errorf("%s does not have two lines", credentials)
			}
			cfg.AccessKey, cfg.SecretKey, cfg.Now = lines[0], lines[1], time.Now
			b, err := bucket.New(cfg)
			if err != nil {
				return usageError{err}
			}
			log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
			m, err := mirrorOf(dirOf(c), bucket.MirrorConfig{Bucket: b, Prefix: prefix, Now: time.Now, Log: log})
			if err != nil {
				return err
			}
			if every > 0 {
				return boot.Run(c.Context(), log, nil, func(ctx context.Context) error { return m.Run(ctx, every) })
			}
			err = m.Sync(c.Context())
			printOutcomes(c, m.Outcomes.Snapshot())
			return err
		},
	}
	c.Flags().StringVar(&cfg.Endpoint, "endpoint", "", "of the store: https://s3.example")
	c.Flags().StringVar(&cfg.Region, "region", "us-east-1", "of the bucket")
	c.Flags().StringVar(&cfg.Name, "bucket", "", "its name")
	c.Flags().StringVar(&credentials, "credentials", "", "file with access key and secret key, a line each")
	c.Flags().StringVar(&prefix, "prefix", "crl/", "what keys of CRLs begin with; those of status snapshots begin with snapshot/")
	c.Flags().DurationVar(&every, "every", 0, "look again and again, that far apart")
	return c
}

// mirrorOf completes a configuration with the lists and issuers of the sandbox in dir.
func mirrorOf(dir string, cfg bucket.MirrorConfig) (*bucket.Mirror, error) {
	cfg.Dir, cfg.Issuers = filepath.Join(dir, "public", "crl"), map[jpki.IssuerID]*x509.Certificate{}
	cfg.Snapshots = filepath.Join(dir, "public", "snapshot")
	folders, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, f := range folders {
		id, err := jpki.ParseIssuerID(f.Name())
		if err != nil {
			continue
		}
		if cfg.Issuers[id], err = sandbox.ReadCertificate(sandbox.CertificateFile(dir, id)); err != nil {
			return nil, err
		}
	}
	return bucket.NewMirror(cfg)
}

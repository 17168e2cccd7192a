package sources

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki/crl/snapshot"
)

// FetchSnapshot brings dir up to date with the snapshots of one issuer below url, which ends in a slash. Steps:
//  1. the index
//  2. the files that it names and dir does not have
//  3. all of them opened together, and not older than what dir had
//  4. the index takes its place; what it does not name goes
func FetchSnapshot(ctx context.Context, url, dir string, issuer *x509.Certificate) (files int, octets int64, err error) {
	// 1.
	text, err := fetchLimited(ctx, url+snapshot.IndexName, 1<<20)
	if err != nil {
		return 0, 0, err
	}
	index, err := snapshot.ParseIndex(text)
	if err != nil {
		return 0, 0, err
	}
	var seen uint64
	cfg := snapshot.Config{IssuerCert: issuer, Now: time.Now}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, 0, err
	}
	if s, _, err := snapshot.OpenDir(dir, cfg); err == nil {
		seen = s.Info().Sequence
	}
	// 2.
	for _, f := range index.Files {
		path := filepath.Join(dir, f.Name)
		if have, err := os.ReadFile(path); err == nil && f.Matches(have) == nil {
			continue
		}
		content, err := fetchLimited(ctx, url+f.Name, f.Octets)
		if err == nil {
			err = f.Matches(content)
		}
		if err == nil {
			err = writeWhole(path, content)
		}
		if err != nil {
			return files, octets, err
		}
		files, octets = files+1, octets+f.Octets
	}
	// 3. in a folder of its own, of which the index is the only thing that is new
	trial, err := os.MkdirTemp(dir, ".trial")
	if err != nil {
		return files, octets, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(trial)) }()
	for _, f := range index.Files {
		if err := os.Link(filepath.Join(dir, f.Name), filepath.Join(trial, f.Name)); err != nil {
			return files, octets, err
		}
	}
	if err := writeWhole(filepath.Join(trial, snapshot.IndexName), text); err != nil {
		return files, octets, err
	}
	cfg.Sequence = seen
	if _, _, err := snapshot.OpenDir(trial, cfg); err != nil {
		return files, octets, err
	}
	// 4.
	if err := os.Rename(filepath.Join(trial, snapshot.IndexName), filepath.Join(dir, snapshot.IndexName)); err != nil {
		return files, octets, err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		ours := strings.HasSuffix(e.Name(), ".snapshot") || strings.HasSuffix(e.Name(), ".delta")
		if ours && !slices.ContainsFunc(index.Files, func(f snapshot.File) bool { return f.Name == e.Name() }) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return files, octets, err
}

// writeWhole replaces a file whole.
func writeWhole(path string, content []byte) error {
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func fetchLimited(ctx context.Context, url string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Timeout: 10 * time.Minute}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered with status %d", url, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("%s is longer than %d octets", url, limit)
	}
	return body, err
}

package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl/snapshot"
)

const (
	indexAge    = time.Minute // how long caches may keep an index
	mostOfIndex = 1 << 20     // octets
)

// pushSnapshots puts the snapshot, the deltas and the index of an issuer into the bucket unless that has as new ones. Steps:
//  1. open what the directory's index names, as a reader would
//  2. look at the bucket's index: its tag, and the number of the last file it names, which is read and verified
//  3. put the files that are not there; they never change under their names
//  4. put the index in the place of exactly the one that was looked at, or of none; if another is there now, from 2 again
//
// So at any moment the index in the bucket names whole files that are there and fit together, and the last one's number only grows.
func (m *Mirror) pushSnapshots(ctx context.Context, issuer jpki.IssuerID) error {
	dir := filepath.Join(m.cfg.Snapshots, issuer.String())
	// 1.
	info, err := os.Stat(filepath.Join(dir, snapshot.IndexName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // none yet
	}
	if err != nil {
		m.Outcomes.Add("failed")
		return err
	}
	if was := m.indexes[issuer]; was != nil && os.SameFile(was, info) && was.Size() == info.Size() && was.ModTime().Equal(info.ModTime()) {
		return nil
	}
	s, index, err := snapshot.OpenDir(dir, snapshot.Config{IssuerCert: m.cfg.Issuers[issuer], Now: m.cfg.Now})
	if err != nil {
		m.Outcomes.Add("refused")
		return err
	}
	outcome, err := m.replaceIndex(ctx, issuer, dir, index, s.Info().Sequence)
	m.Outcomes.Add(outcome)
	if err != nil {
		return err
	}
	m.indexes[issuer] = info
	folder := m.cfg.SnapshotPrefix + issuer.String() + "/"
	maps.DeleteFunc(m.files, func(key, _ string) bool { // of earlier indexes
		return strings.HasPrefix(key, folder) && !slices.ContainsFunc(index.Files, func(f snapshot.File) bool { return folder+f.Name == key })
	})
	m.cfg.Log.InfoContext(ctx, "status snapshots mirrored", slog.String("issuer", issuer.String()), slog.String("outcome", outcome))
	return nil
}

func (m *Mirror) replaceIndex(ctx context.Context, issuer jpki.IssuerID, dir string, index *snapshot.Index, sequence uint64) (outcome string, err error) {
	folder := m.cfg.SnapshotPrefix + issuer.String() + "/"
	text, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return "failed", err
	}
	content := Content{
		Body: bytes.NewReader(text), Octets: int64(len(text)), Type: "application/json",
		CacheControl: fmt.Sprintf("public, max-age=%d, must-revalidate", int(indexAge/time.Second)),
	}
	for range tries {
		// 2.
		tag, there, err := m.indexThere(ctx, issuer, folder)
		switch {
		case err != nil:
			return "failed", err
		case there > sequence:
			return "behind", nil
		case there == sequence:
			return "same", nil
		}
		// 3.
		for _, f := range index.Files {
			if err := m.putFile(ctx, dir, folder, f); err != nil {
				return "failed", err
			}
		}
		// 4.
		put, err := m.cfg.Bucket.Put(ctx, folder+snapshot.IndexName, content, tag)
		if err == nil {
			m.lastIndex[issuer] = lastIndex{put, sequence}
			return "put", nil
		} else if !errors.Is(err, jpki.Conflict) {
			return "failed", err
		}
	}
	return "failed", jpki.Errorf(jpki.Conflict, "others were quicker %d times", tries)
}

// indexThere returns the tag of the index in the bucket, empty if there is none, and the number of the last file it names. An index is not
// signed: one whose last file is not there, or not the issuer's, has the number 0. What was put last is known.
func (m *Mirror) indexThere(ctx context.Context, issuer jpki.IssuerID, folder string) (tag string, sequence uint64, err error) {
	tag, err = m.cfg.Bucket.Look(ctx, folder+snapshot.IndexName)
	if known, ok := m.lastIndex[issuer]; ok && err == nil && known.tag == tag {
		return tag, known.sequence, nil
	}
	var text []byte
	if err == nil {
		text, tag, err = m.read(ctx, folder+snapshot.IndexName, mostOfIndex)
	}
	switch {
	case errors.Is(err, jpki.NotFound):
		return "", 0, nil
	case err != nil:
		return "", 0, err
	}
	index, err := snapshot.ParseIndex(text)
	if err != nil {
		return tag, 0, nil //nolint:nilerr // rubbish, to be replaced
	}
	last := index.Files[len(index.Files)-1]
	file, _, err := m.read(ctx, folder+last.Name, last.Octets)
	switch {
	case errors.Is(err, jpki.NotFound):
		return tag, 0, nil
	case err != nil:
		return "", 0, err
	}
	info, _, err := snapshot.Verify(file, m.cfg.Issuers[issuer])
	if err != nil || last.Matches(file) != nil || info.Issuer != issuer {
		return tag, 0, nil //nolint:nilerr // as above
	}
	return tag, info.Sequence, nil
}

// read returns an object of at most so many octets; of a longer one, one more.
func (m *Mirror) read(ctx context.Context, key string, most int64) (octets []byte, tag string, err error) {
	body, tag, err := m.cfg.Bucket.Get(ctx, key)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = body.Close() }()
	if octets, err = io.ReadAll(io.LimitReader(body, most+1)); err != nil {
		return nil, "", jpki.WrapError(jpki.Unavailable, err, "the bucket broke off")
	}
	return octets, tag, nil
}

// putFile puts a snapshot or a delta where there is none under its name; what is there must be the same.
func (m *Mirror) putFile(ctx context.Context, dir, folder string, f snapshot.File) error {
	key := folder + f.Name
	if m.files[key] == f.SHA256 {
		return nil
	}
	octets, err := os.ReadFile(filepath.Join(dir, f.Name)) // ParseIndex lets no name pass that leads out of a folder
	if err != nil {
		return err
	}
	if err := f.Matches(octets); err != nil {
		return err
	}
	fresh := max(0, f.NextUpdate.Sub(m.cfg.Now()))
	_, err = m.cfg.Bucket.Put(ctx, key, Content{
		Body: bytes.NewReader(octets), Octets: f.Octets, Type: "application/octet-stream", CacheControl: fmt.Sprintf("public, max-age=%d, immutable", int(fresh/time.Second)),
	}, "")
	if errors.Is(err, jpki.Conflict) {
		var there []byte
		if there, _, err = m.read(ctx, key, f.Octets); err == nil && !bytes.Equal(there, octets) {
			err = jpki.Errorf(jpki.Conflict, "%s is in the bucket already and another", f.Name)
		}
	}
	if err == nil {
		m.files[key] = f.SHA256
	}
	return err
}

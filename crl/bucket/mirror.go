package bucket

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// A MirrorConfig says what goes where. Bucket, Dir, Issuers and Now are required.
type MirrorConfig struct {
	Bucket  *Bucket
	Dir     string // that a publisher writes to
	Issuers map[jpki.IssuerID]*x509.Certificate
	Now     func() time.Time
	Prefix  string // of the keys, before sign-1/99101.crl; "" means "crl/"

	Snapshots      string // that a snapshot.Publisher writes to; "" for none
	SnapshotPrefix string // of the keys, before sign-1/index.json; "" means "snapshot/"

	MaxAge time.Duration // how long caches may keep a list; 0 means 5 min
	Log    *slog.Logger  // optional
}

// A Mirror keeps the CRLs, and if it is told to the status snapshots, in a bucket as new as those in a directory.
type Mirror struct {
	// Outcomes counts what became of lists, and of indexes of snapshots with all that they name: "put", "same" or "behind" if the bucket's
	// is as new or newer, "refused" what is not its issuer's, "failed".
	Outcomes jpki.Tally

	cfg MirrorConfig

	mu   sync.Mutex
	done map[crl.ID]os.FileInfo
	last map[crl.ID]last // what this mirror has put

	indexes   map[jpki.IssuerID]os.FileInfo
	lastIndex map[jpki.IssuerID]lastIndex
	files     map[string]string // by key: the SHA-256 of what is there
}

type last struct {
	tag    string
	number *big.Int
}

type lastIndex struct {
	tag      string
	sequence uint64
}

// NewMirror checks the configuration.
func NewMirror(cfg MirrorConfig) (*Mirror, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "crl/"
	}
	if cfg.SnapshotPrefix == "" {
		cfg.SnapshotPrefix = "snapshot/"
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = 5 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Bucket == nil:
		return nil, errors.New("bucket.MirrorConfig.Bucket is missing")
	case cfg.Dir == "":
		return nil, errors.New("bucket.MirrorConfig.Dir is missing")
	case len(cfg.Issuers) == 0:
		return nil, errors.New("bucket.MirrorConfig.Issuers is missing")
	case cfg.Now == nil:
		return nil, errors.New("bucket.MirrorConfig.Now is missing")
	case !plain(cfg.Prefix):
		return nil, errors.New("bucket.MirrorConfig.Prefix is not the beginning of a key that we write")
	case !plain(cfg.SnapshotPrefix):
		return nil, errors.New("bucket.MirrorConfig.SnapshotPrefix is not the beginning of a key that we write")
	case cfg.MaxAge < 0:
		return nil, errors.New("bucket.MirrorConfig.MaxAge is negative")
	}
	return &Mirror{cfg: cfg, done: map[crl.ID]os.FileInfo{}, last: map[crl.ID]last{}, indexes: map[jpki.IssuerID]os.FileInfo{}, lastIndex: map[jpki.IssuerID]lastIndex{}, files: map[string]string{}}, nil
}

// Sync puts every list and every snapshot into the bucket that has changed since the last Sync, or at first all that are newer here. It goes on
// after an error.
func (m *Mirror) Sync(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var failed []error
	for issuer := range m.cfg.Issuers {
		entries, err := os.ReadDir(filepath.Join(m.cfg.Dir, issuer.String()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
		for _, e := range entries {
			id, err := crl.ParsePath(issuer.String() + "/" + e.Name())
			if err != nil {
				continue // something else that lies there
			}
			if err := m.push(ctx, id); err != nil {
				failed = append(failed, fmt.Errorf("put CRL %s into the bucket: %w", id, err))
			}
		}
		if m.cfg.Snapshots == "" {
			continue
		}
		if err := m.pushSnapshots(ctx, issuer); err != nil {
			failed = append(failed, fmt.Errorf("put status snapshots of %s into the bucket: %w", issuer, err))
		}
	}
	return errors.Join(failed...)
}

// Run syncs again and again until ctx ends. What fails is logged, counted and tried again.
func (m *Mirror) Run(ctx context.Context, every time.Duration) error {
	for {
		if err := m.Sync(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Log.ErrorContext(ctx, "the bucket is behind", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}

// push puts one list into the bucket unless that has one as new. Steps:
//  1. read and verify the list, for its number
//  2. look at the object: the tag that tells it from every other, and the number of its list
//  3. put the list in the place of exactly that one, or of none; if another is there now, from 2 again
func (m *Mirror) push(ctx context.Context, id crl.ID) error {
	// 1.
	f, err := os.Open(filepath.Join(m.cfg.Dir, filepath.FromSlash(id.Path())))
	if err != nil {
		m.Outcomes.Add("failed")
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		m.Outcomes.Add("failed")
		return err
	}
	if was := m.done[id]; was != nil && os.SameFile(was, info) && was.Size() == info.Size() && was.ModTime().Equal(info.ModTime()) {
		return nil
	}
	head, err := crl.Read(f, m.cfg.Issuers[id.Issuer], func(crl.Entry) error { return nil })
	if err == nil && (head.Number == nil || head.Delta() != id.Delta) {
		err = errors.New("it has no number, or is a delta and should be none, or the other way round")
	}
	if err != nil {
		m.Outcomes.Add("refused")
		return err
	}
	outcome, err := m.replace(ctx, id, f, info.Size(), head)
	m.Outcomes.Add(outcome)
	if err != nil {
		return err
	}
	m.done[id] = info
	m.cfg.Log.InfoContext(ctx, "CRL mirrored", slog.String("issuer", id.Issuer.String()), slog.String("shard", id.Partition), slog.Bool("delta", id.Delta), slog.String("outcome", outcome))
	return nil
}

// tries bounds how often others may be quicker: each of them put a list.
const tries = 20

func (m *Mirror) replace(ctx context.Context, id crl.ID, f *os.File, size int64, head *crl.Head) (outcome string, err error) {
	key := m.cfg.Prefix + id.Path()
	fresh := max(0, min(m.cfg.MaxAge, head.NextUpdate.Sub(m.cfg.Now())))
	content := Content{Body: f, Octets: size, Type: "application/pkix-crl", CacheControl: fmt.Sprintf("public, max-age=%d, must-revalidate", int(fresh/time.Second))}
	for range tries {
		// 2.
		tag, number, err := m.there(ctx, id, key)
		if err != nil {
			return "failed", err
		}
		if tag != "" {
			switch head.Number.Cmp(number) {
			case -1:
				return "behind", nil
			case 0:
				return "same", nil
			}
		}
		// 3.
		put, err := m.cfg.Bucket.Put(ctx, key, content, tag)
		if err == nil {
			m.last[id] = last{put, head.Number}
			return "put", nil
		} else if !errors.Is(err, jpki.Conflict) {
			return "failed", err
		}
	}
	return "failed", jpki.Errorf(jpki.Conflict, "others were quicker %d times", tries)
}

// there returns the tag of the object, empty if there is none, and the number of the list in it: what was put last is known,
// anything else is read and verified, and has the number -1 if it is no list of the issuer's. What a store says besides of an
// object is not believed: one was found that keeps it from the object before.
func (m *Mirror) there(ctx context.Context, id crl.ID, key string) (tag string, number *big.Int, err error) {
	tag, err = m.cfg.Bucket.Look(ctx, key)
	if known, ok := m.last[id]; ok && err == nil && known.tag == tag {
		return tag, known.number, nil
	}
	var body io.ReadCloser
	if err == nil {
		body, tag, err = m.cfg.Bucket.Get(ctx, key)
	}
	switch {
	case errors.Is(err, jpki.NotFound):
		return "", nil, nil
	case err != nil:
		return "", nil, err
	}
	defer func() { _ = body.Close() }()
	whole := &transfer{r: body}
	head, err := crl.Read(whole, m.cfg.Issuers[id.Issuer], func(crl.Entry) error { return nil })
	switch {
	case whole.err != nil: // which says nothing about the list
		return "", nil, jpki.WrapError(jpki.Unavailable, whole.err, "the bucket broke off")
	case err != nil || head.Number == nil:
		return tag, big.NewInt(-1), nil
	}
	return tag, head.Number, nil
}

// A transfer remembers why reading ended early.
type transfer struct {
	r   io.Reader
	err error
}

func (t *transfer) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}

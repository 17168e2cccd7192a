package snapshot_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/big"
	mrand "math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl/snapshot"
)

var (
	sign1 = jpki.IssuerID{CA: jpki.SignCA, Generation: 1}
	t0    = time.Date(2026, 4, 1, 3, 0, 0, 0, time.UTC)
)

// An authority is one generation of a test authority.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var authorities sync.Map // name → authority: keys are slow to make and the same for all tests

func newAuthority(tb testing.TB, name string) authority {
	tb.Helper()
	if a, ok := authorities.Load(name); ok {
		return a.(authority)
	}
	usage := x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	var key crypto.Signer
	var err error
	switch name {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "p-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "p-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "no CRLs":
		usage = x509.KeyUsageCertSign
		fallthrough
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"JPKI-SANDBOX"}},
		NotBefore: t0.AddDate(-5, 0, 0), NotAfter: t0.AddDate(10, 0, 0), KeyUsage: usage, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	a := authority{cert, key}
	authorities.Store(name, a)
	return a
}

// template returns what a snapshot of t0 says; number seq is taken seq hours later.
func template(a authority, seq uint64) snapshot.Template {
	at := t0.Add(time.Duration(seq-1) * time.Hour)
	return snapshot.Template{
		Issuer: sign1, IssuerCert: a.cert, Signer: a.key, Sequence: seq, ThisUpdate: at, NextUpdate: at.Add(24 * time.Hour),
		IssuedUntil: at.Add(-10 * time.Minute), ExpiresFrom: at, Rand: rand.Reader,
	}
}

func config(a authority) snapshot.Config {
	return snapshot.Config{IssuerCert: a.cert, Now: func() time.Time { return t0.Add(10 * time.Hour) }}
}

// serialOf returns the n-th serial: 16 octets that look random.
func serialOf(n uint64) jpki.Serial {
	var b [16]byte
	p := mrand.NewPCG(n, 20260401)
	binary.BigEndian.PutUint64(b[:], p.Uint64()|1<<63)
	binary.BigEndian.PutUint64(b[8:], p.Uint64())
	s, err := jpki.SerialFromBytes(b[:])
	if err != nil {
		panic(err)
	}
	return s
}

// A universe is so many certificates, of which so many parts in 2^16 are suspended and revoked.
type universe struct {
	n                  uint64
	suspended, revoked uint64
	salt               uint64 // other certificates are not good
}

func (u universe) state(n uint64) jpki.State {
	switch x := mrand.NewPCG(n, u.salt).Uint64() >> 48; {
	case x < u.suspended:
		return jpki.Suspended
	case x < u.suspended+u.revoked:
		return jpki.Revoked
	}
	return jpki.Good
}

func (u universe) all(yield func(snapshot.Certificate, error) bool) {
	for n := range u.n {
		if !yield(snapshot.Certificate{Serial: serialOf(n), State: u.state(n)}, nil) {
			return
		}
	}
}

func (u universe) question(n uint64) snapshot.Question {
	return snapshot.Question{Serial: serialOf(n), NotBefore: t0.AddDate(-1, 0, 0), NotAfter: t0.AddDate(4, 0, 0)}
}

// wrong asks about every certificate and returns how many answers are not the truth.
func (u universe) wrong(s *snapshot.Snapshot) (wrong uint64) {
	for n := range u.n {
		if state, covered := s.Lookup(u.question(n)); !covered || state != u.state(n) {
			wrong++
		}
	}
	return wrong
}

func build(tb testing.TB, t snapshot.Template, certificates iter.Seq2[snapshot.Certificate, error]) []byte {
	tb.Helper()
	var b bytes.Buffer
	if _, err := snapshot.Build(&b, t, certificates); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func open(tb testing.TB, file []byte, c snapshot.Config) *snapshot.Snapshot {
	tb.Helper()
	s, err := snapshot.Open(file, c)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// entropy returns the bits without which nobody can tell which of so many things are of each kind.
func entropy(kinds ...uint64) (bits float64) {
	var n uint64
	for _, k := range kinds {
		n += k
		f, _ := math.Lgamma(float64(k) + 1)
		bits -= f
	}
	f, _ := math.Lgamma(float64(n) + 1)
	return (bits + f) / math.Ln2
}

// Every answer is right, whatever the sizes and shares, and the file is little larger than it must be.
func TestExact(t *testing.T) {
	a := newAuthority(t, "p-256")
	for _, c := range []struct {
		universe
		most float64 // size by entropy
	}{
		{universe{300_000, 1311, 5243, 1}, 1.20}, // 2 and 8 %
		{universe{300_000, 3277, 3277, 2}, 1.20},
		{universe{300_000, 0, 6554, 3}, 1.15},
		{universe{300_000, 6554, 0, 4}, 1.15},
		{universe{300_000, 20, 655, 5}, 1.30},
		{universe{300_000, 10000, 30000, 6}, 1.20},
		{universe{200_000, 0, 65536, 7}, math.Inf(1)},
		{universe{200_000, 0, 0, 8}, math.Inf(1)},
		{universe{1, 0, 65536, 9}, math.Inf(1)},
		{universe{0, 0, 0, 10}, math.Inf(1)},
	} {
		t.Run(fmt.Sprintf("%d-%d-%d", c.n, c.suspended, c.revoked), func(t *testing.T) {
			file := build(t, template(a, 1), c.all)
			s := open(t, file, config(a))
			if wrong := c.wrong(s); wrong != 0 {
				t.Errorf("%d of %d answers are wrong", wrong, c.n)
			}
			i := s.Info()
			if i.Good+i.Suspended+i.Revoked != c.n {
				t.Errorf("covers %d, %d and %d, want %d together", i.Good, i.Suspended, i.Revoked, c.n)
			}
			if ratio := float64(len(file)*8) / entropy(i.Good, i.Suspended, i.Revoked); ratio > c.most {
				t.Errorf("%d octets are %.3f times the entropy, want at most %.2f", len(file), ratio, c.most)
			}
		})
	}
}

// Any list of serials of any length comes back, and the order in which they come is all the same.
func TestExactProperty(t *testing.T) {
	a := newAuthority(t, "p-256")
	rapid.Check(t, func(r *rapid.T) {
		raw := rapid.SliceOfNDistinct(rapid.SliceOfN(rapid.Byte(), 1, 20), 0, 300, func(b []byte) string { return new(big.Int).SetBytes(b).String() }).Draw(r, "serials")
		want := map[jpki.Serial]jpki.State{}
		var list []snapshot.Certificate
		for _, b := range raw {
			s, err := jpki.SerialFromBytes(b)
			if err != nil {
				continue // zero
			}
			state := rapid.SampledFrom([]jpki.State{jpki.Good, jpki.Suspended, jpki.Revoked}).Draw(r, "state")
			want[s] = state
			list = append(list, snapshot.Certificate{Serial: s, State: state})
		}
		tmpl := template(a, 1)
		tmpl.Rand = zeros{}
		file := build(t, tmpl, sequence(list))
		slices.Reverse(list)
		again := build(t, tmpl, sequence(list))
		const signature = 168 + 2
		if n := signature + int(file[168]); !bytes.Equal(file[:168], again[:168]) || !bytes.Equal(file[n:], again[signature+int(again[168]):]) {
			r.Fatal("another order makes another snapshot")
		}
		s := open(t, file, config(a))
		got := map[jpki.Serial]jpki.State{}
		for q, answer := range s.Answers(func(yield func(snapshot.Question) bool) {
			for s := range want {
				if !yield(snapshot.Question{Serial: s, NotBefore: t0.AddDate(-1, 0, 0), NotAfter: t0.AddDate(1, 0, 0)}) {
					return
				}
			}
		}) {
			if answer.Covered {
				got[q.Serial] = answer.State
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			r.Fatalf("answers (-want +got)\n%s", diff)
		}
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func sequence(list []snapshot.Certificate) iter.Seq2[snapshot.Certificate, error] {
	return func(yield func(snapshot.Certificate, error) bool) {
		for _, c := range list {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	a, other := newAuthority(t, "p-256"), newAuthority(t, "other")
	broken := errors.New("the database is gone")
	twice := sequence([]snapshot.Certificate{{serialOf(1), jpki.Good}, {serialOf(2), jpki.Good}, {serialOf(1), jpki.Revoked}})
	small := universe{n: 10}.all
	as := func(b authority) func(*snapshot.Template) {
		return func(t *snapshot.Template) { t.IssuerCert, t.Signer = b.cert, b.key }
	}
	for name, c := range map[string]struct {
		edit func(*snapshot.Template)
		list iter.Seq2[snapshot.Certificate, error]
	}{
		"serial twice":          {nil, twice},
		"no state":              {nil, sequence([]snapshot.Certificate{{serialOf(1), ""}})},
		"no serial":             {nil, sequence([]snapshot.Certificate{{jpki.Serial{}, jpki.Good}})},
		"sequence fails":        {nil, func(yield func(snapshot.Certificate, error) bool) { yield(snapshot.Certificate{}, broken) }},
		"no number":             {func(t *snapshot.Template) { t.Sequence = 0 }, small},
		"no issuer":             {func(t *snapshot.Template) { t.Issuer = jpki.IssuerID{} }, small},
		"no time left":          {func(t *snapshot.Template) { t.NextUpdate = t.ThisUpdate }, small},
		"covers the future":     {func(t *snapshot.Template) { t.IssuedUntil = t.ThisUpdate.Add(time.Second) }, small},
		"before 1970":           {func(t *snapshot.Template) { t.ExpiresFrom = time.Time{} }, small},
		"another key":           {func(t *snapshot.Template) { t.Signer = other.key }, small},
		"no certificate":        {func(t *snapshot.Template) { t.IssuerCert = nil }, small},
		"no chance":             {func(t *snapshot.Template) { t.Rand = nil }, small},
		"chance fails":          {func(t *snapshot.Template) { t.Rand = bytes.NewReader(nil) }, small},
		"may not sign CRLs":     {as(newAuthority(t, "no CRLs")), small},
		"unsuitable key":        {as(newAuthority(t, "p-521")), small},
		"signer of another sum": {func(t *snapshot.Template) { t.Signer = liar{t.Signer} }, small},
	} {
		t.Run(name, func(t *testing.T) {
			tmpl := template(a, 1)
			if c.edit != nil {
				c.edit(&tmpl)
			}
			var b bytes.Buffer
			if _, err := snapshot.Build(&b, tmpl, c.list); err == nil || b.Len() > 0 {
				t.Errorf("wrote %d octets, error %v", b.Len(), err)
			}
		})
	}
}

// liar signs something else.
type liar struct{ crypto.Signer }

func (l liar) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return l.Signer.Sign(r, make([]byte, len(digest)), opts)
}

// No octet can be altered, left out or added without the file being refused.
func TestEveryOctetCounts(t *testing.T) {
	for _, name := range []string{"p-256", "p-384", "rsa"} {
		a := newAuthority(t, name)
		file := build(t, template(a, 1), universe{2000, 1311, 5243, 1}.all)
		open(t, file, config(a))
		for i := range file {
			bad := slices.Clone(file)
			bad[i] ^= 1 << (i % 8)
			if _, err := snapshot.Open(bad, config(a)); err == nil {
				t.Errorf("%s: octet %d of %d may be altered", name, i, len(file))
			}
			if _, err := snapshot.Open(file[:i:i], config(a)); !errors.Is(err, jpki.Malformed) {
				t.Errorf("%s: may be cut off after %d octets: %v", name, i, err)
			}
		}
		if _, err := snapshot.Open(append(slices.Clone(file), 0), config(a)); !errors.Is(err, jpki.Malformed) {
			t.Errorf("%s: may be longer: %v", name, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	a := newAuthority(t, "p-256")
	file := build(t, template(a, 5), universe{n: 100}.all)
	at := func(now time.Time) snapshot.Config {
		return snapshot.Config{IssuerCert: a.cert, Now: func() time.Time { return now }}
	}
	issued := t0.Add(4 * time.Hour)
	seen := at(issued)
	seen.Sequence = 6
	same := at(issued)
	same.Sequence = 5
	for name, c := range map[string]struct {
		config snapshot.Config
		want   error
	}{
		"good":             {at(issued), nil},
		"seen before":      {same, nil},
		"last second":      {at(issued.Add(24*time.Hour - 1)), nil},
		"out of date":      {at(issued.Add(24 * time.Hour)), jpki.Unavailable},
		"of the future":    {at(issued.Add(-1)), jpki.Unavailable},
		"older than known": {seen, jpki.Unavailable},
		"another issuer":   {config(newAuthority(t, "other")), jpki.Malformed},
	} {
		if _, err := snapshot.Open(file, c.config); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// A snapshot signed by a key whose certificate does not let it, and one under another's name.
	fake := newAuthority(t, "other")
	forged := template(fake, 5)
	file = build(t, forged, universe{n: 100}.all)
	copy(file[16:48], build(t, template(a, 5), universe{n: 100}.all)[16:48])
	if _, err := snapshot.Open(file, at(issued)); !errors.Is(err, jpki.Malformed) {
		t.Errorf("forged: %v", err)
	}
}

// What a snapshot cannot know it says so.
func TestCoverage(t *testing.T) {
	a := newAuthority(t, "p-256")
	u := universe{1000, 0, 6554, 1}
	now := t0
	s := open(t, build(t, template(a, 1), u.all), snapshot.Config{IssuerCert: a.cert, Now: func() time.Time { return now }})
	i := s.Info()
	q := u.question(7)
	edit := func(f func(*snapshot.Question)) snapshot.Question { e := q; f(&e); return e }
	for name, c := range map[string]struct {
		question snapshot.Question
		now      time.Time
		covered  bool
	}{
		"covered":             {q, t0, true},
		"the newest":          {edit(func(q *snapshot.Question) { q.NotBefore = i.IssuedUntil }), t0, true},
		"too new":             {edit(func(q *snapshot.Question) { q.NotBefore = i.IssuedUntil.Add(time.Second) }), t0, false},
		"the oldest":          {edit(func(q *snapshot.Question) { q.NotAfter = i.ExpiresFrom }), t0, true},
		"expired":             {edit(func(q *snapshot.Question) { q.NotAfter = i.ExpiresFrom.Add(-time.Second) }), t0, false},
		"the last moment":     {q, i.NextUpdate.Add(-1), true},
		"out of date":         {q, i.NextUpdate, false},
		"the clock goes back": {q, i.ThisUpdate.Add(-1), false},
		"no serial":           {edit(func(q *snapshot.Question) { q.Serial = jpki.Serial{} }), t0, false},
	} {
		now = c.now
		state, covered := s.Lookup(c.question)
		if covered != c.covered || !covered && state != "" || covered && state != u.state(7) {
			t.Errorf("%s: %q, covered: %v", name, state, covered)
		}
	}
}

// Deltas bring a reader from day to day, in order and no other way, and every answer stays right.
func TestDeltas(t *testing.T) {
	a := newAuthority(t, "p-256")
	days := []universe{{50_000, 1311, 5243, 1}, {50_500, 1400, 5300, 1}, {51_000, 1300, 5500, 1}, {52_000, 0, 6600, 1}}
	first := open(t, build(t, template(a, 1), days[0].all), config(a))
	latest := first
	var deltas [][]byte
	for i, day := range days[1:] {
		var b bytes.Buffer
		info, err := snapshot.BuildDelta(&b, template(a, uint64(i)+2), latest, day.all)
		if err != nil {
			t.Fatal(err)
		}
		deltas = append(deltas, b.Bytes())
		if latest, err = latest.Apply(b.Bytes()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(info, latest.Info()); diff != "" || info.Good+info.Suspended+info.Revoked != day.n {
			t.Errorf("delta %d (-made +applied)\n%s", i, diff)
		}
		if wrong := day.wrong(latest); wrong != 0 {
			t.Errorf("%d wrong answers after delta %d", wrong, i)
		}
	}
	if wrong := days[0].wrong(first); wrong != 0 {
		t.Errorf("%d wrong answers of the first snapshot after others were derived", wrong)
	}
	if days[3].wrong(first) == 0 {
		t.Error("the deltas changed nothing")
	}

	if _, err := first.Apply(deltas[1]); !errors.Is(err, jpki.Conflict) {
		t.Errorf("a delta was left out: %v", err)
	}
	second, err := first.Apply(deltas[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Apply(deltas[0]); !errors.Is(err, jpki.Conflict) {
		t.Errorf("a delta twice: %v", err)
	}
	twin := open(t, build(t, template(a, 1), days[0].all), config(a)) // the same number, another salt
	if _, err := twin.Apply(deltas[0]); !errors.Is(err, jpki.Conflict) {
		t.Errorf("a delta of another snapshot: %v", err)
	}
	if _, err := first.Apply(build(t, template(a, 2), days[1].all)); !errors.Is(err, jpki.Malformed) {
		t.Errorf("a snapshot as a delta: %v", err)
	}
	if _, err := snapshot.Open(deltas[0], config(a)); !errors.Is(err, jpki.Malformed) {
		t.Errorf("a delta as a snapshot: %v", err)
	}
	for i := range len(deltas[0]) {
		bad := slices.Clone(deltas[0])
		bad[i] ^= 1 << (i % 8)
		if _, err := first.Apply(bad); err == nil {
			t.Fatalf("octet %d of a delta may be altered", i)
		}
		if i%16 == 0 {
			if _, err := first.Apply(deltas[0][:i]); !errors.Is(err, jpki.Malformed) {
				t.Fatalf("a delta may be cut off after %d octets: %v", i, err)
			}
		}
	}
}

func TestDeltaRefuses(t *testing.T) {
	a := newAuthority(t, "p-256")
	u := universe{1000, 0, 6554, 1}
	s := open(t, build(t, template(a, 5), u.all), config(a))
	changed := universe{1000, 0, 6554, 2}
	other := newAuthority(t, "other")
	for name, c := range map[string]struct {
		edit func(*snapshot.Template)
		list iter.Seq2[snapshot.Certificate, error]
	}{
		"same number":    {func(t *snapshot.Template) { t.Sequence = 5 }, changed.all},
		"earlier":        {func(t *snapshot.Template) { t.ThisUpdate = t.ThisUpdate.Add(-2 * time.Hour) }, changed.all},
		"covers less":    {func(t *snapshot.Template) { t.IssuedUntil = t.IssuedUntil.Add(-2 * time.Hour) }, changed.all},
		"another issuer": {func(t *snapshot.Template) { t.Issuer.Generation = 2 }, changed.all},
		"another key":    {func(t *snapshot.Template) { t.IssuerCert, t.Signer = other.cert, other.key }, changed.all},
		"serial twice": {nil, func(yield func(snapshot.Certificate, error) bool) {
			for n := range uint64(2000) {
				if c := (snapshot.Certificate{Serial: serialOf(n / 2), State: changed.state(n / 2)}); !yield(c, nil) {
					return
				}
			}
		}},
	} {
		tmpl := template(a, 6)
		if c.edit != nil {
			c.edit(&tmpl)
		}
		var b bytes.Buffer
		if _, err := snapshot.BuildDelta(&b, tmpl, s, c.list); err == nil || b.Len() > 0 {
			t.Errorf("%s: wrote %d octets, error %v", name, b.Len(), err)
		}
	}
}

// The temporary file goes, whether the build succeeds or not, and lies where it should.
func TestTemporaryFile(t *testing.T) {
	a := newAuthority(t, "p-256")
	u := universe{400_000, 0, 655, 1} // enough to need the file
	for _, fail := range []bool{false, true} {
		tmpl := template(a, 1)
		tmpl.TempDir = t.TempDir()
		seen := 0
		var last uint64
		tmpl.Progress = func(taken, built uint64) {
			if taken < last && built == 0 {
				t.Errorf("progress went from %d to %d", last, taken)
			}
			last = taken
			files, err := os.ReadDir(tmpl.TempDir)
			if err != nil {
				t.Error(err)
			}
			seen = max(seen, len(files))
		}
		_, err := snapshot.Build(io.Discard, tmpl, func(yield func(snapshot.Certificate, error) bool) {
			for c, err := range u.all {
				if !yield(c, err) {
					return
				}
			}
			if fail {
				yield(snapshot.Certificate{}, io.ErrUnexpectedEOF)
			}
		})
		if (err != nil) != fail {
			t.Error(err)
		}
		files, err := os.ReadDir(tmpl.TempDir)
		if err != nil || len(files) != 0 || seen != 1 {
			t.Errorf("%d files seen, %d left: %v", seen, len(files), err)
		}
	}
	tmpl := template(a, 1)
	tmpl.TempDir = "/nowhere"
	if _, err := snapshot.Build(io.Discard, tmpl, u.all); err == nil {
		t.Error("built without a place for the temporary file")
	}
}

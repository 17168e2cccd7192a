package seed_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/seed"
	"github.com/openjpki/jpki/ocsp/status"
)

// empty is a log of an authority that never issued anything.
type empty struct{}

func (empty) StatusChanges(context.Context, int64, int) ([]jpki.StatusChange, error) { return nil, nil }

func plan(n int) seed.Plan {
	now := time.Now().UTC().Truncate(time.Second)
	return seed.Plan{
		Number: 42, Count: n, Revoked: 0.05, Issuers: []jpki.IssuerID{{CA: jpki.SignCA, Generation: 1}, {CA: jpki.AuthCA, Generation: 1}},
		Since: now, NotAfter: now.AddDate(5, 0, 0),
	}
}

// add makes a snapshot of a plan and returns where it is.
func add(t testing.TB, p seed.Plan) (snapshot, plans string) {
	t.Helper()
	return addIn(t, t.TempDir(), p)
}

func addIn(t testing.TB, dir string, p seed.Plan) (snapshot, plans string) {
	t.Helper()
	snapshot, plans = filepath.Join(dir, "snapshot"), filepath.Join(dir, "seeds")
	if err := p.Add(snapshot, plans, time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	return snapshot, plans
}

func open(t testing.TB, snapshot string, now func() time.Time) *status.Index {
	t.Helper()
	x, err := status.New(status.Config{Log: empty{}, Now: now, Snapshot: snapshot, AcceptTrial: true, Bound: time.Hour})
	if err == nil {
		err = errors.Join(x.SnapshotErr(), x.Refresh(context.Background()))
	}
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestPlan(t *testing.T) {
	first, second := plan(10_001), plan(3000)
	second.Number, second.Revoked = 43, 1
	snapshot, plans := add(t, first)
	if err := second.Add(snapshot, plans, time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	kept, err := seed.Read(plans)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]seed.Plan{first, second}, kept); diff != "" {
		t.Errorf("plans (-want +got):\n%s", diff)
	}
	x := open(t, snapshot, time.Now)
	if x.Len() != 13_001 {
		t.Errorf("%d certificates", x.Len())
	}
	revoked := 0
	for _, p := range kept {
		for k := range p.Count {
			c := p.At(k)
			got, _, err := x.Status(t.Context(), c.ID)
			if err != nil || got.State != c.Status.State {
				t.Fatalf("certificate %d: %v, %v; want %v", k, got, err, c.Status)
			}
			if got.State == jpki.Revoked {
				if revoked++; got.Reason != jpki.AffiliationChanged || !got.Since.Equal(p.Since) || got.Version != 1 {
					t.Fatalf("certificate %d: %+v", k, got)
				}
			}
		}
	}
	if revoked != 500+3000 {
		t.Errorf("%d are revoked", revoked)
	}
	unknown := first.At(17).ID
	octets := unknown.Serial.Bytes()
	octets[15] ^= 1
	unknown.Serial, _ = jpki.SerialFromBytes(octets)
	if st, _, err := x.Status(t.Context(), unknown); !errors.Is(err, jpki.UnknownCertificate) {
		t.Errorf("the last octet altered: %v, %v", st, err)
	}
}

// Load generators of other languages follow the documentation: these are its numbers.
func TestDerivation(t *testing.T) {
	p := plan(5000)
	mix := func(x uint64) uint64 {
		x += 0x9e3779b97f4a7c15
		x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
		x = (x ^ (x >> 27)) * 0x94d049bb133111eb
		return x ^ (x >> 31)
	}
	const k = 4321 // the second issuer's certificate 2160 of 2500, in its third group of three
	from := p.Number + 1<<56 + 2*2160
	width := uint64(1<<62) / 3
	want := fmt.Sprintf("auth-1/%016X%016X", 1<<62+2*width+mix(from)%width, mix(from+1))
	if got := p.At(k).ID.String(); got != want {
		t.Errorf("certificate %d is %s, want %s", k, got, want)
	}
	if mix(0) != 0xe220a8397b1dcdaf { // SplitMix64's first number from 0
		t.Error("mix is not SplitMix64")
	}
}

func TestPlanChecks(t *testing.T) {
	snapshot, plans := add(t, plan(10))
	before, err := os.ReadFile(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*seed.Plan){
		"none":      func(p *seed.Plan) { p.Count = 0 },
		"share":     func(p *seed.Plan) { p.Revoked = 1.1 },
		"nobody":    func(p *seed.Plan) { p.Issuers = nil },
		"one twice": func(p *seed.Plan) { p.Issuers = append(p.Issuers, p.Issuers[0]) },
	} {
		p := plan(10)
		spoil(&p)
		if err := p.Add(snapshot, plans, time.Now(), nil); err == nil {
			t.Errorf("%s: added", name)
		}
	}
	if after, err := os.ReadFile(snapshot); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a refused plan changed the snapshot: %v", err)
	}
	if err := os.WriteFile(plans, []byte("["), 0o600); err != nil {
		t.Fatal(err)
	}
	p := plan(10)
	if err := p.Add(snapshot, plans, time.Now(), nil); err == nil {
		t.Error("added to a list that cannot be read")
	}
}

var certificates = flag.Int("certificates", 0, "one more size for BenchmarkStatus, such as 100000000")

// BenchmarkStatus prints processor time: other work on the machine makes wall-clock times useless. The limit is what one
// read of a random word costs, in as much memory as the view has, if the next has to wait for it; "now" is what reading the
// clock costs, which a look-up of a real index does once.
func BenchmarkStatus(b *testing.B) {
	sizes := []int{10_000, 1_000_000, 10_000_000}
	if *certificates > 0 {
		sizes = []int{*certificates}
	}
	for _, n := range sizes {
		p, dir := plan(n), b.TempDir()
		var snapshot string
		var x *status.Index
		var ids [3][]jpki.CertID
		fixed := time.Now()
		for i, what := range []string{"good", "revoked", "unknown"} {
			b.Run(fmt.Sprintf("%d/%s", n, what), func(b *testing.B) {
				if x == nil {
					begun := time.Now()
					spent := processor(b, func() { snapshot, _ = addIn(b, dir, p) })
					b.Logf("made in %v, %.1f s of processor time, %s", time.Since(begun).Round(time.Millisecond), spent/1e9, memory(b, "VmHWM"))
					begun = time.Now()
					spent = processor(b, func() { x = open(b, snapshot, func() time.Time { return fixed }) })
					b.Logf("ready after %v, %.1f s of processor time, %s", time.Since(begun).Round(time.Millisecond), spent/1e9, memory(b, "VmRSS"))
				}
				if ids[i] == nil {
					ids[i] = questions(&p, what)
				}
				info, err := os.Stat(snapshot)
				if err != nil {
					b.Fatal(err)
				}
				perCert := float64(info.Size()) / float64(n)
				wrong := 0
				j := 0
				spent := processor(b, func() {
					for b.Loop() {
						_, _, err := x.StatusAt(b.Context(), ids[i][j], fixed.Add(-time.Hour))
						if (err != nil) != (what == "unknown") {
							wrong++
						}
						j = (j + 1) % len(ids[i])
					}
				})
				if wrong > 0 {
					b.Fatal("wrong answers")
				}
				b.ReportMetric(perCert, "B/cert")
				each := spent / float64(b.N)
				b.ReportMetric(each, "cpu-ns/op")
				b.ReportMetric(each/oneRead(b, 16*n), "×limit")
				b.ReportMetric(processor(b, func() {
					for range 1 << 20 {
						_ = time.Now()
					}
				})/(1<<20), "now-ns")
				b.ReportAllocs()
			})
		}
	}
}

func questions(p *seed.Plan, what string) []jpki.CertID {
	out := make([]jpki.CertID, min(p.Count, 1<<18))
	for i := range out {
		k := rand.IntN(p.Count)
		for seed.IsRevoked(k, p.Revoked) != (what == "revoked") {
			k = rand.IntN(p.Count)
		}
		out[i] = p.At(k).ID
		if what == "unknown" {
			b := out[i].Serial.Bytes()
			b[15] ^= 1
			out[i].Serial, _ = jpki.SerialFromBytes(b)
		}
	}
	return out
}

// processor returns the processor time of f, in ns.
func processor(b *testing.B, f func()) float64 {
	spent := func() int64 {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return r.Utime.Nano() + r.Stime.Nano()
	}
	before := spent()
	f()
	return float64(spent() - before)
}

// oneRead returns what a read in a block of memory costs if where to read depends on the read before.
func oneRead(b *testing.B, size int) float64 {
	block, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(block) }()
	_ = syscall.Madvise(block, syscall.MADV_HUGEPAGE)
	for i := 0; i < size; i += 4096 {
		block[i] = 1
	}
	const rounds = 1 << 20
	x := rand.Uint64()
	spent := processor(b, func() {
		for range rounds {
			x = x*0x9e3779b97f4a7c15 + 1 + binary.LittleEndian.Uint64(block[x>>16%uint64(size-8):])
		}
	})
	runtime.KeepAlive(x)
	return spent / rounds
}

// memory returns a line of the kernel's account of this process.
func memory(b *testing.B, line string) string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip(err)
	}
	_, rest, _ := strings.Cut(string(text), line+":")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf("%s %d MiB", line, kb>>10)
}

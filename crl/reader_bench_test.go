package crl_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// randomList is a list as large ones are: random serials of 16 octets, times over years, most with a reason.
func randomList(tb testing.TB, a authority, n int) (der []byte, entries []crl.Entry) {
	tb.Helper()
	chance := rand.NewChaCha8([32]byte{1})
	rnd := rand.New(chance)
	for range n {
		s, err := jpki.NewSerial(chance)
		if err != nil {
			tb.Fatal(err)
		}
		reasons := []jpki.Reason{jpki.CessationOfOperation, jpki.AffiliationChanged, jpki.Superseded, jpki.CertificateHold}
		entries = append(entries, crl.Entry{Serial: s, At: time.Unix(1_600_000_000+rnd.Int64N(100_000_000), 0).UTC(), Reason: reasons[rnd.IntN(len(reasons))]})
	}
	slices.SortFunc(entries, func(x, y crl.Entry) int { return bytes.Compare(x.Serial.Bytes(), y.Serial.Bytes()) })
	return build(tb, template(a, crl.Scope{Issuer: a.id}), entries), entries
}

// scan is what reading cannot be faster than: SHA-256 of the list and a pass over its entries that allocates and checks nothing.
func scan(tb testing.TB, der []byte, entries int) (sum [32]byte) {
	sum = sha256.Sum256(der)
	at := bytes.Index(der, []byte("\x17\x0d")) + 30 // behind thisUpdate and nextUpdate
	at += 2 + int(der[at+1]&0x7f)
	for range entries {
		at += 2 + int(der[at+1])
	}
	if der[at] != 0xa0 {
		tb.Fatal("the scan has lost its way")
	}
	return sum
}

// cpuTime is what this process has used: other processes on the machine do not show in it.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReader prints, in CPU time, what reading costs beside the limit and beside crypto/x509, in rounds of one run. JPKI_CRL_ENTRIES
// names another number of entries.
func BenchmarkReader(b *testing.B) {
	sizes := []int{100_000, 1_000_000}
	if n, err := strconv.Atoi(os.Getenv("JPKI_CRL_ENTRIES")); err == nil {
		sizes = []int{n}
	}
	a := newAuthority(b, "rsa")
	for _, n := range sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			der, entries := randomList(b, a, n)
			const rounds = 3
			took := map[string][]time.Duration{}
			measure := func(name string, f func()) {
				runtime.GC()
				start := cpuTime(b)
				f()
				took[name] = append(took[name], cpuTime(b)-start)
			}
			median := func(name string) float64 {
				d := slices.Sorted(slices.Values(took[name]))
				return d[len(d)/2].Seconds()
			}
			var list *crl.List
			var resident float64
			for b.Loop() {
				for range rounds {
					measure("scan", func() { scan(b, der, n) })
					measure("read", func() {
						seen := 0
						if _, err := crl.Read(bytes.NewReader(der), a.cert, func(crl.Entry) error { seen++; return nil }); err != nil || seen != n {
							b.Fatal(seen, err)
						}
					})
					measure("lookup", func() {
						if _, found, _, err := crl.Lookup(bytes.NewReader(der), a.cert, entries[n/2].Serial); err != nil || !found {
							b.Fatal(found, err)
						}
					})
					var before, after runtime.MemStats
					list = nil
					runtime.GC()
					runtime.ReadMemStats(&before)
					measure("load", func() {
						var err error
						if list, err = crl.Load(bytes.NewReader(der), a.cert); err != nil {
							b.Fatal(err)
						}
					})
					runtime.GC()
					runtime.ReadMemStats(&after)
					resident = float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
					measure("x509", func() {
						l, err := x509.ParseRevocationList(der)
						if err != nil || len(l.RevokedCertificateEntries) != n || l.CheckSignatureFrom(a.cert) != nil {
							b.Fatal(err)
						}
					})
				}
			}
			rnd := rand.New(rand.NewPCG(1, 2))
			asked := make([]jpki.Serial, 200_000)
			for i := range asked {
				asked[i] = entries[rnd.IntN(n)].Serial
			}
			known := make(map[jpki.Serial]uint32, n)
			for i, e := range entries {
				known[e.Serial] = uint32(i)
			}
			for range rounds {
				measure("find", func() {
					for _, s := range asked {
						if _, ok := list.Find(s); !ok {
							b.Fatal("not found")
						}
					}
				})
				measure("map", func() {
					for _, s := range asked {
						if _, ok := known[s]; !ok {
							b.Fatal("not found")
						}
					}
				})
			}
			b.ReportMetric(median("scan")*1e3, "scan-ms")
			b.ReportMetric(median("read")/median("scan"), "read/scan")
			b.ReportMetric(median("lookup")/median("scan"), "lookup/scan")
			b.ReportMetric(median("load")/median("scan"), "load/scan")
			b.ReportMetric(median("x509")/median("read"), "x509/read")
			b.ReportMetric(median("find")*1e9/float64(len(asked)), "find-ns")
			b.ReportMetric(median("find")/median("map"), "find/map")
			b.ReportMetric(resident, "B/entry")
			b.ReportMetric(0, "ns/op")
		})
	}
}

package snapshot_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki/crl/snapshot"
)

var certificates = flag.Uint64("certificates", 1_000_000, "how many certificates BenchmarkSnapshot has")

// BenchmarkSnapshot builds a snapshot of so many certificates, of which 9 % are revoked and 1 % suspended, asks it about
// every one of them, and says
//   - size/entropy2: its size by the entropy of "good or not", size/entropy3: of "good, suspended or revoked";
//   - s/build, cpu-s/build, and the peak of resident memory in MiB, in which the snapshot itself and the test are;
//   - lookups/cpu-s, on one core, of questions spread over the universe, one by one and together; and wrong, which must be 0.
//
// Run it alone, as in: go test -run '^$' -bench Snapshot -benchtime 1x ./crl/snapshot -args -certificates 100000000
func BenchmarkSnapshot(b *testing.B) {
	a := newAuthority(b, "p-384")
	u := universe{*certificates, 655, 5898, 1}
	for b.Loop() {
		tmpl := template(a, 1)
		tmpl.TempDir = b.TempDir()
		var file bytes.Buffer
		start, before := time.Now(), processorTime(b)
		if _, err := snapshot.Build(&file, tmpl, u.all); err != nil {
			b.Fatal(err)
		}
		built, used := time.Since(start), processorTime(b)-before
		peak := peakResident(b)
		s := open(b, file.Bytes(), config(a))

		wrong := u.wrong(s)
		if wrong != 0 {
			b.Errorf("%d wrong answers", wrong)
		}

		// What the look-ups cost without making the questions.
		questions := make([]snapshot.Question, min(u.n, 1<<20))
		for i := range questions {
			questions[i] = u.question(uint64(i) * u.n / uint64(len(questions)))
		}
		before = processorTime(b)
		for _, q := range questions {
			s.Lookup(q)
		}
		asked := processorTime(b) - before
		answers := make([]snapshot.Answer, len(questions))
		before = processorTime(b)
		s.AppendAnswers(answers[:0], questions)
		together := processorTime(b) - before

		i := s.Info()
		size := float64(file.Len() * 8)
		b.ReportMetric(size/8, "octets")
		b.ReportMetric(size/entropy(i.Good, i.Suspended+i.Revoked), "size/entropy2")
		b.ReportMetric(size/entropy(i.Good, i.Suspended, i.Revoked), "size/entropy3")
		b.ReportMetric(built.Seconds(), "s/build")
		b.ReportMetric(used.Seconds(), "cpu-s/build")
		b.ReportMetric(peak, "MiB-peak")
		b.ReportMetric(float64(len(questions))/asked.Seconds(), "lookups/cpu-s")
		b.ReportMetric(float64(len(questions))/together.Seconds(), "together/cpu-s")
		b.ReportMetric(float64(wrong), "wrong")
		b.Logf("%d certificates, %d suspended, %d revoked", u.n, i.Suspended, i.Revoked)
	}
}

// processorTime returns how long all processors together have worked for the process.
func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakResident returns the most memory the process had, in MiB; 0 where nobody says.
func peakResident(tb testing.TB) float64 {
	tb.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, after, _ := bytes.Cut(text, []byte("VmHWM:"))
	var kib float64
	if _, err := fmt.Sscanf(string(bytes.TrimSpace(after)), "%f kB", &kib); err != nil {
		return 0
	}
	return kib / 1024
}

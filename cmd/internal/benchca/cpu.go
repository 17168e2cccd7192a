package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ownCPU is the processor time this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tick is the unit of times in /proc/PID/stat (proc(5)); Linux shows it to programs as a hundredth of a second.
const tick = 10 * time.Millisecond

// stat returns the fields of /proc/PID/stat from the third, the state; nil for a process that is no more.
func stat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}

// Places in what stat returns.
const (
	parentField = 1
	userField   = 11 // followed by system, and both of children that have ended
	statFields  = 15
)

func ticks(fields []string) (sum time.Duration) {
	for _, f := range fields {
		n, _ := strconv.ParseInt(f, 10, 64)
		sum += time.Duration(n) * tick
	}
	return sum
}

// cpuOf is the processor time a process has used.
func cpuOf(pid int) time.Duration {
	f := stat(pid)
	if len(f) < statFields {
		return 0
	}
	return ticks(f[userField : userField+2])
}

// A postgres is the database server's process, if it runs on this machine.
type postgres int

// findPostgres asks a connection whose child its process is.
func findPostgres(ctx context.Context, db *sql.DB) (postgres, error) {
	var backend int
	if err := db.QueryRowContext(ctx, `SELECT pg_backend_pid()`).Scan(&backend); err != nil {
		return 0, fmt.Errorf("find the database's process: %w", err)
	}
	f := stat(backend)
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", backend))
	if len(f) < statFields || !strings.HasPrefix(string(name), "postgres") {
		return 0, errors.New("the database does not run on this machine; its processor time would not be counted")
	}
	parent, err := strconv.Atoi(f[parentField])
	return postgres(parent), err
}

// cpu is the processor time of the database server: its own, that of its processes, and of those that have ended.
func (p postgres) cpu() time.Duration {
	f := stat(int(p))
	if len(f) < statFields {
		return 0
	}
	sum := ticks(f[userField : userField+4])
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p, p))
	for child := range strings.FieldsSeq(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			sum += cpuOf(pid)
		}
	}
	return sum
}

// A meter tells how much of the machine others use: what is left of its processor time after ours.
type meter struct {
	at         time.Time
	busy, ours time.Duration
}

// busy is the time all processors have worked since the machine started, or were taken away from it (proc(5), /proc/stat).
func busy() time.Duration {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	f := strings.Fields(line)
	const idle, wait, stolen = 4, 5, 8 // user, nice and system come first; guests' is contained in user's
	if len(f) <= stolen {
		return 0
	}
	return ticks(f[1:idle]) + ticks(f[wait+1:stolen+1])
}

func (b *bench) meter() meter {
	ours := ownCPU() + b.postgres.cpu()
	for _, a := range b.servers {
		ours += cpuOf(a.pid)
	}
	for _, p := range b.peers {
		ours += cpuOf(p.pid)
	}
	return meter{time.Now(), busy(), ours}
}

// others is the share of the processors that others have used since.
func (m meter) others(now meter) float64 {
	theirs := (now.busy - m.busy) - (now.ours - m.ours)
	return max(theirs.Seconds(), 0) / now.at.Sub(m.at).Seconds() / float64(runtime.NumCPU())
}

// spell is how long a bare operation is measured at a time.
const spell = 250 * time.Millisecond

// perCPU returns how often a processor does something in a second.
func perCPU(work func() error) (float64, error) {
	n, cpu := 0, ownCPU()
	for start := time.Now(); time.Since(start) < spell; n++ {
		if err := work(); err != nil {
			return 0, err
		}
	}
	return float64(n) / (ownCPU() - cpu).Seconds(), nil
}

// limits are what no authority can go beyond, per CPU-second: the bare signature, and a signature together with the
// check of one proof of possession, without which nothing may be certified.
type limits struct{ signature, bound float64 }

// bareLimits measures both on one processor. request is a certification request that has been read.
func bareLimits(key crypto.Signer, request *x509.CertificateRequest) (limits, error) {
	digest := sha256.Sum256([]byte("bare"))
	signature, err := perCPU(func() error { _, err := key.Sign(rand.Reader, digest[:], crypto.SHA256); return err })
	if err != nil {
		return limits{}, err
	}
	proof, err := perCPU(request.CheckSignature)
	return limits{signature, 1 / (1/signature + 1/proof)}, err
}

func (l limits) mean(m limits) limits {
	return limits{(l.signature + m.signature) / 2, (l.bound + m.bound) / 2}
}

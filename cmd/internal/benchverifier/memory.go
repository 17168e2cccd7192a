package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki/verifier/cms"
)

// A repeater is content of some length that is nowhere: one KiB over and over.
type repeater struct {
	left int64
	at   int
	kib  [1024]byte
}

func much(length int64) io.Reader {
	r := &repeater{left: length}
	for i := range r.kib {
		r.kib[i] = byte(i * i)
	}
	return r
}

func (r *repeater) Read(p []byte) (n int, err error) {
	p = p[:min(int64(len(p)), r.left)]
	for n < len(p) {
		k := copy(p[n:], r.kib[r.at:])
		n, r.at = n+k, (r.at+k)%len(r.kib)
	}
	if r.left -= int64(n); n == 0 {
		err = io.EOF
	}
	return n, err
}

// signMuch writes a detached signature about much content, and how much that is.
func signMuch(dir string, length int64) error {
	w, err := newWorld(rsa2048)
	if err != nil {
		return err
	}
	der, err := cms.Sign(much(length), cms.SignConfig{Certificate: w.leaf.cert.Raw, Signer: w.leaf.key, Rand: rand.Reader, SigningTime: noon})
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "signature"), der, 0o600),
		os.WriteFile(filepath.Join(dir, "length"), []byte(strconv.FormatInt(length, 10)), 0o600))
}

// runTask does one measurement and prints the processor seconds it took and the memory.
func runTask(task, dir string) error {
	der, err := os.ReadFile(filepath.Join(dir, "signature"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, "length"))
	if err != nil {
		return err
	}
	length, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return err
	}
	used := cpuSeconds()
	switch task {
	case "idle":
	case "digest":
		_, err = io.CopyBuffer(struct{ io.Writer }{sha256.New()}, much(length), make([]byte, 64<<10))
	case "verify":
		err = verifyMuch(der, length)
	default:
		err = errors.New("no such task")
	}
	if err != nil {
		return err
	}
	spent := cpuSeconds() - used
	peak, err := peakMemory()
	if err == nil {
		_, err = fmt.Println(spent, peak)
	}
	return err
}

func verifyMuch(der []byte, length int64) error {
	d, err := cms.Parse(der)
	if err != nil {
		return err
	}
	signatures, err := d.Verify(cms.Input{Content: much(length)})
	if err == nil && (len(signatures) != 1 || signatures[0].Integrity != cms.Intact) {
		err = errWrong
	}
	return err
}

// runSelf runs a task in a process of its own and returns processor seconds and MiB.
func runSelf(ctx context.Context, task, dir string) (seconds, peak float64, err error) {
	cmd := exec.CommandContext(ctx, os.Args[0], "task", task, dir) //nolint:gosec // this program
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, problem.String())
	}
	_, err = fmt.Sscan(out.String(), &seconds, &peak)
	return seconds, peak / 1024, err
}

// peakMemory returns the most that was resident, in KiB, since the program began: what wait4 tells counts from the fork.
func peakMemory() (kib int64, err error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, line, _ := bytes.Cut(text, []byte("\nVmHWM:"))
	_, err = fmt.Sscan(string(line), &kib)
	return kib, err
}

// xResponse takes an OCSP answer apart for the bound.
func xResponse(der []byte) (*xocsp.Response, error) { return xocsp.ParseResponse(der, nil) }

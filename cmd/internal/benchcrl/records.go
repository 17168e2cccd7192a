package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// epoch is the first revocation.
var epoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// A record is a revoked certificate as the bench keeps it: 16 octets of serial, 4 of seconds since the epoch, 4 of reason.
type record [24]byte

func (r *record) serial() []byte { return r[:16] }
func (r *record) at() time.Time {
	return epoch.Add(time.Duration(binary.BigEndian.Uint32(r[16:])) * time.Second)
}
func (r *record) reason() byte { return r[23] }

var reasons = []byte{1, 3, 4, 5, 6}

// writeRecords writes n records in order of serials, the same each time.
func writeRecords(path string, n int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	rng := rand.New(rand.NewPCG(1, uint64(n))) //nolint:gosec // test data
	step := uint64(1<<62) / uint64(n)
	for i := range n {
		var r record
		binary.BigEndian.PutUint64(r[:8], 1<<62+uint64(i)*step+rng.Uint64N(step))
		binary.BigEndian.PutUint64(r[8:16], rng.Uint64())
		binary.BigEndian.PutUint32(r[16:], rng.Uint32N(400*24*3600))
		r[23] = reasons[i%len(reasons)]
		if _, err := w.Write(r[:]); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(w.Flush(), f.Close())
}

// eachRecord reads them.
func eachRecord(dir string, do func(*record) error) error {
	f, err := os.Open(filepath.Join(dir, "records"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 1<<20)
	var rec record
	for {
		if _, err := io.ReadFull(r, rec[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := do(&rec); err != nil {
			return err
		}
	}
}

var reasonNames = map[byte]string{1: "keyCompromise", 3: "affiliationChanged", 4: "superseded", 5: "cessationOfOperation", 6: "certificateHold"}

// writeIndex writes the database of openssl ca and its configuration.
func writeIndex(dir string) error {
	f, err := os.Create(filepath.Join(dir, "index.txt"))
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = eachRecord(dir, func(r *record) error {
		_, err := fmt.Fprintf(w, "R\t350101000000Z\t%sZ,%s\t%X\tunknown\t/CN=x\n", r.at().Format("060102150405"), reasonNames[r.reason()], r.serial())
		return err
	})
	config := fmt.Sprintf(`[ca]
default_ca = d
[d]
database = %[1]s/index.txt
crlnumber = %[1]s/crlnumber
certificate = %[1]s/cert.pem
private_key = %[1]s/key.pem
default_md = sha256
default_crl_days = 2
crl_extensions = e
unique_subject = no
[e]
authorityKeyIdentifier = keyid:always
`, dir)
	return errors.Join(err, w.Flush(), f.Close(),
		os.WriteFile(filepath.Join(dir, "index.txt.attr"), []byte("unique_subject = no\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "crlnumber"), []byte("1000\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "openssl.cnf"), []byte(config), 0o600))
}

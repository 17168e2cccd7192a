package main

import (
	"bufio"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// stream is the limit: records to a durable CRL with as little as can be, two passes over the records and no check of
// anything. Times are before 2050.
func stream(dir string, cert *x509.Certificate, key *rsa.PrivateKey) error {
	var buf [64]byte
	encode := func(r *record) []byte {
		b := append(buf[:0], 0x30, 47, 2, 16)
		b = append(b, r.serial()...)
		b = append(b, 0x17, 13)
		at := r.at()
		year, month, day := at.Date()
		hour, minute, second := at.Clock()
		for _, n := range [...]int{year % 100, int(month), day, hour, minute, second} {
			b = append(b, byte('0'+n/10), byte('0'+n%10))
		}
		b = append(b, 'Z', 0x30, 12, 0x30, 10, 6, 3, 0x55, 0x1d, 0x15, 4, 3, 10, 1, r.reason())
		return b
	}
	size := 0
	if err := eachRecord(dir, func(r *record) error { size += len(encode(r)); return nil }); err != nil {
		return err
	}
	sequence := func(n int) []byte { return []byte{0x30, 0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }
	algorithm := []byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00")
	head := append([]byte{2, 1, 1}, algorithm...)
	head = append(head, cert.RawSubject...)
	head = append(head, "\x17\x0d260601000000Z\x17\x0d260603000000Z"...)
	head = append(head, sequence(size)...)
	tail := append([]byte("\xa0\x31\x30\x2f\x30\x1f\x06\x03\x55\x1d\x23\x04\x18\x30\x16\x80\x14"), cert.SubjectKeyId...)
	tail = append(tail, "\x30\x0c\x06\x03\x55\x1d\x14\x04\x05\x02\x03\x01\x00\x00"...)
	signed := len(head) + size + len(tail)

	f, err := os.Create(filepath.Join(dir, "stream.crl"))
	if err != nil {
		return err
	}
	hash := sha256.New()
	file := bufio.NewWriterSize(f, 256<<10)
	_, _ = file.Write(sequence(6 + signed + len(algorithm) + 5 + 256))
	both := bufio.NewWriterSize(io.MultiWriter(file, hash), 256<<10)
	_, _ = both.Write(sequence(signed))
	_, _ = both.Write(head)
	if err := eachRecord(dir, func(r *record) error { _, err := both.Write(encode(r)); return err }); err != nil {
		return errors.Join(err, f.Close())
	}
	_, _ = both.Write(tail)
	if err := both.Flush(); err != nil {
		return errors.Join(err, f.Close())
	}
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, hash.Sum(nil))
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, _ = file.Write(algorithm)
	_, _ = file.Write([]byte{3, 0x82, 1, 1, 0})
	_, _ = file.Write(signature)
	return errors.Join(file.Flush(), f.Sync(), f.Close())
}

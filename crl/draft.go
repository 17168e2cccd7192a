package crl

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A draft is a list on its way: a file beside the published one, complete but for its signature when the gate reads it back. What
// the key signs is the hash of the octets that the gate has read, so that it signs nothing that was refused, and they pass through a
// hash only once. The file means nothing before it has the published one's name; one left by a crash is started afresh.
type draft struct {
	f     *os.File
	alg   algorithm
	list  *tbsCertList
	start int64 // of the signed part, behind the outermost length

	early chan error // what came of writing the first octets to the disk, while the gate reads them
}

// newDraft writes all of a list but the signature. The size of entries is a guess: they are written to where they belong if
// it was right, and moved by some octets if the lengths before them are of another length.
func newDraft(path string, t Template, entries body) (d *draft, err error) {
	d = &draft{}
	if d.alg, err = checkIssuer(t.IssuerCert, t.Signer); err != nil {
		return nil, err
	}
	if d.list, err = t.frame(d.alg, entries); err != nil {
		return nil, err
	}
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if d.f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644); err != nil { //nolint:gosec // CRLs are public; another user serves them
		return nil, err
	}
	if err := d.write(t, entries); err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.early = make(chan error, 1)
	go func() { d.early <- d.f.Sync() }()
	return d, nil
}

// sync makes the whole durable. An error of the first octets is told only once, to whoever synchronised first (fsync(2)).
func (d *draft) sync() error {
	return firstError(func() error { return <-d.early }, d.f.Sync)
}

func (d *draft) write(t Template, entries body) error {
	guess := int64(len(d.head()))
	size, err := entries.write(io.NewOffsetWriter(d.f, guess))
	if err != nil {
		return err
	}
	if d.list, err = t.frame(d.alg, body{size: size}); err != nil {
		return err
	}
	head := d.head()
	at := int64(len(head))
	return firstError(
		func() error { return move(d.f, guess, size, at-guess) },
		func() error { _, err := d.f.WriteAt(head, 0); return err },
		func() error { _, err := d.f.WriteAt(d.list.tail, at+size); return err },
		func() error { return d.f.Truncate(d.size()) })
}

// head encodes all that comes before the entries, for a signature of the usual length.
func (d *draft) head() []byte {
	b := appendHeader(nil, tagSequence, d.list.length()+d.behind())
	d.start = int64(len(b))
	return append(appendHeader(b, tagSequence, d.list.contents()), d.list.head...)
}

// behind returns how many octets follow the signed part if the signature has its usual length.
func (d *draft) behind() int64 {
	signature := d.alg.signature
	switch {
	case signature != 0:
	case d.alg.hash == crypto.SHA256: // ECDSA: two INTEGERs of up to 33 octets, or 49
		signature = 72
	default:
		signature = 104
	}
	return int64(len(d.alg.identifier)) + int64(len(appendHeader(nil, tagBitString, 1+signature))) + 1 + signature
}

// size returns how long the list will be, as far as one knows: where the signature comes there are zeros.
func (d *draft) size() int64 { return d.start + d.list.length() + d.behind() }

// seal writes what follows the signed part and the length of the whole. moved says that the signature was so much shorter
// than usual that everything lies elsewhere.
func (d *draft) seal(signature []byte) (size int64, moved bool, err error) {
	bitString := append(appendHeader(nil, tagBitString, 1+int64(len(signature))), 0)
	bitString = append(bitString, signature...)
	inner := d.list.length() + int64(len(d.alg.identifier)+len(bitString))
	outer := appendHeader(nil, tagSequence, inner)
	by := int64(len(outer)) - d.start
	size = int64(len(outer)) + inner
	err = firstError(
		func() error { return move(d.f, d.start, d.list.length(), by) },
		func() error { _, err := d.f.WriteAt(outer, 0); return err },
		func() error {
			_, err := d.f.WriteAt(append(bytes.Clone(d.alg.identifier), bitString...), int64(len(outer))+d.list.length())
			return err
		},
		func() error { return d.f.Truncate(size) })
	d.start = int64(len(outer))
	return size, by != 0, err
}

// sign signs the hash that the gate has made.
func (d *draft) sign(signer crypto.Signer, digest []byte) ([]byte, error) {
	signature, err := signer.Sign(rand.Reader, digest, d.alg.hash)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if d.alg.signature != 0 && int64(len(signature)) != d.alg.signature {
		return nil, errors.New("the signer's signature has another length than its key")
	}
	return signature, nil
}

// close removes the file, if it still has its first name.
func (d *draft) close() error {
	err := d.f.Close()
	if rm := os.Remove(d.f.Name()); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}

// move moves n octets of a file, from one place on, a few octets back or forth.
func move(f *os.File, from, n, by int64) error {
	if by == 0 {
		return nil
	}
	buf := make([]byte, min(n, bufferSize))
	for done := int64(0); done < n; {
		part := buf[:min(n-done, int64(len(buf)))]
		at := from + done
		if by > 0 { // from the end, so that nothing is overwritten before it was read
			at = from + n - done - int64(len(part))
		}
		if _, err := f.ReadAt(part, at); err != nil {
			return err
		}
		if _, err := f.WriteAt(part, at+by); err != nil {
			return err
		}
		done += int64(len(part))
	}
	return nil
}

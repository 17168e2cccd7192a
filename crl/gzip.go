package crl

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// minGzip is from how many octets on a list is packed: what is shorter fits into a packet or two anyway.
const minGzip = 4 << 10

// gzipPath is where a list's gzip form lies: beside it, under a name that no address has.
func gzipPath(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".gz")
}

// tagOf names a list's content: 32 hexadecimal digits of its SHA-256.
func tagOf(f io.ReaderAt, size int64) (string, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(f, 0, size)); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)[:16]), nil
}

// pack puts the gzip form of a published list beside it. It names its list's content in its head, so that whoever finds one of
// another list, after a crash or before a new one is packed, leaves it aside.
func pack(path string, f io.ReaderAt, size int64) error {
	if size < minGzip {
		if err := os.Remove(gzipPath(path)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	tag, err := tagOf(f, size)
	if err != nil {
		return err
	}
	name, err := makeFile(gzipPath(path), func(w io.Writer) error {
		z, err := gzip.NewWriterLevel(w, gzip.BestSpeed) // random serials halve, no more and no less at any level
		if err != nil {
			return err
		}
		z.Comment = tag
		_, err = io.Copy(z, io.NewSectionReader(f, 0, size))
		return errors.Join(err, z.Close())
	})
	if err != nil {
		return err
	}
	return os.Rename(name, gzipPath(path))
}

// openPacked opens the gzip form of the list with this content; nil if there is none.
func openPacked(path, tag string) (*os.File, os.FileInfo) {
	f, err := os.Open(gzipPath(path))
	if err != nil {
		return nil, nil
	}
	head := make([]byte, 10+len(tag)+1) // RFC 1952 §2.3.1: a head with a comment, FLG bit 4, and nothing else
	_, err = f.ReadAt(head, 0)
	info, err2 := f.Stat()
	if err != nil || err2 != nil || !info.Mode().IsRegular() || string(head[:4]) != "\x1f\x8b\x08\x10" || string(head[10:]) != tag+"\x00" {
		_ = f.Close()
		return nil, nil
	}
	return f, info
}

// acceptsGzip reads Accept-Encoding (RFC 9110 §12.5.3): what names gzip counts, else what is said of everything.
func acceptsGzip(h http.Header) bool {
	all := false
	for element := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, parameters, _ := strings.Cut(element, ";")
		weight := 1.0
		for p := range strings.SplitSeq(parameters, ";") {
			if q, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(p)), "q="); ok {
				var err error
				if weight, err = strconv.ParseFloat(q, 64); err != nil {
					weight = 0
				}
			}
		}
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "gzip", "x-gzip":
			return weight > 0
		case "*":
			all = weight > 0
		}
	}
	return all
}

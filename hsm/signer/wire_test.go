package signer_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki/hsm/signer"
)

var digest = sha256.Sum256([]byte("契約書"))

func signRequest() signer.Request {
	return signer.Request{Op: signer.OpSign, ID: 7, Wait: 1500 * time.Millisecond, Purpose: signer.ForCRL, Key: "sign-1", Scheme: signer.PSS, Hash: crypto.SHA256, Digest: digest[:]}
}

// The octets are a promise: another version of the program reads them.
func TestRequestOctets(t *testing.T) {
	got := hex.EncodeToString(signer.AppendRequest(nil, signRequest()))
	want := "00000038" + "01" + "0000000000000007" + "000005dc" + "02" + "02" + "04" + "06" + hex.EncodeToString([]byte("sign-1")) + "20" + hex.EncodeToString(digest[:])
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got = hex.EncodeToString(signer.AppendResponse(nil, signer.Response{Code: signer.Busy, ID: 7, Data: []byte("x")}))
	if want := "0000000a" + "04" + "0000000000000007" + "78"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestParseRequestRefuses(t *testing.T) {
	for name, change := range map[string]func(*signer.Request){
		"op":           func(r *signer.Request) { r.Op = 5 },
		"no purpose":   func(r *signer.Request) { r.Purpose = 0 },
		"purpose":      func(r *signer.Request) { r.Purpose = 5 },
		"no scheme":    func(r *signer.Request) { r.Scheme = 0 },
		"scheme":       func(r *signer.Request) { r.Scheme = 4 },
		"hash":         func(r *signer.Request) { r.Hash = crypto.SHA1 },
		"short digest": func(r *signer.Request) { r.Digest = r.Digest[1:] },
		"long digest":  func(r *signer.Request) { r.Hash = crypto.SHA256; r.Digest = make([]byte, 48) },
		"no key":       func(r *signer.Request) { r.Key = "" },
		"key":          func(r *signer.Request) { r.Key = "../sign-1" },
		"long key":     func(r *signer.Request) { r.Key = strings.Repeat("k", 65) },
		"public":       func(r *signer.Request) { r.Op = signer.OpPublic },
		"usage":        func(r *signer.Request) { *r = signer.Request{Op: signer.OpUsage, Key: "k"} },
		"reload":       func(r *signer.Request) { *r = signer.Request{Op: signer.OpReload, Key: "k"} },
	} {
		r := signRequest()
		change(&r)
		if _, err := signer.ParseRequest(signer.AppendRequest(nil, r)[4:]); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good := signer.AppendRequest(nil, signRequest())
	for n := range len(good) - 4 {
		if _, err := signer.ParseRequest(good[4 : 4+n]); err == nil {
			t.Errorf("cut to %d octets: accepted", n)
		}
	}
	if _, err := signer.ParseRequest(append(bytes.Clone(good[4:]), 0)); err == nil {
		t.Error("an octet too many: accepted")
	}
	wait := bytes.Clone(good)
	binary.BigEndian.PutUint32(wait[13:], 60001)
	if _, err := signer.ParseRequest(wait[4:]); err == nil {
		t.Error("more than a minute: accepted")
	}
	for _, head := range []string{"00000000", "00000101", "ffffffff"} {
		frame, _ := hex.DecodeString(head)
		if _, err := signer.ReadRequest(bytes.NewReader(append(frame, make([]byte, 300)...))); err == nil {
			t.Errorf("a frame of %s octets was read", head)
		}
	}
}

// What is accepted is what AppendRequest writes, octet for octet.
func FuzzParseRequest(f *testing.F) {
	f.Add(signer.AppendRequest(nil, signRequest())[4:])
	f.Add(signer.AppendRequest(nil, signer.Request{Op: signer.OpPublic, Key: "k", Wait: time.Second})[4:])
	f.Add(signer.AppendRequest(nil, signer.Request{Op: signer.OpUsage, Wait: time.Second})[4:])
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := signer.ParseRequest(in)
		if err != nil {
			return
		}
		if out := signer.AppendRequest(nil, r)[4:]; !bytes.Equal(in, out) {
			t.Errorf("%x is read as %+v and written as %x", in, r, out)
		}
	})
}

func FuzzParseResponse(f *testing.F) {
	f.Add(signer.AppendResponse(nil, signer.Response{ID: 1, Data: []byte("signature")})[4:])
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := signer.ParseResponse(in)
		if err != nil {
			return
		}
		if out := signer.AppendResponse(nil, r)[4:]; !bytes.Equal(in, out) {
			t.Errorf("%x is written as %x", in, out)
		}
	})
}

func TestParseRef(t *testing.T) {
	for in, want := range map[string]signer.Ref{
		"signer:///run/s.sock?key=sign-1":                               {Socket: "/run/s.sock", Key: "sign-1", Purpose: signer.ForOther, Wait: 10 * time.Second},
		"signer:/run/s.sock?key=sign-1&purpose=certificate&wait=2500ms": {Socket: "/run/s.sock", Key: "sign-1", Purpose: signer.ForCertificate, Wait: 2500 * time.Millisecond},
		"signer:///a%20b?purpose=ocsp&key=k":                            {Socket: "/a b", Key: "k", Purpose: signer.ForOCSP, Wait: 10 * time.Second},
	} {
		got, err := signer.ParseRef(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", in, d)
		}
		if again, err := signer.ParseRef(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s, read as %+v, %v", in, got, again, err)
		}
	}
	for in, want := range map[string]string{
		"signer:///s.sock":                             "names no key",
		"signer:///s.sock?key=a/b":                     "names no key",
		"signer:///s.sock?key=a&key=b":                 "twice",
		"signer:///s.sock?key=a&pin=1":                 "unknown parameter",
		"signer:///s.sock?key=a&purpose=tls":           "none of certificate",
		"signer:///s.sock?key=a&wait=1h":               "between 1ms and 1m",
		"signer:///s.sock?key=a&wait=x":                "invalid duration",
		"signer://host/s.sock?key=a":                   "not signer:///path",
		"signer:s.sock?key=a":                          "not signer:///path",
		"signer:///s.sock?key=a#x":                     "not signer:///path",
		"file:///s.sock?key=a":                         "not signer:///path",
		"signer:///s?key=" + strings.Repeat("k", 1024): "not a URI",
	} {
		if _, err := signer.ParseRef(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

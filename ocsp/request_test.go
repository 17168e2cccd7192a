package ocsp_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	xocsp "golang.org/x/crypto/ocsp"
	"pgregory.net/rapid"
)

// build writes DER; tests make with it what no proper encoder would.
func build(f func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	f(&b)
	return must(b.Bytes())
}

func wrap(tag asn1.Tag, parts ...[]byte) []byte {
	return build(func(b *cryptobyte.Builder) {
		b.AddASN1(tag, func(b *cryptobyte.Builder) {
			for _, p := range parts {
				b.AddBytes(p)
			}
		})
	})
}

func seq(parts ...[]byte) []byte { return wrap(asn1.SEQUENCE, parts...) }
func tagged(n uint8, parts ...[]byte) []byte {
	return wrap(asn1.Tag(n).ContextSpecific().Constructed(), parts...)
}
func octets(b []byte) []byte   { return wrap(asn1.OCTET_STRING, b) }
func integer(b ...byte) []byte { return wrap(asn1.INTEGER, b) }

var (
	sha1OID  = wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2b, 0x0e, 3, 2, 0x1a})
	nonceOID = wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2})
	otherOID = wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2a, 3, 4})
	null     = []byte{5, 0}
	yes      = []byte{1, 1, 0xff}
	no       = []byte{1, 1, 0}
)

func plainCertID(serial []byte) []byte {
	return seq(seq(sha1OID, null), octets(make([]byte, 20)), octets(make([]byte, 20)), serial)
}

func nonceExt(n int) []byte { return seq(nonceOID, octets(octets(make([]byte, n)))) }
func exts(list ...[]byte) []byte {
	return tagged(2, seq(list...))
}

// request wraps a list of CertIDs and what follows it.
func request(ids [][]byte, after ...[]byte) []byte {
	var list [][]byte
	for _, id := range ids {
		list = append(list, seq(id))
	}
	return seq(seq(append([][]byte{seq(list...)}, after...)...))
}

func one() [][]byte { return [][]byte{plainCertID(integer(1))} }

func TestParseRequestRefuses(t *testing.T) {
	name := tagged(1, tagged(4, seq()))
	signature := seq(seq(sha1OID), wrap(asn1.BIT_STRING, []byte{0, 1, 2}))
	many := func(n int) (out [][]byte) {
		for range n {
			out = append(out, plainCertID(integer(1)))
		}
		return out
	}
	manyExts := func(n int) (out [][]byte) {
		for i := range n {
			out = append(out, seq(wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2a, byte(i)}), octets(nil)))
		}
		return out
	}
	for _, test := range []struct {
		name string
		der  []byte
		ok   bool
	}{
		{"one certificate", request(one()), true},
		{"100 certificates", request(many(100)), true},
		{"101 certificates", request(many(101)), false},
		{"none", request(nil), false},
		{"empty", nil, false},
		{"octets behind", append(request(one()), 0), false},
		{"cut", request(one())[:60], false},
		{"too long", append(request(one()), make([]byte, ocsp.MaxRequestBytes)...), false},
		{"indefinite length", append(append([]byte{0x30, 0x80}, request(one())[2:]...), 0, 0), false},
		{"length not minimal", append([]byte{0x30, 0x81, request(one())[1]}, request(one())[2:]...), false},
		{"version 2", seq(seq(tagged(0, integer(1)), seq(seq(one()[0])))), false},
		{"version 1 written", seq(seq(tagged(0, integer(0)), seq(seq(one()[0])))), false},
		{"requestor's name", seq(seq(name, seq(seq(one()[0])))), true},
		{"requestor's name, empty", seq(seq(tagged(1), seq(seq(one()[0])))), false},
		{"signature", seq(seq(seq(seq(one()[0]))), tagged(0, signature)), true},
		{"signature with certificates", seq(seq(seq(seq(one()[0]))), tagged(0, seq(seq(sha1OID), wrap(asn1.BIT_STRING, []byte{0}), tagged(0, seq())))), true},
		{"signature, empty", seq(seq(seq(seq(one()[0]))), tagged(0)), false},
		{"signature without algorithm", seq(seq(seq(seq(one()[0]))), tagged(0, seq(wrap(asn1.BIT_STRING, []byte{0})))), false},
		{"nonce of 1", request(one(), exts(nonceExt(1))), true},
		{"nonce of 128", request(one(), exts(nonceExt(128))), true},
		{"nonce of 129", request(one(), exts(nonceExt(129))), false},
		{"nonce of 0", request(one(), exts(nonceExt(0))), false},
		{"nonce not wrapped", request(one(), exts(seq(nonceOID, octets(make([]byte, 8))))), false},
		{"nonce, critical", request(one(), exts(seq(nonceOID, yes, octets(octets(make([]byte, 8)))))), true},
		{"nonce twice", request(one(), exts(nonceExt(8), nonceExt(8))), false},
		{"extension", request(one(), exts(seq(otherOID, octets(nil)))), true},
		{"extension twice", request(one(), exts(seq(otherOID, octets(nil)), seq(otherOID, octets(nil)))), false},
		{"extension, critical", request(one(), exts(seq(otherOID, yes, octets(nil)))), false},
		{"extension, default written", request(one(), exts(seq(otherOID, no, octets(nil)))), false},
		{"extensions, empty list", request(one(), exts()), false},
		{"17 extensions", request(one(), exts(manyExts(17)...)), false},
		{"extension of one certificate", seq(seq(seq(seq(one()[0], tagged(0, seq(seq(otherOID, octets(nil)))))))), true},
		{"critical extension of one certificate", seq(seq(seq(seq(one()[0], tagged(0, seq(seq(otherOID, yes, octets(nil)))))))), false},
		{"serial not minimal", request([][]byte{plainCertID(integer(0, 1))}), false},
		{"serial without octets", request([][]byte{plainCertID(integer())}), false},
		{"hash algorithm with odd parameters", request([][]byte{seq(seq(sha1OID, octets(nil)), octets(nil), octets(nil), integer(1))}), false},
		{"CertID with more", request([][]byte{seq(seq(sha1OID), octets(nil), octets(nil), integer(1), null)}), false},
		{"object identifier cut", request([][]byte{seq(seq(wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2b, 0x80 | 1})), octets(nil), octets(nil), integer(1))}), false},
		{"object identifier padded", request([][]byte{seq(seq(wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2b, 0x80, 1})), octets(nil), octets(nil), integer(1))}), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := ocsp.ParseRequest(test.der); (err == nil) != test.ok {
				t.Errorf("error %v; accept: %v", err, test.ok)
			}
		})
	}
}

// Serials that no authority may issue, and hash algorithms that nobody knows, are questions too.
func TestParseRequestStrangeCertIDs(t *testing.T) {
	long := append([]byte{1}, make([]byte, 20)...)
	padded := append([]byte{0, 0xff}, make([]byte, 19)...)
	for _, test := range []struct {
		name string
		id   []byte
		want ocsp.CertID
	}{
		{"zero", plainCertID(integer(0)), ocsp.CertID{Hash: crypto.SHA1}},
		{"negative", plainCertID(integer(0x80)), ocsp.CertID{Hash: crypto.SHA1}},
		{"21 octets", plainCertID(integer(long...)), ocsp.CertID{Hash: crypto.SHA1}},
		{"20 octets and a sign", plainCertID(integer(padded...)), ocsp.CertID{Hash: crypto.SHA1, Serial: must(jpki.SerialFromBytes(padded))}},
		{"no parameters", seq(seq(sha1OID), octets(nil), octets(nil), integer(5)), ocsp.CertID{Hash: crypto.SHA1, Serial: must(jpki.SerialFromBytes([]byte{5}))}},
		{"unknown algorithm", seq(seq(otherOID, integer(7)), octets(nil), octets(nil), integer(5)), ocsp.CertID{Serial: must(jpki.SerialFromBytes([]byte{5}))}},
	} {
		t.Run(test.name, func(t *testing.T) {
			q, err := ocsp.ParseRequest(request([][]byte{test.id}))
			if err != nil {
				t.Fatal(err)
			}
			got := q.CertIDs[0]
			if got.Hash != test.want.Hash || got.Serial != test.want.Serial || !bytes.Equal(got.Raw, test.id) {
				t.Errorf("got %v %v %x", got.Hash, got.Serial, got.Raw)
			}
		})
	}
}

func TestRequestAgreesWithStandard(t *testing.T) {
	a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, p256(), now)
	serial := newSerial()
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384} {
		theirs := must(xocsp.CreateRequest(a.subscriber(serial), a.cert, &xocsp.RequestOptions{Hash: hash}))
		q, err := ocsp.ParseRequest(theirs)
		if err != nil {
			t.Fatal(err)
		}
		mine := must(ocsp.NewRequest(a.cert, hash, nil, serial))
		if d := diff(mine, q); d != "" {
			t.Errorf("%v (-ours +theirs):\n%s", hash, d)
		}
		if der := must(mine.Marshal()); !bytes.Equal(der, theirs) {
			t.Errorf("%v: we write %x, x/crypto %x", hash, der, theirs)
		}
		back, err := xocsp.ParseRequest(must(mine.Marshal()))
		if err != nil || back.HashAlgorithm != hash || back.SerialNumber.Cmp(serial.Big()) != 0 {
			t.Errorf("%v: x/crypto reads %+v, %v", hash, back, err)
		}
	}
}

func TestRequestRoundTrip(t *testing.T) {
	a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, p256(), now)
	rapid.Check(t, func(t *rapid.T) {
		want := &ocsp.Request{}
		if n := rapid.IntRange(0, ocsp.MaxNonceBytes).Draw(t, "nonce"); n > 0 {
			want.Nonce = rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "nonce octets")
		}
		for range rapid.IntRange(1, 10).Draw(t, "certificates") {
			raw := rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "serial")
			serial, err := jpki.SerialFromBytes(raw)
			if err != nil {
				continue
			}
			hash := rapid.SampledFrom([]crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384}).Draw(t, "hash")
			want.CertIDs = append(want.CertIDs, must(ocsp.NewCertID(a.cert, hash, serial)))
		}
		if len(want.CertIDs) == 0 {
			return
		}
		got, err := ocsp.ParseRequest(must(want.Marshal()))
		if err != nil {
			t.Fatal(err)
		}
		if d := diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

func TestNewRequestRefuses(t *testing.T) {
	a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, p256(), now)
	for name, make := range map[string]func() (*ocsp.Request, error){
		"no serial":   func() (*ocsp.Request, error) { return ocsp.NewRequest(a.cert, crypto.SHA256, nil) },
		"zero serial": func() (*ocsp.Request, error) { return ocsp.NewRequest(a.cert, crypto.SHA256, nil, jpki.Serial{}) },
		"MD5":         func() (*ocsp.Request, error) { return ocsp.NewRequest(a.cert, crypto.MD5, nil, newSerial()) },
		"empty nonce": func() (*ocsp.Request, error) { return ocsp.NewRequest(a.cert, crypto.SHA256, []byte{}, newSerial()) },
		"long nonce": func() (*ocsp.Request, error) {
			return ocsp.NewRequest(a.cert, crypto.SHA256, make([]byte, 129), newSerial())
		},
		"101 serials": func() (*ocsp.Request, error) {
			return ocsp.NewRequest(a.cert, crypto.SHA256, nil, make([]jpki.Serial, 101)...)
		},
	} {
		if _, err := make(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A signed request is read like any other; who signed it is no matter.
func TestSignedRequestOfOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl")
	a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, rsaKey(0), now)
	serial := newSerial()
	signer := writePEM(t, "signer.pem", "CERTIFICATE", a.cert.Raw)
	key := writePEM(t, "key.pem", "PRIVATE KEY", marshalKey(t, a.key))
	out := filepath.Join(t.TempDir(), "request.der")
	if b, err := exec.Command(openssl, "ocsp", "-issuer", signer, "-sha256", "-serial", "0x"+serial.String(), "-signer", signer, "-signkey", key, "-reqout", out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	q, err := ocsp.ParseRequest(must(os.ReadFile(out)))
	if err != nil {
		t.Fatal(err)
	}
	want := must(ocsp.NewCertID(a.cert, crypto.SHA256, serial))
	if d := diff([]ocsp.CertID{want}, q.CertIDs); d != "" || !q.Extra || len(q.Nonce) != 16 {
		t.Errorf("Extra %v, nonce %x, CertIDs:\n%s", q.Extra, q.Nonce, d)
	}
}

// Whatever is accepted can be written again, as it was unless it carried more than a Request keeps.
func FuzzParseRequest(f *testing.F) {
	f.Add(request(one()))
	f.Add(request(one(), exts(nonceExt(16), seq(otherOID, octets(nil)))))
	f.Add(seq(seq(tagged(1, tagged(4, seq())), seq(seq(plainCertID(integer(0x80))))), tagged(0, seq(seq(sha1OID), wrap(asn1.BIT_STRING, []byte{0, 1})))))
	a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, p256(), now)
	nonce := make([]byte, 32)
	must(rand.Read(nonce))
	f.Add(must(must(ocsp.NewRequest(a.cert, crypto.SHA256, nonce, newSerial(), newSerial())).Marshal()))
	f.Fuzz(func(t *testing.T, der []byte) {
		q, err := ocsp.ParseRequest(der)
		if err != nil {
			return
		}
		out, err := q.Marshal()
		if err != nil {
			t.Fatalf("accepted, but cannot be written: %v", err)
		}
		if !q.Extra && !bytes.Equal(out, der) {
			t.Fatalf("read  %x\nwrote %x", der, out)
		}
		again, err := ocsp.ParseRequest(out)
		if err != nil {
			t.Fatal(err)
		}
		q.Extra = false
		if d := diff(q, again); d != "" {
			t.Fatal(d)
		}
	})
}

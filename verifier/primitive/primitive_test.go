package primitive_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/openjpki/jpki/verifier/primitive"
)

var (
	rsaKey, _       = rsa.GenerateKey(rand.Reader, 2048)
	p256Key, _      = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p521Key, _      = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, edKey, _     = ed25519.GenerateKey(rand.Reader)
	message         = []byte("a contract")
	everyKey        = []crypto.Signer{rsaKey, p256Key, p521Key, edKey}
	everyHash       = []crypto.Hash{crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA512_224, crypto.SHA512_256, crypto.SHA3_224, crypto.SHA3_256, crypto.SHA3_384, crypto.SHA3_512}
	everyAlgorithms = func() (out []primitive.Algorithm) {
		for _, h := range everyHash {
			out = append(out,
				primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: h}, primitive.NewPSS(h),
				primitive.Algorithm{Scheme: primitive.PSS, Hash: h, MGF: h, Salt: 7},
				primitive.Algorithm{Scheme: primitive.ECDSA, Hash: h})
		}
		return append(out, primitive.Algorithm{Scheme: primitive.Ed25519})
	}()
)

func sign(t testing.TB, key crypto.Signer, alg primitive.Algorithm, message []byte) []byte {
	t.Helper()
	input := message
	if alg.Scheme != primitive.Ed25519 {
		input = primitive.Digest(alg.Hash, message)
	}
	sig, err := key.Sign(rand.Reader, input, alg.SignerOpts())
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// Every algorithm verifies with the keys it is for, after a detour over its identifier, and with no other key.
func TestEveryAlgorithmWithEveryKey(t *testing.T) {
	for _, alg := range everyAlgorithms {
		fits := 0
		for _, signer := range everyKey {
			key, err := primitive.NewKey(signer.Public())
			if err != nil {
				t.Fatal(err)
			}
			if again := parsedSPKI(t, signer.Public()); again.String() != key.String() || again.Exponent != key.Exponent {
				t.Errorf("key read as %v and as %v", key, again)
			}
			err = primitive.VerifyMessage(key, alg, message, make([]byte, 64))
			if errors.Is(err, primitive.ErrMismatch) {
				continue
			}
			fits++
			sig := sign(t, signer, alg, message)
			if err := primitive.VerifyMessage(key, alg, message, sig); err != nil {
				t.Errorf("%v by %v: %v", alg, key, err)
			}
			if err := primitive.VerifyMessage(key, alg, append(message, '.'), sig); !errors.Is(err, primitive.ErrWrong) {
				t.Errorf("%v by %v over another message: %v", alg, key, err)
			}
			if alg.Scheme == primitive.Ed25519 {
				if err := primitive.Verify(key, alg, message, sig); !errors.Is(err, primitive.ErrMismatch) {
					t.Errorf("Ed25519 over a digest: %v", err)
				}
			} else if err := primitive.Verify(key, alg, message, sig); !errors.Is(err, primitive.ErrMalformed) {
				t.Errorf("%v with something that is no digest: %v", alg, err)
			}
		}
		want := map[primitive.Scheme]int{primitive.PKCS1v15: 1, primitive.PSS: 1, primitive.ECDSA: 2, primitive.Ed25519: 1}[alg.Scheme]
		if fits != want {
			t.Errorf("%v fits %d keys, want %d", alg, fits, want)
		}
		der, err := alg.Identifier()
		if err != nil {
			if alg.Scheme == primitive.ECDSA && (alg.Hash == crypto.SHA512_224 || alg.Hash == crypto.SHA512_256) {
				continue // nobody gave these an identifier
			}
			t.Errorf("identifier of %v: %v", alg, err)
			continue
		}
		if got, err := primitive.ParseAlgorithm(der); err != nil || got != alg {
			t.Errorf("%v becomes %v: %v", alg, got, err)
		}
	}
	for _, h := range everyHash {
		der, err := primitive.HashIdentifier(h)
		if got, err2 := primitive.ParseHash(der); err != nil || err2 != nil || got != h {
			t.Errorf("%v becomes %v: %v, %v", h, got, err, err2)
		}
	}
}

func parsedSPKI(t *testing.T, public crypto.PublicKey) *primitive.Key {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := primitive.ParseKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestRawECDSA(t *testing.T) {
	for _, signer := range []*ecdsa.PrivateKey{p256Key, p521Key} {
		key := parsedSPKI(t, signer.Public())
		alg := primitive.Algorithm{Scheme: primitive.ECDSA, Hash: crypto.SHA256}
		r, s, err := ecdsa.Sign(rand.Reader, signer, primitive.Digest(crypto.SHA256, message)) //nolint:staticcheck // wants r and s
		if err != nil {
			t.Fatal(err)
		}
		size := (signer.Params().BitSize + 7) / 8
		raw := append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		der, _ := asn1.Marshal(struct{ R, S any }{r, s})
		rawAlg := alg
		rawAlg.Raw = true
		for _, tc := range []struct {
			alg  primitive.Algorithm
			sig  []byte
			want error
		}{
			{alg, der, nil},
			{rawAlg, raw, nil},
			{alg, raw, primitive.ErrWrong},
			{rawAlg, der, primitive.ErrWrong},
			{rawAlg, raw[1:], primitive.ErrWrong},
			{rawAlg, append([]byte{0}, raw...), primitive.ErrWrong},
			{alg, append(der, 0), primitive.ErrWrong},
			{rawAlg, make([]byte, 2*size), primitive.ErrWrong},
		} {
			if err := primitive.VerifyMessage(key, tc.alg, message, tc.sig); !errors.Is(err, tc.want) {
				t.Errorf("%v, raw %t, %d octets: %v, want %v", key, tc.alg.Raw, len(tc.sig), err, tc.want)
			}
		}
	}
}

func TestNames(t *testing.T) {
	for _, tc := range []struct {
		read func(string) (primitive.Algorithm, error)
		name string
		want string // a description, or the text of the refusal
	}{
		{primitive.FromXML, "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "RSA-PKCS1-v1.5 with SHA-256"},
		{primitive.FromXML, "http://www.w3.org/2007/05/xmldsig-more#sha384-rsa-MGF1", "RSA-PSS with SHA-384, salt 48"},
		{primitive.FromXML, "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512", "ECDSA with SHA-512"},
		{primitive.FromXML, "http://www.w3.org/2021/04/xmldsig-more#eddsa-ed25519", "Ed25519"},
		{primitive.FromXML, "http://www.w3.org/2000/09/xmldsig#dsa-sha1", "unsupported: DSA with SHA-1"},
		{primitive.FromXML, "http://www.w3.org/2000/09/xmldsig#hmac-sha1", "unsupported: HMAC, which is no signature"},
		{primitive.FromXML, "http://www.w3.org/2001/04/xmldsig-more#RSA-SHA256", "unsupported: a signature algorithm that is not known"},
		{primitive.FromXML, "", "unsupported: a signature algorithm that is not known"},
		{primitive.FromJOSE, "RS256", "RSA-PKCS1-v1.5 with SHA-256"},
		{primitive.FromJOSE, "PS512", "RSA-PSS with SHA-512, salt 64"},
		{primitive.FromJOSE, "ES512", "ECDSA with SHA-512"},
		{primitive.FromJOSE, "EdDSA", "Ed25519"},
		{primitive.FromJOSE, "none", "unsupported: an unsecured JWS"},
		{primitive.FromJOSE, "HS256", "unsupported: HMAC, which is no signature"},
		{primitive.FromJOSE, "rs256", "unsupported: a signature algorithm that is not known"},
	} {
		alg, err := tc.read(tc.name)
		got := alg.String()
		if err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%s is %q, want %q", tc.name, got, tc.want)
		}
	}
	for uri, want := range map[string]string{
		"http://www.w3.org/2000/09/xmldsig#sha1":          "SHA-1",
		"http://www.w3.org/2001/04/xmlenc#sha256":         "SHA-256",
		"http://www.w3.org/2001/04/xmldsig-more#sha384":   "SHA-384",
		"http://www.w3.org/2007/05/xmldsig-more#sha3-512": "SHA3-512",
		"http://www.w3.org/2001/04/xmldsig-more#md5":      "unsupported: MD5",
		"http://www.w3.org/2001/04/xmldsig-more#sha256":   "unsupported: a digest method that is not known",
		"": "unsupported: a digest method that is not known",
	} {
		h, err := primitive.HashFromXML(uri)
		got := primitive.HashName(h)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s is %q, want %q", uri, got, want)
		}
	}
	// A JOSE algorithm is bound to its curve; the same in XML is not.
	key := parsedSPKI(t, p521Key.Public())
	jose, _ := primitive.FromJOSE("ES256")
	xml, _ := primitive.FromXML("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256")
	if err := primitive.VerifyMessage(key, jose, message, nil); !errors.Is(err, primitive.ErrMismatch) {
		t.Errorf("ES256 with P-521: %v", err)
	}
	if err := primitive.VerifyMessage(key, xml, message, nil); !errors.Is(err, primitive.ErrWrong) {
		t.Errorf("ecdsa-sha256 with P-521: %v", err)
	}
}

func TestWithHash(t *testing.T) {
	open, err := primitive.ParseAlgorithm(unhex(t, "300d06092a864886f70d0101010500")) // rsaEncryption
	if err != nil || open.Hash != 0 {
		t.Fatalf("rsaEncryption is %v: %v", open, err)
	}
	if err := primitive.VerifyMessage(parsedSPKI(t, rsaKey.Public()), open, message, nil); !errors.Is(err, primitive.ErrMalformed) {
		t.Errorf("without a hash function: %v", err)
	}
	closed, err := open.WithHash(crypto.SHA256)
	if err != nil || closed.Hash != crypto.SHA256 {
		t.Errorf("with SHA-256 it is %v: %v", closed, err)
	}
	if _, err := closed.WithHash(crypto.SHA512); !errors.Is(err, primitive.ErrMismatch) {
		t.Errorf("with SHA-512 as well: %v", err)
	}
}

// AlgorithmIdentifiers that are no good, and what is said of them.
func TestIdentifiersRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		der  string
		want error
	}{
		"empty":                        {"", primitive.ErrMalformed},
		"trailing octets":              {"300d06092a864886f70d01010b050000", primitive.ErrMalformed},
		"two parameters":               {"300f06092a864886f70d01010b05000500", primitive.ErrMalformed},
		"long form of a length":        {"30810d06092a864886f70d01010b0500", primitive.ErrMalformed},
		"indefinite length":            {"308006092a864886f70d01010b05000000", primitive.ErrMalformed},
		"RSA with an INTEGER":          {"300e06092a864886f70d01010b020100", primitive.ErrMalformed},
		"ECDSA with NULL":              {"300c06082a8648ce3d0403020500", primitive.ErrMalformed},
		"Ed25519 with NULL":            {"300706032b65700500", primitive.ErrMalformed},
		"PSS without parameters":       {"300b06092a864886f70d01010a", primitive.ErrMalformed},
		"PSS with NULL":                {"300d06092a864886f70d01010a0500", primitive.ErrMalformed},
		"PSS with trailer field 2":     {"301206092a864886f70d01010a3005a303020102", primitive.ErrMalformed},
		"PSS with a salt of -1":        {"301206092a864886f70d01010a3005a2030201ff", primitive.ErrMalformed},
		"PSS with a salt of 32767":     {"301306092a864886f70d01010a3006a20402027fff", primitive.ErrMalformed},
		"PSS with fields out of order": {"301706092a864886f70d01010a300aa303020101a203020120", primitive.ErrMalformed},
		"MD5":                          {"300d06092a864886f70d0101040500", primitive.ErrUnsupported},
		"DSA":                          {"300906072a8648ce380403", primitive.ErrUnsupported},
		"Ed448":                        {"300506032b6571", primitive.ErrUnsupported},
		"an unknown OID":               {"300506032a0304", primitive.ErrUnsupported},
	} {
		if a, err := primitive.ParseAlgorithm(unhex(t, tc.der)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, %v; want %v", name, a, err, tc.want)
		}
	}
	// The defaults of PSS, left out and written out (RFC 4055 §3.1).
	want := primitive.Algorithm{Scheme: primitive.PSS, Hash: crypto.SHA1, MGF: crypto.SHA1, Salt: 20}
	for _, der := range []string{
		"300d06092a864886f70d01010a3000",
		"301206092a864886f70d01010a3005a203020114",
		"301706092a864886f70d01010a300aa203020114a303020101",
		"301a06092a864886f70d01010a300da00b300906052b0e03021a0500",
	} {
		if a, err := primitive.ParseAlgorithm(unhex(t, der)); err != nil || a != want {
			t.Errorf("%s is %v: %v", der, a, err)
		}
	}
}

func TestKeysRefused(t *testing.T) {
	spki := func(alg, bits string) []byte {
		a, b := unhex(t, alg), unhex(t, bits)
		der, err := asn1.Marshal(struct {
			Alg asn1.RawValue
			Key asn1.BitString
		}{asn1.RawValue{FullBytes: a}, asn1.BitString{Bytes: b, BitLength: 8 * len(b)}})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	ec := func(curve string) string { return "301306072a8648ce3d0201" + curve }
	for name, tc := range map[string]struct {
		der  []byte
		want string
	}{
		"nothing":             {nil, "malformed"},
		"a certificate":       {unhex(t, "3003300130"), "malformed"},
		"Ed448":               {spki("300506032b6571", strings.Repeat("01", 57)), "Ed448"},
		"DSA":                 {spki("300906072a8648ce380401", "0201"), "DSA"},
		"brainpool":           {spki("301406072a8648ce3d020106092b2403030208010107", "04"), "brainpoolP256r1"},
		"secp256k1":           {spki("301006072a8648ce3d020106052b8104000a", "04"), "secp256k1"},
		"explicit curve":      {spki("300b06072a8648ce3d02013000", "04"), "not named"},
		"point off the curve": {spki(ec("06082a8648ce3d030107"), "04"+strings.Repeat("01", 64)), "not a point"},
		"point at infinity":   {spki(ec("06082a8648ce3d030107"), "00"), "not a point"},
		"hybrid point":        {spki(ec("06082a8648ce3d030107"), "06"+strings.Repeat("01", 64)), "not a point"},
		"Ed25519, short":      {spki("300506032b6570", strings.Repeat("02", 31)), "not an Ed25519 key"},
		"Ed25519, identity":   {spki("300506032b6570", "01"+strings.Repeat("00", 31)), "not an Ed25519 key"},
		"Ed25519, p+1, sign":  {spki("300506032b6570", "ee"+strings.Repeat("ff", 31)), "not an Ed25519 key"},
		"Ed25519, order 8":    {spki("300506032b6570", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "not an Ed25519 key"},
	} {
		if k, err := primitive.ParseKey(tc.der); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, %v; want %s", name, k, err, tc.want)
		}
	}
	for name, key := range map[string]crypto.PublicKey{
		"exponent 1":     &rsa.PublicKey{N: rsaKey.N, E: 1},
		"even exponent":  &rsa.PublicKey{N: rsaKey.N, E: 4},
		"long exponent":  &rsa.PublicKey{N: rsaKey.N, E: 1<<48 + 1},
		"no modulus":     &rsa.PublicKey{E: 3},
		"even modulus":   &rsa.PublicKey{N: new(big.Int).SetBit(rsaKey.N, 0, 0), E: 3},
		"RSA-1023":       &rsa.PublicKey{N: modulus(1023), E: 65537},
		"RSA-8193":       &rsa.PublicKey{N: modulus(8193), E: 65537},
		"a string":       "RSA",
		"nothing":        nil,
		"a nil key":      (*rsa.PublicKey)(nil),
		"no curve":       &ecdsa.PublicKey{},
		"short Ed25519":  ed25519.PublicKey{1},
		"somebody's own": &ecdsa.PublicKey{Curve: &elliptic.CurveParams{}},
	} {
		if k, err := primitive.NewKey(key); err == nil {
			t.Errorf("%s: accepted as %v", name, k)
		}
	}
	for bits, want := range map[int]bool{1023: false, 1024: true, 8192: true, 8193: false} {
		if _, err := primitive.NewKey(&rsa.PublicKey{N: modulus(bits), E: 3}); (err == nil) != want {
			t.Errorf("RSA-%d: %v", bits, err)
		}
	}
}

func TestOtherFormsOfKeys(t *testing.T) {
	if k, err := primitive.ParseKey(x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)); err != nil || k.Bits != 2048 || k.Exponent != 65537 {
		t.Errorf("PKCS#1: %v, %v", k, err)
	}
	der, _ := x509.MarshalPKIXPublicKey(p256Key.Public())
	var spki struct {
		Alg asn1.RawValue
		Key asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &spki); err != nil {
		t.Fatal(err)
	}
	spki.Key.Bytes = compressed(t, p256Key)
	spki.Key.BitLength = 8 * len(spki.Key.Bytes)
	der, _ = asn1.Marshal(spki)
	if k, err := primitive.ParseKey(der); err != nil || !p256Key.PublicKey.Equal(k.Public()) {
		t.Errorf("compressed point: %v, %v", k, err)
	}
}

func compressed(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	size := (len(point) - 1) / 2
	return append([]byte{2 + point[len(point)-1]&1}, point[1:1+size]...)
}

// Keys with exponents that crypto/rsa does not take.
func TestLongExponents(t *testing.T) {
	const e = 2271055779
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(rsaKey.Primes[0], one), new(big.Int).Sub(rsaKey.Primes[1], one))
	d := new(big.Int).ModInverse(big.NewInt(e), phi)
	if d == nil {
		t.Skip("this key has no such exponent")
	}
	key, err := primitive.NewKey(&rsa.PublicKey{N: rsaKey.N, E: e})
	if err != nil {
		t.Fatal(err)
	}
	usual := parsedSPKI(t, rsaKey.Public())
	for _, alg := range []primitive.Algorithm{{Scheme: primitive.PKCS1v15, Hash: crypto.SHA256}, primitive.NewPSS(crypto.SHA256)} {
		// The encoded message of a signature by the usual exponent, signed by this one.
		em := new(big.Int).Exp(new(big.Int).SetBytes(sign(t, rsaKey, alg, message)), big.NewInt(int64(rsaKey.E)), rsaKey.N)
		sig := em.Exp(em, d, rsaKey.N).FillBytes(make([]byte, 256))
		if err := primitive.VerifyMessage(key, alg, message, sig); err != nil {
			t.Errorf("%v: %v", alg, err)
		}
		if err := primitive.VerifyMessage(key, alg, message[1:], sig); !errors.Is(err, primitive.ErrWrong) {
			t.Errorf("%v, other message: %v", alg, err)
		}
		if err := primitive.VerifyMessage(usual, alg, message, sig); !errors.Is(err, primitive.ErrWrong) {
			t.Errorf("%v, usual exponent: %v", alg, err)
		}
	}
}

// An id-RSASSA-PSS key is for nothing but PSS, and for the parameters it names (RFC 4055 §1.2, §3.3).
func TestBoundKeys(t *testing.T) {
	pss256 := primitive.NewPSS(crypto.SHA256)
	id, _ := pss256.Identifier()
	pkcs1 := x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)
	spki := func(alg []byte) *primitive.Key {
		der, _ := asn1.Marshal(struct {
			Alg asn1.RawValue
			Key asn1.BitString
		}{asn1.RawValue{FullBytes: alg}, asn1.BitString{Bytes: pkcs1, BitLength: 8 * len(pkcs1)}})
		k, err := primitive.ParseKey(der)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	free, bound := spki(unhex(t, "300b06092a864886f70d01010a")), spki(id)
	longer := pss256
	longer.Salt = 40
	shorter := pss256
	shorter.Salt = 31
	for _, tc := range []struct {
		key  *primitive.Key
		alg  primitive.Algorithm
		want error
	}{
		{free, pss256, nil},
		{free, primitive.NewPSS(crypto.SHA512), nil},
		{free, primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: crypto.SHA256}, primitive.ErrMismatch},
		{bound, pss256, nil},
		{bound, longer, nil},
		{bound, shorter, primitive.ErrMismatch},
		{bound, primitive.NewPSS(crypto.SHA512), primitive.ErrMismatch},
		{bound, primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: crypto.SHA256}, primitive.ErrMismatch},
	} {
		if err := primitive.VerifyMessage(tc.key, tc.alg, message, sign(t, rsaKey, tc.alg, message)); !errors.Is(err, tc.want) {
			t.Errorf("%v: %v, want %v", tc.alg, err, tc.want)
		}
	}
}

// openssl makes PSS signatures that crypto/rsa neither makes nor checks: another hash in MGF1, an empty salt, a modulus whose
// encoded message is one octet shorter.
func TestPSSByOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(file("message"), message, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bits := range []string{"1024", "1025", "1031", "2048"} {
		openssl(t, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:"+bits, "-out", file("key.pem"))
		openssl(t, "pkey", "-in", file("key.pem"), "-pubout", "-outform", "DER", "-out", file("key.der"))
		der, _ := os.ReadFile(file("key.der"))
		key, err := primitive.ParseKey(der)
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			mgf  string
			salt string
			alg  primitive.Algorithm
		}{
			{"sha1", "20", primitive.Algorithm{Scheme: primitive.PSS, Hash: crypto.SHA256, MGF: crypto.SHA1, Salt: 20}},
			{"sha512", "32", primitive.Algorithm{Scheme: primitive.PSS, Hash: crypto.SHA256, MGF: crypto.SHA512, Salt: 32}},
			{"sha256", "0", primitive.Algorithm{Scheme: primitive.PSS, Hash: crypto.SHA256, MGF: crypto.SHA256}},
			{"sha3-256", "0", primitive.Algorithm{Scheme: primitive.PSS, Hash: crypto.SHA256, MGF: crypto.SHA3_256}},
			{"sha256", "32", primitive.Algorithm{Scheme: primitive.PSS, Hash: crypto.SHA256, MGF: crypto.SHA256, Salt: 32}},
		} {
			openssl(t, "dgst", "-sha256", "-sign", file("key.pem"), "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:"+tc.salt,
				"-sigopt", "rsa_mgf1_md:"+tc.mgf, "-out", file("sig"), file("message"))
			sig, _ := os.ReadFile(file("sig"))
			if err := primitive.VerifyMessage(key, tc.alg, message, sig); err != nil {
				t.Errorf("RSA-%s, %v: %v", bits, tc.alg, err)
			}
			for i := 0; i < len(sig); i += 11 {
				sig[i] ^= 1
				if err := primitive.VerifyMessage(key, tc.alg, message, sig); !errors.Is(err, primitive.ErrWrong) {
					t.Errorf("RSA-%s, %v, octet %d changed: %v", bits, tc.alg, i, err)
				}
				sig[i] ^= 1
			}
			for _, other := range []func(*primitive.Algorithm){
				func(a *primitive.Algorithm) { a.Salt++ },
				func(a *primitive.Algorithm) { a.Salt = (a.Salt + 19) % 21 },
				func(a *primitive.Algorithm) { a.Salt = 1024 },
				func(a *primitive.Algorithm) { a.MGF = crypto.SHA384 },
			} {
				a := tc.alg
				other(&a)
				if err := primitive.VerifyMessage(key, a, message, sig); !errors.Is(err, primitive.ErrWrong) {
					t.Errorf("RSA-%s, %v read as %v: %v", bits, tc.alg, a, err)
				}
			}
		}
	}
}

func openssl(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestSignedDigest(t *testing.T) {
	key := parsedSPKI(t, rsaKey.Public())
	for _, h := range everyHash {
		alg := primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: h}
		got, digest, ok := primitive.SignedDigest(key, sign(t, rsaKey, alg, message))
		if !ok || got != h || !cmp.Equal(digest, primitive.Digest(h, message)) {
			t.Errorf("%v: %v, %x, %t", alg, got, digest, ok)
		}
	}
	if _, _, ok := primitive.SignedDigest(key, sign(t, rsaKey, primitive.NewPSS(crypto.SHA256), message)); ok {
		t.Error("found a digest in a PSS signature")
	}
	if _, _, ok := primitive.SignedDigest(key, make([]byte, 256)); ok {
		t.Error("found a digest in nothing")
	}
	if _, _, ok := primitive.SignedDigest(parsedSPKI(t, p256Key.Public()), make([]byte, 256)); ok {
		t.Error("found a digest in an ECDSA signature")
	}
}

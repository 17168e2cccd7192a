package primitive

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Verify returns nil if signature is by key over a digest made with the algorithm's hash function. Ed25519 takes no
// digest: use [VerifyMessage].
func Verify(key *Key, alg Algorithm, digest, signature []byte) error {
	if err := key.admits(alg); err != nil {
		return err
	}
	if alg.Scheme == Ed25519 {
		return fmt.Errorf("%w: Ed25519 signs a message, not a digest", ErrMismatch)
	}
	if !knownHash(alg.Hash) || len(digest) != alg.Hash.Size() {
		return fmt.Errorf("%w: no digest of the algorithm's hash function", ErrMalformed)
	}
	ok := false
	switch p := key.public.(type) {
	case *rsa.PublicKey:
		switch {
		case alg.Scheme == PKCS1v15 && p.E > maxStandardExponent:
			ok = verifyPKCS1v15(p, alg.Hash, digest, signature)
		case alg.Scheme == PKCS1v15:
			ok = rsa.VerifyPKCS1v15(p, alg.Hash, digest, signature) == nil
		case alg.MGF == alg.Hash && alg.Salt > 0 && p.E <= maxStandardExponent: // to crypto/rsa a salt of 0 means any length
			ok = rsa.VerifyPSS(p, alg.Hash, digest, signature, &rsa.PSSOptions{SaltLength: alg.Salt}) == nil
		default:
			ok = verifyPSS(p, alg, digest, signature)
		}
	case *ecdsa.PublicKey:
		if alg.Raw {
			signature = fromRaw(signature, (key.Bits+7)/8)
		}
		ok = ecdsa.VerifyASN1(p, digest, signature)
	}
	if !ok {
		return ErrWrong
	}
	return nil
}

// VerifyMessage returns nil if signature is by key over message.
func VerifyMessage(key *Key, alg Algorithm, message, signature []byte) error {
	if alg.Scheme != Ed25519 {
		return Verify(key, alg, Digest(alg.Hash, message), signature)
	}
	if err := key.admits(alg); err != nil {
		return err
	}
	p, _ := key.public.(ed25519.PublicKey)
	if len(p) != ed25519.PublicKeySize || !ed25519.Verify(p, message, signature) {
		return ErrWrong
	}
	return nil
}

// schemes says with which keys each scheme works.
var schemes = map[Scheme][]KeyKind{
	PKCS1v15: {RSA},
	PSS:      {RSA},
	ECDSA:    {P224, P256, P384, P521},
	Ed25519:  {Edwards25519},
}

func (k *Key) admits(a Algorithm) error {
	if k == nil {
		return fmt.Errorf("%w: no key", ErrMismatch)
	}
	fits := false
	for _, kind := range schemes[a.Scheme] {
		fits = fits || kind == k.Kind
	}
	switch {
	case !fits || a.Curve != "" && a.Curve != k.Kind:
		return fmt.Errorf("%w: %s with a key of %s", ErrMismatch, a.Scheme, k.Kind)
	case k.bound && a.Scheme != PSS:
		return fmt.Errorf("%w: the key is for RSA-PSS only", ErrMismatch)
	case k.pss != nil && (a.Hash != k.pss.Hash || a.MGF != k.pss.MGF || a.Salt < k.pss.Salt): // RFC 4055 §3.3
		return fmt.Errorf("%w: the key is for %s only", ErrMismatch, k.pss)
	}
	return nil
}

// fromRaw turns r and s side by side into a DER SEQUENCE of them; nil if their length is not that of the curve's order.
func fromRaw(signature []byte, size int) []byte {
	if len(signature) != 2*size {
		return nil
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(signature[:size]))
		b.AddASN1BigInt(new(big.Int).SetBytes(signature[size:]))
	})
	return b.BytesOrPanic() // two INTEGERs of known size
}

// open applies the public key to an RSA signature and returns the encoded message, as long as the modulus; nil if the
// signature is not of that length or not below the modulus (RFC 8017 §5.2.2).
func open(p *rsa.PublicKey, signature []byte) []byte {
	if len(signature) != p.Size() {
		return nil
	}
	s := new(big.Int).SetBytes(signature)
	if s.Cmp(p.N) >= 0 {
		return nil
	}
	return s.Exp(s, big.NewInt(int64(p.E)), p.N).FillBytes(make([]byte, p.Size()))
}

// maxStandardExponent is the largest public exponent that crypto/rsa takes.
const maxStandardExponent = 1<<31 - 1

// verifyPKCS1v15 compares the encoded message with the only one there is (RFC 8017 §8.2.2), for exponents that crypto/rsa
// does not take.
func verifyPKCS1v15(p *rsa.PublicKey, h crypto.Hash, digest, signature []byte) bool {
	info, err := digestInfo(h, digest)
	em := open(p, signature)
	pad := len(em) - 3 - len(info)
	if err != nil || em == nil || pad < 8 {
		return false
	}
	want := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, pad)...)
	want = append(append(want, 0), info...)
	return bytes.Equal(em, want)
}

// digestInfo returns the DER of a DigestInfo with the NULL that RFC 8017 §9.2 note 1 demands.
func digestInfo(h crypto.Hash, digest []byte) ([]byte, error) {
	id, err := HashIdentifier(h)
	if err != nil {
		return nil, err
	}
	return marshal(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(id[2:])
			b.AddASN1NULL()
		})
		b.AddASN1OctetString(digest)
	})
}

// verifyPSS is EMSA-PSS-VERIFY (RFC 8017 §9.1.2) for what crypto/rsa leaves out: an empty salt, another hash in MGF1, and
// long exponents.
func verifyPSS(p *rsa.PublicKey, alg Algorithm, digest, signature []byte) bool {
	em := open(p, signature)
	emBits := p.N.BitLen() - 1
	if em == nil {
		return false
	}
	if emBits%8 == 0 { // the encoded message is one octet shorter than the modulus
		if em[0] != 0 {
			return false
		}
		em = em[1:]
	}
	hLen := alg.Hash.Size()
	dbLen := len(em) - hLen - 1
	pad := dbLen - alg.Salt - 1
	unused := byte(0xff) << (8 - (8*len(em) - emBits)) // the bits left of emBits, 0 to 7
	if pad < 0 || em[len(em)-1] != 0xbc || em[0]&unused != 0 {
		return false
	}
	db, h := bytes.Clone(em[:dbLen]), em[dbLen:len(em)-1]
	mask(alg.MGF, db, h)
	db[0] &^= unused
	for _, b := range db[:pad] {
		if b != 0 {
			return false
		}
	}
	if db[pad] != 1 {
		return false
	}
	d := NewHash(alg.Hash)
	d.Write(make([]byte, 8))
	d.Write(digest)
	d.Write(db[pad+1:])
	return bytes.Equal(d.Sum(nil), h)
}

// mask XORs MGF1 of seed (RFC 8017 appendix B.2.1) onto data.
func mask(h crypto.Hash, data, seed []byte) {
	d := NewHash(h)
	for counter := uint32(0); len(data) > 0; counter++ {
		d.Reset()
		d.Write(seed)
		d.Write([]byte{byte(counter >> 24), byte(counter >> 16), byte(counter >> 8), byte(counter)})
		for _, b := range d.Sum(nil) {
			if len(data) == 0 {
				break
			}
			data[0] ^= b
			data = data[1:]
		}
	}
}

// SignedDigest returns the digest that an RSA key made a PKCS#1 v1.5 signature over. It explains a refusal (the data
// changed, not the signer) and must never lead to an acceptance: that is [Verify]'s.
func SignedDigest(key *Key, signature []byte) (crypto.Hash, []byte, bool) {
	p, ok := key.public.(*rsa.PublicKey)
	if !ok {
		return 0, nil, false
	}
	em := open(p, signature)
	if !bytes.HasPrefix(em, []byte{0, 1}) {
		return 0, nil, false
	}
	rest := bytes.TrimLeft(em[2:], "\xff")
	if len(rest) == 0 || rest[0] != 0 || len(em)-2-len(rest) < 8 {
		return 0, nil, false
	}
	info := cryptobyte.String(rest[1:])
	var seq, alg, digest cryptobyte.String
	if !info.ReadASN1(&seq, cbasn1.SEQUENCE) || !info.Empty() || !seq.ReadASN1Element(&alg, cbasn1.SEQUENCE) ||
		!seq.ReadASN1(&digest, cbasn1.OCTET_STRING) || !seq.Empty() {
		return 0, nil, false
	}
	h, err := ParseHash(alg)
	if err != nil || len(digest) != h.Size() {
		return 0, nil, false
	}
	return h, digest, true
}

// lowOrder are the y coordinates, little-endian, of the points whose order divides 8, written canonically or not, the sign
// bit left out. With such a key a signature says nothing: values exist that verify over many messages.
var lowOrder = [...]string{
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
	"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
	"\xec\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
	"\xed\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
	"\xee\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
}

func smallOrder(point []byte) bool {
	y := bytes.Clone(point)
	y[31] &= 0x7f
	for _, low := range lowOrder {
		if string(y) == low {
			return true
		}
	}
	return false
}

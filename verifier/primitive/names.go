package primitive

import (
	"crypto"
	"fmt"
)

// A named is what one name stands for: an algorithm, or only the name for people of one that is never checked.
type named struct {
	alg   Algorithm
	never string
}

// signatureOIDs are the signature algorithms of AlgorithmIdentifiers. RSASSA-PSS takes the rest from its parameters;
// rsaEncryption and id-ecPublicKey stand in CMS for a signature whose hash digestAlgorithm names (RFC 3370 §3.2).
var signatureOIDs = byOID(map[string]named{
	"1.2.840.113549.1.1.1":    {alg: Algorithm{Scheme: PKCS1v15}},
	"1.2.840.113549.1.1.5":    {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA1}},
	"1.3.14.3.2.29":           {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA1}}, // OIW's older name of the same
	"1.2.840.113549.1.1.14":   {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA224}},
	"1.2.840.113549.1.1.11":   {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA256}},
	"1.2.840.113549.1.1.12":   {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA384}},
	"1.2.840.113549.1.1.13":   {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA512}},
	"1.2.840.113549.1.1.15":   {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA512_224}},
	"1.2.840.113549.1.1.16":   {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA512_256}},
	"2.16.840.1.101.3.4.3.13": {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA3_224}},
	"2.16.840.1.101.3.4.3.14": {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA3_256}},
	"2.16.840.1.101.3.4.3.15": {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA3_384}},
	"2.16.840.1.101.3.4.3.16": {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA3_512}},
	"1.2.840.113549.1.1.10":   {alg: Algorithm{Scheme: PSS}},
	"1.2.840.10045.2.1":       {alg: Algorithm{Scheme: ECDSA}},
	"1.2.840.10045.4.1":       {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA1}},
	"1.2.840.10045.4.3.1":     {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA224}},
	"1.2.840.10045.4.3.2":     {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA256}},
	"1.2.840.10045.4.3.3":     {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA384}},
	"1.2.840.10045.4.3.4":     {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA512}},
	"2.16.840.1.101.3.4.3.9":  {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA3_224}},
	"2.16.840.1.101.3.4.3.10": {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA3_256}},
	"2.16.840.1.101.3.4.3.11": {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA3_384}},
	"2.16.840.1.101.3.4.3.12": {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA3_512}},
	"1.3.101.112":             {alg: Algorithm{Scheme: Ed25519}},

	"1.2.840.113549.1.1.2":    {never: "RSA with MD2"},
	"1.2.840.113549.1.1.3":    {never: "RSA with MD4"},
	"1.2.840.113549.1.1.4":    {never: "RSA with MD5"},
	"1.3.36.3.3.1.2":          {never: "RSA with RIPEMD-160"},
	"1.2.840.10045.4.3":       {never: "ECDSA with parameters"},
	"1.2.840.10040.4.1":       {never: "DSA"},
	"1.2.840.10040.4.3":       {never: "DSA with SHA-1"},
	"1.3.14.3.2.27":           {never: "DSA with SHA-1"},
	"2.16.840.1.101.3.4.3.1":  {never: "DSA with SHA-224"},
	"2.16.840.1.101.3.4.3.2":  {never: "DSA with SHA-256"},
	"2.16.840.1.101.3.4.3.3":  {never: "DSA with SHA-384"},
	"2.16.840.1.101.3.4.3.4":  {never: "DSA with SHA-512"},
	"1.3.101.113":             {never: "Ed448"},
	"1.3.6.1.5.5.7.6.30":      {never: "RSA-PSS with SHAKE128"},
	"1.3.6.1.5.5.7.6.31":      {never: "RSA-PSS with SHAKE256"},
	"1.3.6.1.5.5.7.6.32":      {never: "ECDSA with SHAKE128"},
	"1.3.6.1.5.5.7.6.33":      {never: "ECDSA with SHAKE256"},
	"0.4.0.127.0.7.1.1.4.1.3": {never: "plain ECDSA with SHA-256 (BSI TR-03111)"},
	"1.2.643.7.1.1.3.2":       {never: "GOST R 34.10-2012"},
	"1.2.643.7.1.1.3.3":       {never: "GOST R 34.10-2012"},
	"1.2.156.10197.1.501":     {never: "SM2 with SM3"},
	"2.16.840.1.101.3.4.3.17": {never: "ML-DSA-44"},
	"2.16.840.1.101.3.4.3.18": {never: "ML-DSA-65"},
	"2.16.840.1.101.3.4.3.19": {never: "ML-DSA-87"},
})

// digestOIDs are hash functions that nothing is checked over; those that are, are in hashes.
var digestOIDs = byOID(map[string]named{
	"1.2.840.113549.2.2":      {never: "MD2"},
	"1.2.840.113549.2.4":      {never: "MD4"},
	"1.2.840.113549.2.5":      {never: "MD5"},
	"1.3.36.3.2.1":            {never: "RIPEMD-160"},
	"2.16.840.1.101.3.4.2.11": {never: "SHAKE128"},
	"2.16.840.1.101.3.4.2.12": {never: "SHAKE256"},
	"1.0.10118.3.0.55":        {never: "Whirlpool"},
	"1.2.643.7.1.1.2.2":       {never: "GOST R 34.11-2012"},
	"1.2.643.7.1.1.2.3":       {never: "GOST R 34.11-2012"},
	"1.2.156.10197.1.401":     {never: "SM3"},
})

// curveOIDs are the named curves (RFC 5480 §2.1.1.1).
var curveOIDs = byOID(map[string]struct {
	kind  KeyKind
	never string
}{
	"1.3.132.0.33":          {kind: P224},
	"1.2.840.10045.3.1.7":   {kind: P256},
	"1.3.132.0.34":          {kind: P384},
	"1.3.132.0.35":          {kind: P521},
	"1.2.840.10045.3.1.1":   {never: "P-192"},
	"1.3.132.0.8":           {never: "secp160r1"},
	"1.3.132.0.9":           {never: "secp160k1"},
	"1.3.132.0.10":          {never: "secp256k1"},
	"1.3.132.0.30":          {never: "secp160r2"},
	"1.3.132.0.31":          {never: "secp192k1"},
	"1.3.132.0.32":          {never: "secp224k1"},
	"1.3.36.3.3.2.8.1.1.5":  {never: "brainpoolP224r1"},
	"1.3.36.3.3.2.8.1.1.7":  {never: "brainpoolP256r1"},
	"1.3.36.3.3.2.8.1.1.8":  {never: "brainpoolP256t1"},
	"1.3.36.3.3.2.8.1.1.9":  {never: "brainpoolP320r1"},
	"1.3.36.3.3.2.8.1.1.11": {never: "brainpoolP384r1"},
	"1.3.36.3.3.2.8.1.1.12": {never: "brainpoolP384t1"},
	"1.3.36.3.3.2.8.1.1.13": {never: "brainpoolP512r1"},
	"1.3.36.3.3.2.8.1.1.14": {never: "brainpoolP512t1"},
	"1.2.156.10197.1.301":   {never: "SM2"},
})

const (
	w3c2000 = "http://www.w3.org/2000/09/xmldsig#"
	w3c2001 = "http://www.w3.org/2001/04/xmldsig-more#"
	w3c2007 = "http://www.w3.org/2007/05/xmldsig-more#"
	w3c2009 = "http://www.w3.org/2009/xmldsig11#"
	w3c2021 = "http://www.w3.org/2021/04/xmldsig-more#"
)

// xmlAlgorithms are the SignatureMethods of XML-DSig (RFC 9231 §2.2 and §2.3, XML-DSig 1.1 §6.4). ECDSA values are Raw.
// "rsa-pss" is missing here because its parameters stand in the document: see [NewPSS].
var xmlAlgorithms = map[string]named{
	w3c2000 + "rsa-sha1":          {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA1}},
	w3c2001 + "rsa-sha224":        {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA224}},
	w3c2001 + "rsa-sha256":        {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA256}},
	w3c2001 + "rsa-sha384":        {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA384}},
	w3c2001 + "rsa-sha512":        {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA512}},
	w3c2007 + "sha1-rsa-MGF1":     {alg: NewPSS(crypto.SHA1)},
	w3c2007 + "sha224-rsa-MGF1":   {alg: NewPSS(crypto.SHA224)},
	w3c2007 + "sha256-rsa-MGF1":   {alg: NewPSS(crypto.SHA256)},
	w3c2007 + "sha384-rsa-MGF1":   {alg: NewPSS(crypto.SHA384)},
	w3c2007 + "sha512-rsa-MGF1":   {alg: NewPSS(crypto.SHA512)},
	w3c2007 + "sha3-224-rsa-MGF1": {alg: NewPSS(crypto.SHA3_224)},
	w3c2007 + "sha3-256-rsa-MGF1": {alg: NewPSS(crypto.SHA3_256)},
	w3c2007 + "sha3-384-rsa-MGF1": {alg: NewPSS(crypto.SHA3_384)},
	w3c2007 + "sha3-512-rsa-MGF1": {alg: NewPSS(crypto.SHA3_512)},
	w3c2001 + "ecdsa-sha1":        {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA1, Raw: true}},
	w3c2001 + "ecdsa-sha224":      {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA224, Raw: true}},
	w3c2001 + "ecdsa-sha256":      {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA256, Raw: true}},
	w3c2001 + "ecdsa-sha384":      {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA384, Raw: true}},
	w3c2001 + "ecdsa-sha512":      {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA512, Raw: true}},
	w3c2021 + "ecdsa-sha3-224":    {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA3_224, Raw: true}},
	w3c2021 + "ecdsa-sha3-256":    {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA3_256, Raw: true}},
	w3c2021 + "ecdsa-sha3-384":    {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA3_384, Raw: true}},
	w3c2021 + "ecdsa-sha3-512":    {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA3_512, Raw: true}},
	w3c2021 + "eddsa-ed25519":     {alg: Algorithm{Scheme: Ed25519}},

	w3c2000 + "dsa-sha1":           {never: "DSA with SHA-1"},
	w3c2009 + "dsa-sha256":         {never: "DSA with SHA-256"},
	w3c2001 + "rsa-md5":            {never: "RSA with MD5"},
	w3c2001 + "rsa-ripemd160":      {never: "RSA with RIPEMD-160"},
	w3c2007 + "md5-rsa-MGF1":       {never: "RSA-PSS with MD5"},
	w3c2007 + "ripemd160-rsa-MGF1": {never: "RSA-PSS with RIPEMD-160"},
	w3c2007 + "ecdsa-ripemd160":    {never: "ECDSA with RIPEMD-160"},
	w3c2007 + "ecdsa-whirlpool":    {never: "ECDSA with Whirlpool"},
	w3c2021 + "eddsa-ed25519ph":    {never: "Ed25519ph"},
	w3c2021 + "eddsa-ed25519ctx":   {never: "Ed25519ctx"},
	w3c2021 + "eddsa-ed448":        {never: "Ed448"},
	w3c2021 + "eddsa-ed448ph":      {never: "Ed448ph"},
	w3c2000 + "hmac-sha1":          {never: "HMAC, which is no signature"},
	w3c2001 + "hmac-md5":           {never: "HMAC, which is no signature"},
	w3c2001 + "hmac-sha224":        {never: "HMAC, which is no signature"},
	w3c2001 + "hmac-sha256":        {never: "HMAC, which is no signature"},
	w3c2001 + "hmac-sha384":        {never: "HMAC, which is no signature"},
	w3c2001 + "hmac-sha512":        {never: "HMAC, which is no signature"},
	w3c2001 + "hmac-ripemd160":     {never: "HMAC, which is no signature"},
}

// xmlDigests are DigestMethods that nothing is checked over; those that are, are in hashes.
var xmlDigests = map[string]string{
	w3c2001 + "md5": "MD5",
	"http://www.w3.org/2001/04/xmlenc#ripemd160": "RIPEMD-160",
	w3c2007 + "whirlpool":                        "Whirlpool",
}

// joseAlgorithms are the "alg" values of JWS (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864). ECDSA is bound to one curve.
var joseAlgorithms = map[string]named{
	"RS256":   {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA256}},
	"RS384":   {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA384}},
	"RS512":   {alg: Algorithm{Scheme: PKCS1v15, Hash: crypto.SHA512}},
	"PS256":   {alg: NewPSS(crypto.SHA256)},
	"PS384":   {alg: NewPSS(crypto.SHA384)},
	"PS512":   {alg: NewPSS(crypto.SHA512)},
	"ES256":   {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA256, Curve: P256, Raw: true}},
	"ES384":   {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA384, Curve: P384, Raw: true}},
	"ES512":   {alg: Algorithm{Scheme: ECDSA, Hash: crypto.SHA512, Curve: P521, Raw: true}},
	"EdDSA":   {alg: Algorithm{Scheme: Ed25519}},
	"Ed25519": {alg: Algorithm{Scheme: Ed25519}},

	"none":      {never: "an unsecured JWS"},
	"HS256":     {never: "HMAC, which is no signature"},
	"HS384":     {never: "HMAC, which is no signature"},
	"HS512":     {never: "HMAC, which is no signature"},
	"RS1":       {never: "RSA with SHA-1 in JOSE"},
	"ES256K":    {never: "ECDSA on secp256k1"},
	"Ed448":     {never: "Ed448"},
	"ML-DSA-44": {never: "ML-DSA-44"},
	"ML-DSA-65": {never: "ML-DSA-65"},
	"ML-DSA-87": {never: "ML-DSA-87"},
}

// NewPSS returns RSA-PSS as XML-DSig without parameters and JOSE define it: one hash function, a salt of its length.
func NewPSS(h crypto.Hash) Algorithm { return Algorithm{Scheme: PSS, Hash: h, MGF: h, Salt: h.Size()} }

// FromXML returns the signature algorithm an XML-DSig SignatureMethod names.
func FromXML(uri string) (Algorithm, error) { return lookUp(xmlAlgorithms, uri) }

// FromJOSE returns the signature algorithm a JWS "alg" header names. The keys of "EdDSA" must be of Ed25519.
func FromJOSE(alg string) (Algorithm, error) { return lookUp(joseAlgorithms, alg) }

// HashFromXML returns the hash function an XML-DSig DigestMethod names.
func HashFromXML(uri string) (crypto.Hash, error) {
	for i := range hashes {
		if hashes[i].xml == uri && uri != "" {
			return hashes[i].hash, nil
		}
	}
	if never, known := xmlDigests[uri]; known {
		return 0, fmt.Errorf("%w: %s", ErrUnsupported, never)
	}
	return 0, fmt.Errorf("%w: a digest method that is not known", ErrUnsupported)
}

// lookUp does not repeat an unknown name in its error: it came from outside and may be of any length.
func lookUp(table map[string]named, name string) (Algorithm, error) {
	n, ok := table[name]
	switch {
	case !ok:
		return Algorithm{}, fmt.Errorf("%w: a signature algorithm that is not known", ErrUnsupported)
	case n.never != "":
		return Algorithm{}, fmt.Errorf("%w: %s", ErrUnsupported, n.never)
	}
	return n.alg, nil
}

package xmldsig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"math/big"
	"strings"

	"github.com/openjpki/jpki/verifier/primitive"
	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

// KeyInfo is what a signature says about its key. Nothing of it is to be believed for being there.
type KeyInfo struct {
	Names        []string
	Keys         []*primitive.Key // bare keys: KeyValue, DEREncodedKeyValue
	Certificates [][]byte         // DER
	CRLs         [][]byte         // DER
}

// maxMaterial bounds the certificates, lists and keys of a signature.
const maxMaterial = 200

// readKeyInfo takes what it understands and passes over the rest.
func (s *Signature) readKeyInfo() (k KeyInfo) {
	for _, c := range s.keyInfo.Elements() {
		if len(k.Names)+len(k.Keys)+len(k.Certificates)+len(k.CRLs) > maxMaterial {
			return k
		}
		switch {
		case c.Is(dsig, "KeyName"):
			k.Names = append(k.Names, strings.TrimSpace(c.Text()))
		case c.Is(dsig, "KeyValue"):
			for _, v := range c.Elements() {
				if key := keyValue(v); key != nil {
					k.Keys = append(k.Keys, key)
				}
			}
		case c.Is(dsig11, "DEREncodedKeyValue"):
			if der, err := decode(c.Text()); err == nil {
				if key, err := primitive.ParseKey(der); err == nil {
					k.Keys = append(k.Keys, key)
				}
			}
		case c.Is(dsig, "RetrievalMethod"):
			// Only a certificate as it is; what needs transforms is passed over.
			uri, _ := c.Attr("", "URI")
			if typ, _ := c.Attr("", "Type"); typ == dsig+"rawX509Certificate" && s.options.Resolve != nil && len(c.Elements()) == 0 {
				if der, ok := s.options.Resolve(uri); ok {
					k.Certificates = append(k.Certificates, der)
				}
			}
		case c.Is(dsig, "X509Data"):
			for _, x := range c.Elements() {
				der, err := decode(x.Text())
				switch {
				case err != nil:
				case x.Is(dsig, "X509Certificate"):
					k.Certificates = append(k.Certificates, der)
				case x.Is(dsig, "X509CRL"):
					k.CRLs = append(k.CRLs, der)
				}
			}
		}
	}
	return k
}

// curves lists the named curves by the identifier that a NamedCurve gives as "urn:oid:…".
var curves = map[string]elliptic.Curve{
	"1.3.132.0.33": elliptic.P224(), "1.2.840.10045.3.1.7": elliptic.P256(), "1.3.132.0.34": elliptic.P384(), "1.3.132.0.35": elliptic.P521(),
}

// keyValue reads RSAKeyValue, ECKeyValue (XML-DSig §4.5.2) and the older ECDSAKeyValue (RFC 4050 §3.1).
func keyValue(n c14n.Node) *primitive.Key {
	switch {
	case n.Is(dsig, "RSAKeyValue"):
		modulus, exponent := number(n, "Modulus"), number(n, "Exponent")
		if modulus == nil || exponent == nil || exponent.BitLen() > 31 {
			return nil
		}
		return newKey(&rsa.PublicKey{N: modulus, E: int(exponent.Int64())})
	case n.Is(dsig11, "ECKeyValue"):
		named, ok := child(n, dsig11, "NamedCurve")
		point, okPoint := child(n, dsig11, "PublicKey")
		if !ok || !okPoint {
			return nil
		}
		uri, _ := named.Attr("", "URI")
		octets, err := decode(point.Text())
		if err != nil {
			return nil
		}
		return newPoint(uri, octets)
	case n.Is(more, "ECDSAKeyValue"):
		var uri string
		for _, named := range n.Descendants(more, "NamedCurve") {
			uri, _ = named.Attr("", "URN")
		}
		curve := curves[strings.TrimPrefix(uri, "urn:oid:")]
		if curve == nil {
			return nil
		}
		size := (curve.Params().BitSize + 7) / 8
		point := []byte{4}
		for _, name := range []string{"X", "Y"} {
			found := n.Descendants(more, name)
			if len(found) != 1 {
				return nil
			}
			value, _ := found[0].Attr("", "Value")
			v, ok := new(big.Int).SetString(value, 10)
			if !ok || len(value) > 200 || v.Sign() < 0 || v.BitLen() > size*8 {
				return nil
			}
			point = append(point, v.FillBytes(make([]byte, size))...)
		}
		return newPoint(uri, point)
	}
	return nil
}

func number(n c14n.Node, name string) *big.Int {
	c, ok := child(n, dsig, name)
	if !ok {
		return nil
	}
	octets, err := decode(c.Text())
	if err != nil || len(octets) > 2048 {
		return nil
	}
	return new(big.Int).SetBytes(octets)
}

func newPoint(urn string, octets []byte) *primitive.Key {
	curve := curves[strings.TrimPrefix(urn, "urn:oid:")]
	if curve == nil {
		return nil
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, octets)
	if err != nil {
		return nil
	}
	return newKey(public)
}

func newKey(public any) *primitive.Key {
	k, err := primitive.NewKey(public)
	if err != nil {
		return nil
	}
	return k
}

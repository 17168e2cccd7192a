package front

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/netip"
	"net/url"
	"strings"

	"github.com/openjpki/jpki/ocsp"
)

// addressOf reads an IP address, with a port or without; the zero Addr stands for anything else.
func addressOf(s string) netip.Addr {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr().Unmap().WithZone("")
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// site is what counts as one address: who has one of IPv6 has 2⁶⁴.
func site(a netip.Addr) netip.Addr {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

func (s *Server) trusts(a netip.Addr) bool {
	for _, p := range s.cfg.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// behind returns who a proxy of ours says it speaks for. In X-Forwarded-For each proxy appends whom it heard, so the last
// address that is not one of our proxies is the client; what stands before it, anybody may have written.
func (s *Server) behind(peer, forwarded string, certificate string) ocsp.Client {
	client := ocsp.Client{Address: peer}
	for forwarded != "" {
		i := strings.LastIndexByte(forwarded, ',')
		a := addressOf(strings.TrimSpace(forwarded[i+1:]))
		if !a.IsValid() {
			break
		}
		client.Address = a.String()
		if !s.trusts(a) {
			break
		}
		forwarded = forwarded[:max(i, 0)]
	}
	if certificate != "" {
		if client.Certificate = certificateDigest(certificate); client.Certificate == nil {
			s.refused.Add("unreadable-certificate")
		}
	}
	return client
}

// certificateDigest reads a client certificate as TLS terminators write it into a header, and returns its SHA-256: base64
// between colons (RFC 9440), without colons (HAProxy), percent-encoded PEM (nginx) or the digest itself, hexadecimal.
// It returns nil for anything else: then nobody vouches for anybody.
func certificateDigest(value string) []byte {
	if len(value) == hex.EncodedLen(sha256.Size) {
		if digest, err := hex.DecodeString(value); err == nil {
			return digest
		}
	}
	var der []byte
	if text, err := url.PathUnescape(value); err == nil && strings.HasPrefix(text, "-----BEGIN ") {
		if block, _ := pem.Decode([]byte(text)); block != nil && block.Type == "CERTIFICATE" {
			der = block.Bytes
		}
	} else {
		if len(value) > 1 && value[0] == ':' && value[len(value)-1] == ':' {
			value = value[1 : len(value)-1]
		}
		der, _ = base64.StdEncoding.DecodeString(value)
	}
	if _, err := x509.ParseCertificate(der); err != nil {
		return nil
	}
	digest := sha256.Sum256(der)
	return digest[:]
}

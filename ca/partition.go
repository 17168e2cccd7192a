package ca

import (
	"slices"
	"strconv"
	"strings"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// Partitions returns into which CRLs an authority's certificates may fall: by municipality, and by shard if it has some. Those
// of the municipalities stay when shards come, for the certificates that point to them; so a publisher adds to these what
// the status log has of earlier rules.
func (p *Profile) Partitions(of jpki.CA) (out []string) {
	for _, m := range p.Municipalities {
		out = append(out, m.Code)
	}
	for n := range p.Authorities[of].CRLShards {
		out = append(out, crl.Shard(n))
	}
	return out
}

// partition returns the CRL a new certificate falls into, for life: it is written into the certificate.
func (p *Profile) partition(of jpki.CA, place Municipality, serial jpki.Serial) string {
	if n := p.Authorities[of].CRLShards; n > 0 {
		return crl.ShardOf(serial, n)
	}
	return place.Code
}

// CRLScope returns what the CRL of a partition covers and where it is served; false for a partition that is no
// municipality of the profile, or a shard if the profile has no name for those. How many shards the profile has now is not
// asked: certificates of another number of them keep theirs.
func (p *Profile) CRLScope(statusURL string, issuer jpki.IssuerID, partition string) (crl.Scope, bool) {
	a := p.Authorities[issuer.CA]
	s := crl.Scope{Issuer: issuer, Partition: partition}
	if n, shard := crl.ParseShard(partition); shard && a.CRLShardName != nil {
		s.DirectoryName = encodeName(fillShard(a.CRLShardName, n))
	} else if m, ok := p.municipality(partition); ok {
		s.DirectoryName = encodeName(fill(a.CRLName, m, ""))
	} else {
		return crl.Scope{}, false
	}
	s.URL = statusURL + "/crl/" + s.ID().Path()
	return s, true
}

func fillShard(name []string, n int) []string {
	out := slices.Clone(name)
	for i := range out {
		out[i] = strings.ReplaceAll(out[i], "{shard}", strconv.Itoa(n))
	}
	return out
}

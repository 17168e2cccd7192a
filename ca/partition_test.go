package ca_test

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/crl"
)

// sharded is the sandbox's profile with another number of shards for authentication certificates.
func sharded(n int) *ca.Profile {
	p := ca.Sandbox()
	p.Authorities[jpki.AuthCA].CRLShards = n
	return p
}

// Certificates fall into shards by number, tell nothing of where their holder lives, and keep their CRL for life, however many
// shards there are later.
func TestShards(t *testing.T) {
	onBoth(t, func(w *world) {
		var issued []ca.Issued
		person := 0
		issue := func(shards, n int) {
			w.under(sharded(shards), w.issuers, os.Stderr)
			for range n {
				person++
				holder := fmt.Sprint("sharded-", person)
				w.register(holder, "99101", jpki.NewBirthDate(1980, 2, 17))
				for _, got := range w.issue(holder, "card-"+holder, jpki.CardSign, jpki.CardAuth) {
					c := must(x509.ParseCertificate(got.Certificate))
					want := "99101"
					if got.Kind == jpki.CardAuth && shards > 0 {
						want = crl.ShardOf(got.ID.Serial, shards)
						if strings.Contains(string(c.Raw), "Aoba") || strings.Contains(string(c.Raw), "99101") {
							w.t.Errorf("%s says where its holder lives", got.ID)
						}
						if n, _ := crl.ParseShard(want); n >= shards || !strings.Contains(string(c.Raw), fmt.Sprintf("%d CRLDP", n)) {
							w.t.Errorf("%s is in shard %s of %d", got.ID, want, shards)
						}
					}
					if url := "http://status.example/crl/" + got.ID.Issuer.String() + "/" + want + ".crl"; len(c.CRLDistributionPoints) != 1 || c.CRLDistributionPoints[0] != url {
						w.t.Errorf("%s points to %v, want %s", got.ID, c.CRLDistributionPoints, url)
					}
					issued = append(issued, got)
				}
			}
		}
		issue(3, 5)
		issue(1, 1)
		issue(40, 4)
		issue(0, 1)
		w.now = w.now.Add(time.Minute)
		for i := 1; i <= person; i += 2 {
			if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: fmt.Sprint("card-sharded-", i), Cause: jpki.Lost}); err != nil {
				w.t.Fatal(err)
			}
		}
		w.now = w.now.Add(time.Minute)

		// Whatever the number of shards is now, each certificate's CRL is there, is the one it names, and tells the truth.
		for _, shards := range []int{0, 2, 100} {
			p, dir := sharded(shards), w.t.TempDir()
			cfg := crl.Config{Dir: dir, Source: source{w}, Now: func() time.Time { return w.now }}
			for _, i := range w.issuers {
				used, err := w.db.Partitions(w.t.Context(), i.ID)
				if err != nil {
					w.t.Fatal(err)
				}
				issuer := crl.Issuer{ID: i.ID, Cert: i.Certificate, Signer: i.Signer}
				for _, partition := range slices.Compact(slices.Sorted(slices.Values(append(used, p.Partitions(i.ID.CA)...)))) {
					scope, ok := p.CRLScope("http://status.example", i.ID, partition)
					if !ok {
						w.t.Errorf("with %d shards there is no CRL %s", shards, partition)
						continue
					}
					issuer.Partitions = append(issuer.Partitions, scope)
				}
				cfg.Issuers = append(cfg.Issuers, issuer)
			}
			if err := must(crl.NewPublisher(cfg)).PublishAll(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
			for n, got := range issued {
				c := must(x509.ParseCertificate(got.Certificate))
				path := strings.TrimPrefix(c.CRLDistributionPoints[0], "http://status.example/crl/")
				list, err := crl.OpenList(filepath.Join(dir, path), w.issuers[slices.IndexFunc(w.issuers, func(i ca.Issuer) bool { return i.ID == got.ID.Issuer })].Certificate)
				if err != nil {
					w.t.Errorf("with %d shards: %v", shards, err)
					continue
				}
				head := list.Head()
				if err := head.Covers(c); err != nil {
					w.t.Errorf("with %d shards, %s: %v", shards, path, err)
				}
				if _, listed := list.Find(got.ID.Serial); listed != (n/2%2 == 0) {
					w.t.Errorf("with %d shards, %s lists %s: %v", shards, path, got.ID, listed)
				}
			}
		}
	})
}

func TestProfileShards(t *testing.T) {
	text := string(must(os.ReadFile("profiles/sandbox-next.yaml")))
	for name, c := range map[string]struct{ old, new, complaint string }{
		"negative":   {"crl_shards: 16", "crl_shards: -1", "auth.crl_shards is not 0 to 1000"},
		"too many":   {"crl_shards: 16", "crl_shards: 1001", "auth.crl_shards is not 0 to 1000"},
		"one name":   {`"CN={shard} CRLDP"`, `"CN=some CRLDP"`, "does not contain {shard}"},
		"no name":    {"crl_shard_name: ", "# ", "auth.crl_shard_name is empty"},
		"wrong name": {`"CN={shard} CRLDP"`, `"X={shard}"`, `"X={shard}" is not C=`},
	} {
		if _, err := ca.ParseProfile([]byte(strings.Replace(text, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.complaint) {
			t.Errorf("%s: %v, want %q", name, err, c.complaint)
		}
	}
	p := must(ca.ParseProfile([]byte(text)))
	if scope, ok := p.CRLScope("http://status.example", jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, "h1"); ok {
		t.Errorf("an authority without a name for shards has %s", scope.ID())
	}
}

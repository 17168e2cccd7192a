package crl_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// OpenSSL puts full CRLs and partitions' together with their deltas, releases included. Java 21 does not: it leaves a delta aside and
// says what the complete one says, so a complete one must always be there for it. And OpenSSL that is not told of deltas took one for
// a complete list, if it found one newer, until 3.0.19; 3.0.22 leaves it aside: the guide warns of the old ones.
func TestComposition(t *testing.T) {
	openssl, java, ctx := tool(t, "openssl"), tool(t, "java"), context.Background()
	a, dir := newAuthority(t, "rsa"), t.TempDir()
	held, moved, kept, never := serial(t, "1111"), serial(t, "2222"), serial(t, "3333"), serial(t, "4444")
	w := &world{now: t0, released: map[jpki.Serial]bool{}, revoked: map[string][]crl.Entry{"99101": {
		{Serial: held, At: t0.Add(-time.Hour), Reason: jpki.CertificateHold}, {Serial: kept, At: t0.Add(-time.Hour), Reason: jpki.Superseded},
	}}}
	scope := partition(t, a.id, "99101")
	scope.DeltaURL = host + "/crl/sign-1/99101-delta.crl"
	p := newPublisher(t, crl.Config{
		Dir: dir, Source: w, Changes: w, Now: w.Now, DeltaAlone: 1,
		Issuers: []crl.Issuer{{ID: a.id, Cert: a.cert, Signer: a.key, Partitions: []crl.Scope{scope}, DeltaURL: host + "/crl/sign-1/full-delta.crl"}},
	})
	for _, id := range []crl.ID{key101, keyFull} {
		if err := p.Publish(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	w.set(func() { w.now = t0.Add(time.Minute) })
	w.change("99101", crl.Change{Entry: crl.Entry{Serial: held, At: w.now}, Released: true})
	w.change("99101", crl.Change{Entry: crl.Entry{Serial: moved, At: w.now, Reason: jpki.AffiliationChanged}})
	for _, id := range []crl.ID{key101, keyFull} {
		if err := p.Update(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	at := t0.Add(10 * time.Minute)
	ca := write(t, dir, "ca.pem", "CERTIFICATE", a.cert.Raw)
	var questions strings.Builder
	var wanted []string
	var untold [2]bool // seen: a delta taken for a complete list, and left aside
	for _, id := range []crl.ID{key101, keyFull} {
		complete := write(t, dir, "complete.pem", "X509 CRL", published(t, dir, id))
		delta := write(t, dir, "delta.pem", "X509 CRL", published(t, dir, deltaOf(id)))
		both := write(t, dir, filepath.Base(id.Path())+".pem", "", append(read(t, complete), read(t, delta)...))
		for _, c := range []struct {
			number                        jpki.Serial
			complete, both, untold, stale string // by OpenSSL; by Java with both
		}{
			{held, "revoked", "good", "good", "revoked CERTIFICATE_HOLD"},
			{moved, "good", "revoked", "revoked", "good"},
			{kept, "revoked", "revoked", "good", "revoked SUPERSEDED"},
			{never, "good", "good", "good", "good"},
		} {
			name := filepath.Base(id.Path()) + " " + c.number.String()
			cert := write(t, dir, strings.ReplaceAll(name, " ", "-")+".pem", "CERTIFICATE", subscriber(t, a, scope, c.number))
			for _, use := range []struct {
				lists, want string
				flags       []string
			}{
				{complete, c.complete, nil}, {both, "", nil}, {both, c.both, []string{"-extended_crl", "-use_deltas"}}, {complete, c.complete, []string{"-extended_crl", "-use_deltas"}},
			} {
				check := "-crl_check"
				if id == keyFull { // which lists the CA certificate's status, too
					check = "-crl_check_all"
				}
				args := append([]string{"verify", check, "-attime", strconv.FormatInt(at.Unix(), 10), "-CAfile", ca, "-CRLfile", use.lists}, use.flags...)
				out, _ := exec.Command(openssl, append(args, cert)...).CombinedOutput()
				got := "good"
				if strings.Contains(string(out), "certificate revoked") {
					got = "revoked"
				} else if !strings.Contains(string(out), ": OK") {
					got = string(out)
				}
				if use.want == "" && c.untold != c.complete {
					untold[0], untold[1] = untold[0] || got == c.untold, untold[1] || got == c.complete
				}
				if use.want == "" && got != c.untold && got != c.complete {
					t.Errorf("%s: openssl that is not told of deltas says %s", name, got)
				}
				if use.want != "" && got != use.want {
					t.Errorf("%s: openssl %v says %s, want %s", name, args[1:], got, use.want)
				}
			}
			fmt.Fprintf(&questions, "%s %s %s\n", cert, complete, delta)
			wanted = append(wanted, c.stale)
		}
		// Java reads the files at once, before the next lists take their names.
		cmd := exec.Command(java, write(t, dir, "Compose.java", "", []byte(composeCRLs)), ca, strconv.FormatInt(at.UnixMilli(), 10))
		cmd.Stdin = strings.NewReader(questions.String())
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != strings.Join(wanted, "\n") {
			t.Errorf("java, %s: %v\n%s\nwant\n%s", id, err, got, strings.Join(wanted, "\n"))
		}
		questions.Reset()
		wanted = nil
	}
	if untold[0] == untold[1] {
		t.Error("openssl that is not told of deltas takes some for complete lists and leaves others aside")
	}
}

// composeCRLs validates certificates with CRLs from a CertStore: a line each of certificate and CRLs.
const composeCRLs = `
import java.io.*;
import java.security.cert.*;
import java.util.*;

public class Compose {
	public static void main(String[] args) throws Exception {
		CertificateFactory f = CertificateFactory.getInstance("X.509");
		X509Certificate ca = (X509Certificate) f.generateCertificate(new FileInputStream(args[0]));
		BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
		for (String line = in.readLine(); line != null; line = in.readLine()) {
			String[] files = line.split(" ");
			List<CRL> lists = new ArrayList<>();
			for (int i = 1; i < files.length; i++) {
				lists.add(f.generateCRL(new FileInputStream(files[i])));
			}
			PKIXParameters p = new PKIXParameters(Set.of(new TrustAnchor(ca, null)));
			p.setDate(new Date(Long.parseLong(args[1])));
			p.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(lists)));
			CertPath path = f.generateCertPath(List.of(f.generateCertificate(new FileInputStream(files[0]))));
			try {
				CertPathValidator.getInstance("PKIX").validate(path, p);
				System.out.println("good");
			} catch (CertPathValidatorException e) {
				if (e.getCause() instanceof CertificateRevokedException r) {
					System.out.println("revoked " + r.getRevocationReason());
				} else {
					System.out.println(e.getReason() + " " + e.getMessage());
				}
			}
		}
	}
}
`

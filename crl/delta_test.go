package crl_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// logged is an entry of a test's status log.
type logged struct {
	partition string
	change    crl.Change
}

// Changes reads the log of a world.
func (w *world) Changes(_ context.Context, _ jpki.IssuerID, partition string, after int64, limit int) (out []crl.Change, mark crl.Mark, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changesAsked++
	for _, l := range w.log[after:] {
		if (partition == "" || partition == l.partition) && len(out) <= limit {
			out = append(out, l.change)
		}
	}
	return out, crl.Mark{AsOf: w.now, Position: int64(len(w.log))}, w.err
}

// change enters a change into the world: its log and what is revoked.
func (w *world) change(partition string, c crl.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, logged{partition, c})
	rest := slices.DeleteFunc(slices.Clone(w.revoked[partition]), func(e crl.Entry) bool { return e.Serial == c.Serial })
	if !c.Released {
		rest = append(rest, c.Entry)
	} else {
		w.released[c.Serial] = true
	}
	w.revoked[partition] = rest
}

func deltaConfig(t *testing.T, w *world, dir string) crl.Config {
	t.Helper()
	cfg := config(t, w, dir)
	cfg.Changes = w
	cfg.Issuers[0].DeltaURL = host + "/crl/sign-1/full-delta.crl"
	for i := range cfg.Issuers[0].Partitions {
		s := &cfg.Issuers[0].Partitions[i]
		s.DeltaURL = host + "/crl/sign-1/" + s.Partition + "-delta.crl"
	}
	return cfg
}

func deltaOf(id crl.ID) crl.ID { id.Delta = true; return id }

// said returns what a CRL says of each serial: its reason and time.
func said(list *x509.RevocationList) map[string]string {
	out := map[string]string{}
	for _, e := range list.RevokedCertificateEntries {
		out[e.SerialNumber.String()] = fmt.Sprint(e.ReasonCode, e.RevocationTime)
	}
	return out
}

func composed(base, delta *x509.RevocationList) map[string]string {
	out := said(base)
	for _, e := range delta.RevokedCertificateEntries {
		if e.ReasonCode == int(jpki.RemoveFromCRL) {
			delete(out, e.SerialNumber.String())
		} else {
			out[e.SerialNumber.String()] = fmt.Sprint(e.ReasonCode, e.RevocationTime)
		}
	}
	return out
}

func extensionNumber(t *testing.T, list *x509.RevocationList, id asn1.ObjectIdentifier) *big.Int {
	t.Helper()
	for _, e := range list.Extensions {
		if e.Id.Equal(id) {
			var n *big.Int
			if _, err := asn1.Unmarshal(e.Value, &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return nil
}

var deltaIndicator = asn1.ObjectIdentifier{2, 5, 29, 27}

// Whatever changes, in whatever order, with full CRLs in between or not: an incremental CRL says what one from the source
// says, and a delta together with any complete CRL of its base or later says the same.
func TestDeltaSaysWhatTheSourceSays(t *testing.T) {
	ctx := context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		w := &world{now: t0, revoked: map[string][]crl.Entry{}, released: map[jpki.Serial]bool{}}
		cfg := deltaConfig(t, w, dir)
		cfg.DeltaAlone = rapid.SampledFrom([]int64{1, 1 << 20}).Draw(rt, "alone")
		p := newPublisher(t, cfg)
		since := map[crl.ID][]*x509.RevocationList{} // complete CRLs of the present base
		ids := []crl.ID{key101, keyFull}
		for _, id := range ids {
			if err := p.Publish(ctx, id); err != nil {
				rt.Fatal(err)
			}
			since[id] = []*x509.RevocationList{parsed(t, dir, id)}
		}
		held := map[int]bool{}
		for step := range rapid.IntRange(1, 5).Draw(rt, "steps") {
			w.set(func() { w.now = w.now.Add(time.Minute) })
			for range rapid.IntRange(0, 6).Draw(rt, "changes") {
				n := rapid.IntRange(1, 300).Draw(rt, "serial")
				s, err := jpki.SerialFromBig(big.NewInt(int64(n)))
				if err != nil {
					rt.Fatal(err)
				}
				c := crl.Change{Entry: crl.Entry{Serial: s, At: w.now, Reason: jpki.CertificateHold}}
				if known, is := held[n]; is && known {
					c.Released = true
				} else if rapid.Bool().Draw(rt, "other reason") {
					c.Reason = rapid.SampledFrom([]jpki.Reason{0, 1, 3, 5}).Draw(rt, "reason")
				}
				held[n] = !c.Released && c.Reason == jpki.CertificateHold
				w.change("99101", c)
			}
			for _, id := range ids[step%2 : step%2+1] {
				do, wanted := p.Update, id
				switch rapid.IntRange(0, 5).Draw(rt, "how") {
				case 0:
					do = p.Publish
				case 1:
					wanted = deltaOf(id)
				case 2:
					p = newPublisher(t, cfg) // a restart
				}
				if err := do(ctx, wanted); err != nil {
					rt.Fatalf("step %d: %v", step, err)
				}
				list, delta := parsed(t, dir, id), parsed(t, dir, deltaOf(id))
				base := extensionNumber(t, delta, deltaIndicator)
				if since[id][0].Number.Cmp(base) != 0 {
					since[id] = nil
				}
				if since[id] = append(since[id], list); since[id][0].Number.Cmp(base) != 0 {
					rt.Fatalf("the base %v was never published", base)
				}
				all := make([]crl.Entry, 0)
				w.set(func() { all = append(all, w.revoked["99101"]...) })
				slices.SortFunc(all, func(a, b crl.Entry) int { return a.Serial.Big().Cmp(b.Serial.Big()) })
				tm := template(authority{sign1, cfg.Issuers[0].Cert, cfg.Issuers[0].Signer}, cfg.Issuers[0].Partitions[0])
				truth, err := x509.ParseRevocationList(build(t, tm, all))
				if err != nil {
					rt.Fatal(err)
				}
				for _, complete := range since[id] {
					if diff := cmp.Diff(said(truth), composed(complete, delta)); diff != "" {
						rt.Fatalf("%s: a complete CRL with the delta says otherwise (-want +got)\n%s", id, diff)
					}
				}
				if cfg.DeltaAlone > 1 && !wanted.Delta {
					if diff := cmp.Diff(said(truth), said(list)); diff != "" {
						rt.Fatalf("%s (-want +got)\n%s", id, diff)
					}
					if list.Number.Cmp(delta.Number) != 0 || !list.ThisUpdate.Equal(delta.ThisUpdate) {
						rt.Fatalf("%s and its delta, made together, have numbers %v and %v", id, list.Number, delta.Number)
					}
				}
			}
		}
	})
}

// A complete CRL points to its delta, a delta does not; both are of one scope, and a reader that knows no deltas stops at one.
func TestDeltaExtensions(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	w := &world{now: t0, revoked: map[string][]crl.Entry{}, released: map[jpki.Serial]bool{}}
	old := newPublisher(t, config(t, w, dir)) // the lists were there before their deltas
	if err := old.Publish(ctx, key101); err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t, deltaConfig(t, w, dir))
	w.set(func() { w.now = t0.Add(time.Second) })
	if err := p.Update(ctx, key101); err != nil {
		t.Fatal(err)
	}
	ids := func(id crl.ID) (out []string) {
		for _, e := range parsed(t, dir, id).Extensions {
			out = append(out, fmt.Sprint(e.Id, e.Critical))
		}
		return out
	}
	if diff := cmp.Diff([]string{"2.5.29.35 false", "2.5.29.20 false", "2.5.29.28 true", "2.5.29.46 false"}, ids(key101)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"2.5.29.35 false", "2.5.29.20 false", "2.5.29.27 true", "2.5.29.28 true"}, ids(deltaOf(key101))); diff != "" {
		t.Error(diff)
	}
	w.set(func() { w.now = t0.Add(2 * time.Second) })
	if err := newPublisher(t, config(t, w, dir)).Publish(ctx, key101); err != nil { // and they can be given up again
		t.Error(err)
	}
	for _, bad := range []string{host + "/crl/sign-1/99101.crl", host + "/crl/sign-1/99102-delta.crl", "/99101-delta.crl"} {
		s := partition(t, sign1, "99101")
		s.DeltaURL = bad
		checkError(t, bad, s.Validate(), "URL")
	}
	cfg := deltaConfig(t, w, dir)
	cfg.Changes = nil
	_, err := crl.NewPublisher(cfg)
	checkError(t, "deltas without a log", err, "Config.Changes")
}

// Between full ones nothing is read from the source but what changed.
func TestUpdateReadsOnlyChanges(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	w := &world{now: t0, revoked: map[string][]crl.Entry{"99101": numbered(t, 3)}, released: map[jpki.Serial]bool{}}
	cfg := config(t, w, dir)
	cfg.Changes = w
	p := newPublisher(t, cfg)
	for i, want := range []int{1, 1, 1, 2, 3, 3} { // how often the source was asked for everything
		w.set(func() { w.now = w.now.Add(time.Minute) })
		switch i {
		case 3:
			w.set(func() { w.now = w.now.Add(24 * time.Hour) })
		case 4: // a file beside a list of another number says nothing
			if err := os.WriteFile(filepath.Join(dir, "sign-1", ".99101.crl.state"), []byte("number 7 position 0 base 7 position 0 of 0\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Update(ctx, key101); err != nil {
			t.Fatal(err)
		}
		if n := len(w.asked); n != want {
			t.Errorf("after update %d the source was asked %d times, want %d", i, n, want)
		}
	}
	if err := p.PublishAll(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(w.asked); n != 6 {
		t.Errorf("the source was asked %d times, want 6: everything is published anew", n)
	}
}

// A log that says less or other than the truth does not get past the gate unnoticed: what it says is in the list, what was
// listed stays, and the next CRL from the source mends the rest.
func TestUpdateRefuses(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	entries := numbered(t, 3)
	w := &world{now: t0, revoked: map[string][]crl.Entry{"99101": entries}, released: map[jpki.Serial]bool{}}
	cfg := config(t, w, dir)
	cfg.Changes = w
	p := newPublisher(t, cfg)
	if err := p.Publish(ctx, key101); err != nil {
		t.Fatal(err)
	}
	before := published(t, dir, key101)
	w.set(func() { w.now = t0.Add(time.Minute) })
	for _, c := range []struct {
		name string
		log  crl.Change
		want string
	}{
		{"released, which it was not", crl.Change{Entry: crl.Entry{Serial: entries[0].Serial, At: t0}, Released: true}, "has vanished"},
		{"in the future", crl.Change{Entry: crl.Entry{Serial: serial(t, "7777"), At: t0.Add(time.Hour), Reason: 1}}, "not yet revoked"},
		{"a reason that no complete CRL has", crl.Change{Entry: crl.Entry{Serial: serial(t, "7777"), At: t0, Reason: 8}}, "reason 8"},
		{"no serial", crl.Change{Entry: crl.Entry{At: t0, Reason: 1}}, "serial"},
	} {
		w.set(func() { w.log = []logged{{"99101", c.log}} })
		checkError(t, c.name, p.Update(ctx, key101), c.want)
		if !bytes.Equal(before, published(t, dir, key101)) {
			t.Errorf("%s: published", c.name)
		}
	}
}

// Who does not know of the lock, because it is held on another machine, is noticed before its work is overwritten.
func TestPublishOverAnother(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	w := &world{now: t0, revoked: map[string][]crl.Entry{}}
	cfg := config(t, w, dir)
	if err := newPublisher(t, cfg).Publish(ctx, key101); err != nil {
		t.Fatal(err)
	}
	cfg.Source = intruder{w, func() {
		path := filepath.Join(dir, key101.Path())
		der := published(t, dir, key101)
		if err := errors.Join(os.WriteFile(path+".other", der, 0o644), os.Rename(path+".other", path)); err != nil {
			t.Error(err)
		}
	}}
	w.set(func() { w.now = t0.Add(time.Minute) })
	if err := newPublisher(t, cfg).Publish(ctx, key101); !errors.Is(err, jpki.Conflict) {
		t.Errorf("%v, want a conflict", err)
	}
}

// An intruder does something while the source is read.
type intruder struct {
	*world
	do func()
}

func (i intruder) Revoked(ctx context.Context, issuer jpki.IssuerID, partition string) (iter.Seq2[crl.Entry, error], crl.Mark, error) {
	i.do()
	return i.world.Revoked(ctx, issuer, partition)
}

// Run publishes a change in a long list as a delta, and deltas again once their period is over.
func TestRunDeltas(t *testing.T) {
	dir := t.TempDir()
	cfg := deltaConfig(t, &world{}, dir)
	synctest.Test(t, func(t *testing.T) {
		w := &world{now: time.Now(), revoked: map[string][]crl.Entry{}, released: map[jpki.Serial]bool{}}
		cfg.Source, cfg.Changes, cfg.Now, cfg.DeltaAlone = follow{w}, w, time.Now, 1
		p := newPublisher(t, cfg)
		ctx, cancel := context.WithCancel(context.Background())
		dirty, done := make(chan crl.ID), make(chan struct{})
		go func() { p.Run(ctx, dirty); close(done) }()
		time.Sleep(time.Second)
		synctest.Wait()
		full := parsed(t, dir, key101)
		w.set(func() { w.now = time.Now() })
		w.change("99101", crl.Change{Entry: crl.Entry{Serial: serial(t, "77"), At: time.Now(), Reason: 1}})
		dirty <- key101
		time.Sleep(time.Second)
		synctest.Wait()
		for _, id := range []crl.ID{key101, keyFull} {
			if n := len(parsed(t, dir, deltaOf(id)).RevokedCertificateEntries); n != 1 {
				t.Errorf("the delta of %s has %d entries within a second of the change, want 1", id, n)
			}
		}
		if parsed(t, dir, key101).Number.Cmp(full.Number) != 0 {
			t.Error("the long list was published as well")
		}
		first := parsed(t, dir, deltaOf(key102))
		w.set(func() { w.now = time.Now().Add(time.Hour) })
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if now := parsed(t, dir, deltaOf(key102)); now.Number.Cmp(first.Number) <= 0 || parsed(t, dir, key102).Number.Cmp(now.Number) >= 0 {
			t.Error("a delta without changes is not published again after its period")
		}
		cancel()
		<-done
	})
}

// In a long list, of which the publisher looks only at what changes, nothing else changes.
func TestLongListUpdate(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	a := newAuthority(t, "rsa")
	w := &world{now: t0, revoked: map[string][]crl.Entry{}, released: map[jpki.Serial]bool{}}
	number := func(n int) jpki.Serial {
		s, err := jpki.SerialFromBig(new(big.Int).Mul(big.NewInt(int64(n)), big.NewInt(1_000_003_000_000)))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const length = 12_000
	for n := 2; n <= length; n += 2 {
		w.revoked["99101"] = append(w.revoked["99101"], crl.Entry{Serial: number(n), At: t0.Add(-time.Duration(n) * time.Minute), Reason: jpki.Reason([]int{0, 1, 6}[n/2%3])})
	}
	scope := partition(t, a.id, "99101")
	cfg := crl.Config{Dir: dir, Source: w, Changes: w, Now: w.Now, Issuers: []crl.Issuer{{ID: a.id, Cert: a.cert, Signer: a.key, Partitions: []crl.Scope{scope}}}}
	p := newPublisher(t, cfg)
	if err := p.Publish(ctx, key101); err != nil {
		t.Fatal(err)
	}
	for round, numbers := range [][]int{{}, {1}, {length + 1}, {6000}, {2, length}, {1, 3, 5, 4001, 4003, 8000, 11_999}} {
		w.set(func() { w.now = w.now.Add(time.Minute) })
		for i, n := range numbers {
			held := crl.Change{Entry: crl.Entry{Serial: number(n), At: w.now, Reason: jpki.CertificateHold}}
			held.Released = n%2 == 0 && i%2 == 0
			w.change("99101", held)
		}
		if err := p.Update(ctx, key101); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		got := parsed(t, dir, key101)
		all := slices.Clone(w.revoked["99101"])
		slices.SortFunc(all, func(a, b crl.Entry) int { return a.Serial.Big().Cmp(b.Serial.Big()) })
		tm := crl.Template{IssuerCert: a.cert, Signer: a.key, Scope: scope, Number: got.Number, ThisUpdate: got.ThisUpdate, NextUpdate: got.NextUpdate}
		if !bytes.Equal(build(t, tm, all), published(t, dir, key101)) {
			t.Errorf("round %d: the list is not the one that the source would have given", round)
		}
	}
	if n := len(w.asked); n != 1 {
		t.Errorf("the source was asked %d times, want 1", n)
	}

	// From the source, far from everything that changed, something is lost: noticed also where long blocks are the same.
	before := published(t, dir, key101)
	for _, lost := range []int{0, 3000, 5_999} {
		w.set(func() { w.now = w.now.Add(time.Minute) })
		whole := w.revoked["99101"]
		w.revoked["99101"] = slices.Delete(slices.Clone(whole), lost, lost+1)
		w.released = nil
		checkError(t, "lost", p.Publish(ctx, key101), "has vanished")
		w.revoked["99101"] = whole
	}
	if !bytes.Equal(before, published(t, dir, key101)) {
		t.Error("published what lost entries")
	}
}

// OpenSSL puts a complete CRL and its delta together; GnuTLS and Java read both.
func TestOtherReadersOfDeltas(t *testing.T) {
	openssl, ctx := tool(t, "openssl"), context.Background()
	for _, alg := range []string{"rsa", "p-384"} {
		a, dir := newAuthority(t, alg), t.TempDir()
		held, moved, kept := serial(t, "1111"), serial(t, "2222"), serial(t, "3333")
		w := &world{now: t0, released: map[jpki.Serial]bool{}, revoked: map[string][]crl.Entry{"99101": {
			{Serial: held, At: t0.Add(-time.Hour), Reason: jpki.CertificateHold}, {Serial: kept, At: t0.Add(-time.Hour), Reason: jpki.Superseded},
		}}}
		scope := partition(t, a.id, "99101")
		scope.DeltaURL = host + "/crl/sign-1/99101-delta.crl"
		p := newPublisher(t, crl.Config{
			Dir: dir, Source: w, Changes: w, Now: w.Now, DeltaAlone: 1,
			Issuers: []crl.Issuer{{ID: a.id, Cert: a.cert, Signer: a.key, Partitions: []crl.Scope{scope}}},
		})
		if err := p.Publish(ctx, key101); err != nil {
			t.Fatal(err)
		}
		w.set(func() { w.now = t0.Add(time.Minute) })
		w.change("99101", crl.Change{Entry: crl.Entry{Serial: held, At: w.now}, Released: true})
		w.change("99101", crl.Change{Entry: crl.Entry{Serial: moved, At: w.now, Reason: jpki.AffiliationChanged}})
		if err := p.Update(ctx, key101); err != nil {
			t.Fatal(err)
		}
		ca := write(t, dir, "ca.pem", "CERTIFICATE", a.cert.Raw)
		full := write(t, dir, "full.pem", "X509 CRL", published(t, dir, key101))
		delta := write(t, dir, "delta.pem", "X509 CRL", published(t, dir, deltaOf(key101)))
		both := write(t, dir, "both.pem", "", append(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: published(t, dir, key101)}),
			pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: published(t, dir, deltaOf(key101))})...))
		for _, c := range []struct {
			number          jpki.Serial
			without, within string
		}{
			{held, "certificate revoked", ": OK"}, {moved, ": OK", "certificate revoked"}, {kept, "certificate revoked", "certificate revoked"}, {serial(t, "4444"), ": OK", ": OK"},
		} {
			cert := write(t, dir, "cert.pem", "CERTIFICATE", subscriber(t, a, scope, c.number))
			for _, use := range []struct{ crls, want string }{{full, c.without}, {both, c.within}} {
				out, _ := exec.Command(openssl, "verify", "-crl_check", "-extended_crl", "-use_deltas", "-attime", strconv.FormatInt(t0.Add(10*time.Minute).Unix(), 10),
					"-CAfile", ca, "-CRLfile", use.crls, cert).CombinedOutput()
				if !strings.Contains(strings.ToLower(string(out)), strings.ToLower(use.want)) {
					t.Errorf("%s, %s with %s: want %q\n%s", alg, c.number, filepath.Base(use.crls), use.want, out)
				}
			}
		}
		for _, list := range []string{full, delta} {
			if out, err := exec.Command(openssl, "crl", "-in", list, "-CAfile", ca, "-noout", "-verify").CombinedOutput(); err != nil || !strings.Contains(string(out), "verify OK") {
				t.Errorf("openssl crl: %v\n%s", err, out)
			}
			// At its own time, which certtool cannot be told, it is valid: today it has nothing against it but its age.
			out, _ := exec.Command(tool(t, "certtool"), "--verify-crl", "--load-ca-certificate", ca, "--infile", list).CombinedOutput()
			_, verdict, found := strings.Cut(string(out), "Verification output: ")
			if !found || strings.Contains(verdict, "signature") || !strings.Contains(verdict, "Verified") && !strings.Contains(verdict, "data are old") {
				t.Errorf("certtool: %s", out)
			}
			out, err := exec.Command(tool(t, "java"), write(t, dir, "Read.java", "", []byte(readCRL)), ca, list).CombinedOutput()
			want := map[string]string{full: "[2.5.29.28] 1111:CERTIFICATE_HOLD 3333:SUPERSEDED", delta: "[2.5.29.27, 2.5.29.28] 1111:REMOVE_FROM_CRL 2222:AFFILIATION_CHANGED"}[list]
			if err != nil || strings.TrimSpace(string(out)) != want {
				t.Errorf("java: %v, want %q\n%s", err, want, out)
			}
		}
	}
}

// readCRL verifies a CRL and prints its critical extensions and its entries.
const readCRL = `
import java.io.*;
import java.security.cert.*;
import java.util.*;

public class Read {
	public static void main(String[] args) throws Exception {
		CertificateFactory f = CertificateFactory.getInstance("X.509");
		X509Certificate ca = (X509Certificate) f.generateCertificate(new FileInputStream(args[0]));
		X509CRL crl = (X509CRL) f.generateCRL(new FileInputStream(args[1]));
		crl.verify(ca.getPublicKey());
		StringBuilder out = new StringBuilder(new TreeSet<String>(crl.getCriticalExtensionOIDs()).toString());
		TreeMap<String, String> entries = new TreeMap<>();
		for (X509CRLEntry e : crl.getRevokedCertificates()) {
			entries.put(e.getSerialNumber().toString(16), e.getRevocationReason().toString());
		}
		for (Map.Entry<String, String> e : entries.entrySet()) {
			out.append(" " + e.getKey() + ":" + e.getValue());
		}
		System.out.println(out);
	}
}
`

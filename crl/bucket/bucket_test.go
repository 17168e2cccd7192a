package bucket_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/crl/bucket"
)

// gatewayModule is the object store that these tests speak with: one that nobody here wrote.
const gatewayModule = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"

const accessKey, secretKey = "sandbox-access", "sandbox-secret"

// store starts an object store of its own with one bucket; JPKI_TEST_VERSITYGW names the program, or it is installed, which takes
// minutes the first time and seconds from then on.
func store(t *testing.T) (endpoint, name string) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: installs an object store")
	}
	dir := t.TempDir()
	program := os.Getenv("JPKI_TEST_VERSITYGW")
	if program == "" {
		program = filepath.Join(dir, "versitygw")
		cmd := exec.CommandContext(t.Context(), "go", "install", gatewayModule)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
				t.Fatalf("install the object store: %v\n%s", err, out)
			}
			t.Skipf("the object store cannot be installed: %v", err)
		}
	}
	root := filepath.Join(dir, "store") // of a file system with extended attributes
	if err := os.MkdirAll(filepath.Join(root, "crls"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	var said bytes.Buffer
	cmd := exec.Command(program, "--access", accessKey, "--secret", secretKey, "--region", "ap-northeast-1", "--port", address, "posix", root) //nolint:gosec // the program that the tester names, or one just installed
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("object store: %s", said.Bytes()[max(0, said.Len()-2000):])
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return "http://" + address, "crls"
		}
		if time.Now().After(deadline) {
			t.Fatalf("the object store does not listen: %v\n%s", err, said.String())
		}
	}
}

func open(t *testing.T, endpoint, name string, edit ...func(*bucket.Config)) *bucket.Bucket {
	t.Helper()
	cfg := bucket.Config{Endpoint: endpoint, Region: "ap-northeast-1", Name: name, AccessKey: accessKey, SecretKey: secretKey, Now: time.Now}
	for _, e := range edit {
		e(&cfg)
	}
	b, err := bucket.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func content(text string) bucket.Content {
	return bucket.Content{Body: strings.NewReader(text), Octets: int64(len(text)), Type: "application/pkix-crl", CacheControl: "public, max-age=300"}
}

// What we ask of a store, and what it must do for us, asked of a real one.
func TestBucket(t *testing.T) {
	endpoint, name := store(t)
	b, ctx := open(t, endpoint, name), t.Context()
	if _, err := b.Look(ctx, "crl/sign-1/full.crl"); !errors.Is(err, jpki.NotFound) {
		t.Errorf("look at nothing: %v", err)
	}
	if _, _, err := b.Get(ctx, "crl/sign-1/full.crl"); !errors.Is(err, jpki.NotFound) {
		t.Errorf("get nothing: %v", err)
	}
	if _, err := b.Put(ctx, "crl/sign-1/full.crl", content("too early"), `"0123456789abcdef0123456789abcdef"`); !errors.Is(err, jpki.Conflict) {
		t.Errorf("put in the place of nothing: %v", err)
	}
	first, err := b.Put(ctx, "crl/sign-1/full.crl", content("one"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "crl/sign-1/full.crl", content("another"), ""); !errors.Is(err, jpki.Conflict) {
		t.Errorf("put where there is one: %v", err)
	}
	there, err := b.Look(ctx, "crl/sign-1/full.crl")
	if err != nil || there != first {
		t.Errorf("%s, put %s: %v", there, first, err)
	}
	second, err := b.Put(ctx, "crl/sign-1/full.crl", content("two!"), first)
	if err != nil || second == first {
		t.Errorf("%s after %s: %v", second, first, err)
	}
	if _, err := b.Put(ctx, "crl/sign-1/full.crl", content("three"), first); !errors.Is(err, jpki.Conflict) {
		t.Errorf("put in the place of one that is gone: %v", err)
	}
	body, o, err := b.Get(ctx, "crl/sign-1/full.crl")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if text, err := io.ReadAll(body); err != nil || string(text) != "two!" || o != second {
		t.Errorf("%q %s: %v", text, o, err)
	}
	if _, err := b.Put(ctx, "crl/empty", content(""), ""); err != nil {
		t.Errorf("empty: %v", err)
	}
	for what, edit := range map[string]func(*bucket.Config){
		"another secret": func(c *bucket.Config) { c.SecretKey = "wrong" },
		"an old request": func(c *bucket.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Hour) } },
		"another region": func(c *bucket.Config) { c.Region = "us-east-1" },
	} {
		if _, err := open(t, endpoint, name, edit).Put(ctx, "crl/forged", content("forged"), ""); err == nil || errors.Is(err, jpki.Conflict) || strings.Contains(err.Error(), secretKey) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := b.Look(ctx, "crl/forged"); !errors.Is(err, jpki.NotFound) {
		t.Errorf("a forged request put something: %v", err)
	}
	if _, err := open(t, endpoint, "no-such-bucket").Put(ctx, "crl/a", content("x"), ""); err == nil || errors.Is(err, jpki.Conflict) {
		t.Errorf("no bucket: %v", err)
	}
	for _, key := range []string{"", "/a", "a/../b", "a b", "a//b", "ä"} {
		if _, err := b.Look(ctx, key); !errors.Is(err, jpki.Malformed) {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

var (
	sign1 = jpki.IssuerID{CA: jpki.SignCA, Generation: 1}
	full  = crl.ID{Issuer: sign1}
	now   = time.Now().Truncate(time.Second)
)

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"JPKI-SANDBOX"}}, NotBefore: now, NotAfter: now.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

// list makes a full list.
func (a authority) list(t *testing.T, number int64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := crl.Build(&b, crl.Template{IssuerCert: a.cert, Signer: a.key, Scope: crl.Scope{Issuer: sign1}, Number: big.NewInt(number), ThisUpdate: now, NextUpdate: now.Add(48 * time.Hour)}, slices.Values([]crl.Entry(nil))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A desk is one publisher's directory with its mirror.
type desk struct {
	t   *testing.T
	dir string
	m   *bucket.Mirror
}

func newDesk(t *testing.T, b *bucket.Bucket, a authority) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(d.dir, "sign-1"), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	d.m, err = bucket.NewMirror(bucket.MirrorConfig{Bucket: b, Dir: d.dir, Issuers: map[jpki.IssuerID]*x509.Certificate{sign1: a.cert}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) publish(der []byte) {
	d.t.Helper()
	path := filepath.Join(d.dir, full.Path())
	if err := errors.Join(os.WriteFile(path+".new", der, 0o644), os.Rename(path+".new", path)); err != nil {
		d.t.Fatal(err)
	}
}

// numberIn reads the list that is in the bucket.
func numberIn(t *testing.T, b *bucket.Bucket, a authority) int64 {
	t.Helper()
	body, _, err := b.Get(context.Background(), "crl/"+full.Path())
	if errors.Is(err, jpki.NotFound) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	head, err := crl.Read(body, a.cert, func(crl.Entry) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return head.Number.Int64()
}

func TestMirror(t *testing.T) {
	endpoint, name := store(t)
	b, a := open(t, endpoint, name), newAuthority(t)
	d := newDesk(t, b, a)
	step := func(what string, number int64, outcome string) {
		t.Helper()
		before := d.m.Outcomes.Snapshot()[outcome]
		err := d.m.Sync(t.Context())
		if bad := outcome == "refused"; bad != (err != nil) {
			t.Errorf("%s: %v", what, err)
		}
		if got := numberIn(t, b, a); got != number || outcome != "" && d.m.Outcomes.Snapshot()[outcome] != before+1 {
			t.Errorf("%s: number %d, want %d; %v", what, got, number, d.m.Outcomes.Snapshot())
		}
	}
	step("nothing there", 0, "")
	d.publish(a.list(t, 5))
	step("the first", 5, "put")
	counts := fmt.Sprint(d.m.Outcomes.Snapshot())
	step("nothing new", 5, "")
	if fmt.Sprint(d.m.Outcomes.Snapshot()) != counts {
		t.Error("what has not changed was looked at again")
	}
	d.publish(a.list(t, 6))
	step("the next", 6, "put")
	d.publish(a.list(t, 4))
	step("an older one, of a directory that was restored", 6, "behind")
	d.publish(a.list(t, 6))
	step("the same", 6, "same")
	d.publish(newAuthority(t).list(t, 9))
	step("another issuer's", 6, "refused")
	d.publish(a.list(t, 9)[:100])
	step("cut off", 6, "refused")
	if err := os.WriteFile(filepath.Join(d.dir, "sign-1", ".full.crl.new"), []byte("unfinished"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.publish(a.list(t, 10))
	step("beside an unfinished one", 10, "put")

	// A list that somebody put by hand says its number itself.
	o, err := b.Look(t.Context(), "crl/"+full.Path())
	if err != nil {
		t.Fatal(err)
	}
	c := content(string(a.list(t, 20)))
	if o, err = b.Put(t.Context(), "crl/"+full.Path(), c, o); err != nil {
		t.Fatal(err)
	}
	d.publish(a.list(t, 19))
	step("older than what was put by hand", 20, "behind")
	c = content("no list at all")
	if _, err = b.Put(t.Context(), "crl/"+full.Path(), c, o); err != nil {
		t.Fatal(err)
	}
	d.publish(a.list(t, 21))
	step("in the place of rubbish", 21, "put")
}

// Publishers that know nothing of each other race for one object: its number only grows, and ends with the greatest.
func TestMirrorsRace(t *testing.T) {
	endpoint, name := store(t)
	b, a := open(t, endpoint, name), newAuthority(t)
	const desks, lists = 4, 12
	var publishers sync.WaitGroup
	for n := range desks {
		d := newDesk(t, open(t, endpoint, name), a)
		var ders [][]byte
		for i := range lists {
			ders = append(ders, a.list(t, int64(1+i*desks+n)))
		}
		publishers.Go(func() {
			for _, der := range ders {
				d.publish(der)
				if err := d.m.Sync(context.Background()); err != nil && !errors.Is(err, jpki.Conflict) {
					t.Error(err)
				}
			}
			if err := d.m.Sync(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	over := make(chan struct{})
	go func() { publishers.Wait(); close(over) }()
	var last int64
	for looks := 0; ; looks++ {
		number := numberIn(t, b, a)
		if number < last {
			t.Errorf("number %d after %d", number, last)
		}
		last = number
		select {
		case <-over:
			if got := numberIn(t, b, a); got != desks*lists {
				t.Errorf("number %d in the end, want %d, after %d looks", got, desks*lists, looks)
			}
			return
		default:
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := bucket.Config{Endpoint: "https://s3.example", Region: "r", Name: "crls", AccessKey: "a", SecretKey: "s", Now: time.Now}
	for want, edit := range map[string]func(*bucket.Config){
		"Config.Endpoint":  func(c *bucket.Config) { c.Endpoint = "s3.example" },
		"Config.Region":    func(c *bucket.Config) { c.Region = "" },
		"Config.Name":      func(c *bucket.Config) { c.Name = "a/b" },
		"Config.AccessKey": func(c *bucket.Config) { c.AccessKey = "" },
		"Config.SecretKey": func(c *bucket.Config) { c.SecretKey = "" },
		"Config.Now":       func(c *bucket.Config) { c.Now = nil },
	} {
		cfg := good
		edit(&cfg)
		if _, err := bucket.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	b, err := bucket.New(good)
	if err != nil {
		t.Fatal(err)
	}
	mirror := bucket.MirrorConfig{Bucket: b, Dir: ".", Issuers: map[jpki.IssuerID]*x509.Certificate{sign1: {}}, Now: time.Now}
	for want, edit := range map[string]func(*bucket.MirrorConfig){
		"MirrorConfig.Bucket": func(c *bucket.MirrorConfig) { c.Bucket = nil }, "MirrorConfig.Dir": func(c *bucket.MirrorConfig) { c.Dir = "" },
		"MirrorConfig.Issuers": func(c *bucket.MirrorConfig) { c.Issuers = nil }, "MirrorConfig.Now": func(c *bucket.MirrorConfig) { c.Now = nil },
		"MirrorConfig.Prefix": func(c *bucket.MirrorConfig) { c.Prefix = "../" }, "MirrorConfig.MaxAge": func(c *bucket.MirrorConfig) { c.MaxAge = -1 },
	} {
		cfg := mirror
		edit(&cfg)
		if _, err := bucket.NewMirror(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// Accountopening is what a bank runs when a signed application comes in: it has the signature verified, takes the four attributes
// for its own record with the evidence's identifier, and follows the customer from then on; or tells the customer in two languages what to do.
//
// It owns [application], [answer], [verifier] and that order of steps; client.go asks the verifier by its Go client, plain.go does the same with
// nothing but HTTP, and sentences.go has what customers are told. It keeps nothing: a bank writes into its database what this prints,
// personal data, since that is what an account is opened with. With a sandbox up (make run):
//
//	. var/sandbox/env; export VERIFIER_URL VERIFIER_TOKEN
//	go run ./verifier/examples/accountopening $SAMPLES/good/application.txt
//	go run ./verifier/examples/accountopening -plain $SAMPLES/moved/application.txt
//
// It exits with 0 if the account is open, 3 if it is not, 4 if the same may be tried again later.
// Start at open.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// An application is what the customer handed in.
type application struct {
	document, signature []byte
	certificate         []byte // DER
	customer            string // the bank's own name for the customer
}

// An answer is the verifier's. Code is a verdict's, or the name of a problem, and then there is no verdict.
type answer struct {
	ok         bool
	code       string
	evidence   string
	user       string      // the customer, under a name that outlives certificates and that no other bank is told
	attributes *attributes // only if ok
}

type attributes struct {
	Name      string `json:"name"`
	Address   string `json:"address"`
	BirthDate string `json:"birth_date"`
	Sex       string `json:"sex"`
}

// purpose is what customers read in their own record about why the bank knows them and follows them.
const purpose = "account"

// verifier is asked in one of two ways. An error means that there is no answer of any kind.
type verifier interface {
	verify(ctx context.Context, a application) (answer, error)
	// follow has the bank told when something about the user changes; code is empty if that is so, else the name of a problem.
	follow(ctx context.Context, user string) (code string, err error)
}

// Exit codes.
const (
	failed  = 1
	refused = 3
	later   = 4
)

func main() {
	plain := flag.Bool("plain", false, "ask with plain HTTP instead of the Go client")
	customer := flag.String("customer", "", "your own name for the customer, to find or delete the evidence by (default: a new one)")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: accountopening [-plain] [-customer NAME] APPLICATION  (beside it APPLICATION.crt and APPLICATION.sig; VERIFIER_URL and VERIFIER_TOKEN in the environment)")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	var v verifier
	v, err := withClient(os.Getenv("VERIFIER_URL"), os.Getenv("VERIFIER_TOKEN"))
	if *plain {
		v, err = withHTTP(os.Getenv("VERIFIER_URL"), os.Getenv("VERIFIER_TOKEN")), nil
	}
	code := failed
	if err == nil {
		code, err = open(context.Background(), os.Stdout, v, *customer, flag.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "accountopening:", err)
	}
	os.Exit(code)
}

// open opens an account, or says why not. Steps:
//  1. read what the customer handed in
//  2. ask the verifier about it
//  3. unless it says yes, tell the customer what to do
//  4. follow the user: who moves, or loses the card, is reported by "GET /v1/changes" or a webhook from now on
//  5. keep the evidence's identifier, and the user's, with the account
func open(ctx context.Context, out io.Writer, v verifier, customer, path string) (code int, err error) {
	// 1.
	a := application{customer: customer}
	if a.customer == "" {
		a.customer = "customer-" + rand.Text()
	}
	if a.document, err = os.ReadFile(path); err != nil {
		return failed, err
	}
	if a.signature, err = os.ReadFile(path + ".sig"); err != nil {
		return failed, err
	}
	text, err := os.ReadFile(path + ".crt")
	if err != nil {
		return failed, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return failed, errors.New("the certificate is not PEM")
	}
	a.certificate = block.Bytes
	// 2.
	got, err := v.verify(ctx, a)
	if err != nil {
		return failed, err
	}
	// 3.
	if !got.ok || got.attributes == nil {
		s := sentenceFor(got.code)
		fmt.Fprintf(out, "%s\n%s\n%s\n", got.code, s.ja, s.en)
		if s.again {
			return later, nil
		}
		return refused, nil
	}
	// 4. The account is open whether this succeeds or not: what failed is tried again later.
	followed := "yes"
	if code, err := v.follow(ctx, got.user); err != nil {
		followed = "not yet: unavailable"
	} else if code != "" {
		followed = "not yet: " + code
	}
	// 5.
	fmt.Fprintf(out, "evidence    %s\ncustomer    %s\nuser        %s\nfollowed    %s\nname        %s\naddress     %s\nbirth date  %s\nsex         %s\n",
		got.evidence, a.customer, got.user, followed, got.attributes.Name, got.attributes.Address, got.attributes.BirthDate, got.attributes.Sex)
	return 0, nil
}

// digest computes what the card signed: today's cards have RSA keys and sign a SHA-256, the next generation's P-384 and a SHA-384.
// The bank computes it over the document that it has, or it would rely on a signature over something else.
func digest(a application) (sum []byte, hash string) {
	if cert, err := x509.ParseCertificate(a.certificate); err == nil {
		if key, ok := cert.PublicKey.(*ecdsa.PublicKey); ok && key.Curve == elliptic.P384() {
			sum := sha512.Sum384(a.document)
			return sum[:], "sha384"
		}
	}
	d := sha256.Sum256(a.document)
	return d[:], "sha256"
}

package acme

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-chi/chi/v5"
	stepacme "github.com/smallstep/certificates/acme"
	acmeapi "github.com/smallstep/certificates/acme/api"
	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/api/log"
	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
)

// An Attestation is a format in which makers of phones attest keys, and whose word is taken for it. Each format has an
// ACME directory of its own, /acme/phone-FORMAT/directory, so that a root vouches in its own format only.
type Attestation struct {
	Format    string // "step", "apple", "android-key" or "apple-appattest"
	Roots     []*x509.Certificate
	Android   AndroidPolicy   // for android-key
	AppAttest AppAttestPolicy // for apple-appattest
}

// formats are what smallstep can check and we let it, and two that answerChallenge keeps from it: smallstep insists on a format
// that it knows. Of the rest, tpm is no phone's, and passes keys of devices that it cannot name.
var formats = map[string]provisioner.ACMEAttestationFormat{"apple": provisioner.APPLE, "step": provisioner.STEP, androidKey: provisioner.APPLE, appAttest: provisioner.APPLE}

// sandbox is the organization in the names of everything that exists for trying things out.
const sandbox = "JPKI-SANDBOX"

// acmeProvisioner is what smallstep calls a directory.
func (c *Config) acmeProvisioner(a Attestation) (*provisioner.ACME, error) {
	format, known := formats[a.Format]
	if !known || len(a.Roots) == 0 {
		return nil, fmt.Errorf("acme: attestation format %q is not known or has no roots", a.Format)
	}
	var roots []byte
	for _, root := range a.Roots {
		if isSandbox(root) && !isSandbox(c.Root) {
			return nil, fmt.Errorf("acme: attestation root %q is the sandbox's, where its keys lie about", root.Subject.CommonName)
		}
		roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})...)
	}
	name := directoryName(a.Format)
	return &provisioner.ACME{
		ID: name, Type: "ACME", Name: name, RequireEAB: true, Claims: claims(),
		Challenges:         []provisioner.ACMEChallenge{provisioner.DEVICE_ATTEST_01},
		AttestationFormats: []provisioner.ACMEAttestationFormat{format}, AttestationRoots: roots,
	}, nil
}

func isSandbox(c *x509.Certificate) bool { return slices.Contains(c.Subject.Organization, sandbox) }

// acmePath is below which phones speak ACME.
const acmePath = "/acme"

// newPhones returns the handler for phones: smallstep's, with detours where it leaves something to us.
func (e *Enrolment) newPhones() http.Handler {
	r := chi.NewRouter()
	problem := func(p jpki.Problem) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { refuse(w, r, jpki.Errorf(p, "")) }
	}
	r.NotFound(problem(jpki.NotFound))
	r.MethodNotAllowed(problem(jpki.MethodNotAllowed))
	r.Route(acmePath, func(r chi.Router) { acmeapi.Route(served{e, r}) })
	return r
}

// served passes on the routes of smallstep's ACME.
type served struct {
	e *Enrolment
	r chi.Router
}

// MethodFunc adds a route.
func (s served) MethodFunc(method, pattern string, h http.HandlerFunc) {
	switch {
	case strings.HasSuffix(pattern, keyChangePath):
		h = s.e.changeKey(h)
	case strings.HasSuffix(pattern, "/revoke-cert"):
		h = s.e.revokeCert(h)
	case strings.HasSuffix(pattern, "/directory"):
		h = s.e.directory
	case strings.HasSuffix(pattern, "/{chID}"):
		h = s.e.answerChallenge(h)
	case strings.HasSuffix(pattern, "/finalize"):
		h = s.e.finalize(h)
	}
	s.r.MethodFunc(method, pattern, h)
}

var _ api.Router = served{}

// directory lists what is served (RFC 8555 §7.1.1).
func (e *Enrolment) directory(w http.ResponseWriter, r *http.Request) {
	name := chi.URLParam(r, "provisionerID")
	if !slices.ContainsFunc(e.Phones, func(a Attestation) bool { return directoryName(a.Format) == name }) {
		refuse(w, r, jpki.Errorf(jpki.NotFound, ""))
		return
	}
	base := "https://" + r.Host + acmePath + "/" + name + "/"
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"newNonce": base + "new-nonce", "newAccount": base + "new-account", "newOrder": base + "new-order",
		"revokeCert": base + "revoke-cert", "keyChange": base + keyChangePath[1:],
		"meta": map[string]any{"externalAccountRequired": true},
	})
}

func directoryName(format string) string { return "phone-" + format }

// servePhone answers a phone. smallstep finds everything in the context: that is its way, not ours.
func (e *Enrolment) servePhone(w http.ResponseWriter, r *http.Request) {
	r = r.WithContext(jpki.WithRequestID(r.Context(), e.NewID()))
	start, out := e.Now(), &recorder{ResponseWriter: w, status: http.StatusOK}
	out.Header().Set("X-Request-ID", jpki.RequestID(r.Context()))
	out.Header().Set("Cache-Control", "no-store")
	var failed error
	ctx := log.WithErrorLogger(r.Context(), func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err; blame(err) })
	ctx = authority.NewContext(ctx, e.step)
	ctx = stepacme.NewDatabaseContext(ctx, accounts{e})
	ctx = stepacme.NewLinkerContext(ctx, stepacme.NewLinker(e.Hosts[0], acmePath))
	r = r.WithContext(ctx)
	func() {
		defer func() {
			if p := recover(); p != nil {
				failed = fmt.Errorf("handler panicked with %T", p)
				if !out.wrote {
					refuse(out, r, failed)
				}
			}
		}()
		body, err := io.ReadAll(http.MaxBytesReader(out, r.Body, maxBody))
		switch {
		case !e.isOurs(r.Host):
			// A request made out to another server is not for us to act on, or that server could pass it on (RFC 8555 §6.4).
			failed = jpki.Errorf(jpki.Malformed, "the request is for another host")
		case err != nil:
			failed = jpki.Errorf(jpki.TooLarge, "a body has at most %d octets", maxBody)
		}
		if failed != nil {
			refuse(out, r, failed)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		e.phones.ServeHTTP(out, r)
	}()
	e.report(r, "acme", start, out.status, acmeOutcome(out.status, failed), failed)
}

// isOurs reports whether a Host header names us.
func (e *Enrolment) isOurs(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return slices.Contains(e.Hosts, strings.Trim(host, "[]"))
}

// blame corrects smallstep where it takes a client's mistake for its own and would answer that it has an internal error.
func blame(err error) {
	a, ok := errors.AsType[*stepacme.Error](err)
	if !ok || a.Type != stepacme.NewErrorISE("").Type {
		return
	}
	_, syntax := errors.AsType[*json.SyntaxError](a.Err)
	_, types := errors.AsType[*json.UnmarshalTypeError](a.Err)
	_, cborTypes := errors.AsType[*cbor.UnmarshalTypeError](a.Err)
	_, encoding := errors.AsType[base64.CorruptInputError](a.Err)
	var was *stepacme.Error
	switch {
	case errors.Is(a.Err, jose.ErrCryptoFailure):
		was = stepacme.NewError(stepacme.ErrorUnauthorizedType, "")
	case syntax, types, cborTypes, encoding, a.Err != nil && a.Err.Error() == otherCertificate:
		was = stepacme.NewError(stepacme.ErrorMalformedType, "")
	default:
		return
	}
	a.Type, a.Detail, a.Status = was.Type, was.Detail, was.Status
}

// acmeOutcome names how a request ended, from a small set.
func acmeOutcome(status int, err error) string {
	if status < http.StatusBadRequest {
		return "ok"
	}
	if a, ok := errors.AsType[*stepacme.Error](err); ok {
		return a.Type[strings.LastIndexAny(a.Type, ":#")+1:]
	}
	return string(problem(err))
}

// A recorder notes the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool
}

// Write notes that there is an answer.
func (r *recorder) Write(b []byte) (int, error) {
	r.wrote = true
	return r.ResponseWriter.Write(b)
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	r.status, r.wrote = status, true
	r.ResponseWriter.WriteHeader(status)
}

// acmeProblems are the problems that ACME has names for (RFC 8555 §6.7). Others keep our names, as it allows.
var acmeProblems = map[jpki.Problem]stepacme.ProblemType{
	jpki.Unauthorized:    stepacme.ErrorUnauthorizedType,
	jpki.Malformed:       stepacme.ErrorMalformedType,
	jpki.RateLimited:     stepacme.ErrorRateLimitedType,
	jpki.WeakKey:         stepacme.ErrorBadPublicKeyType,
	jpki.BadRequestProof: stepacme.ErrorBadCSRType,
}

// asACME makes an error of ours one that smallstep answers with, and neither shows nor loses the cause.
func asACME(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*stepacme.Error](err); ok {
		return err
	}
	p := jpki.ProblemOf(err)
	detail := p.Title("")
	if ours, ok := errors.AsType[*jpki.Error](err); ok && p != jpki.Internal && ours.Detail != "" {
		detail += ": " + ours.Detail
	}
	out := &stepacme.Error{Type: jpki.ProblemBase + string(p), Detail: detail, Status: p.HTTPStatus(), Err: err}
	if t, named := acmeProblems[p]; named {
		out.Type = stepacme.NewError(t, "").Type
	}
	return out
}

// refuse answers outside smallstep's handlers.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	if a, ok := errors.AsType[*stepacme.Error](asACME(err)); ok {
		a.Render(w, r)
	}
}

// A PhoneInvitation is what a phone needs to enrol, to be handed over once, for example as a QR code on the counter's screen.
type PhoneInvitation struct {
	ca.PhoneBinding
	Directories []string // paths, one for each attestation format
}

// BeginPhone begins a phone's enrolment; see ca.Authority.BeginPhoneEnrolment.
func (e *Enrolment) BeginPhone(ctx context.Context, by jpki.Actor, req ca.PhoneEnrolmentRequest) (PhoneInvitation, error) {
	if e.phones == nil {
		return PhoneInvitation{}, jpki.Errorf(jpki.NotFound, "phones do not enrol here")
	}
	b, err := e.Authority.BeginPhoneEnrolment(ctx, by, req)
	out := PhoneInvitation{PhoneBinding: b}
	for _, a := range e.Phones {
		out.Directories = append(out.Directories, acmePath+"/"+directoryName(a.Format)+"/directory")
	}
	return out, err
}

// orderGrace is how long an order outlives its enrolment, so that what was begun in time can be fetched.
const orderGrace = 10 * time.Minute

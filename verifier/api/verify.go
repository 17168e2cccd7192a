package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/store"
)

const multipartMedia = "multipart/form-data"

// documentMedia are the media types of bodies that are a signed document and nothing else. Its format is found out by its octets.
var documentMedia = map[string]bool{
	"application/pdf": true, "application/pkcs7-mime": true, "application/pkcs7-signature": true, "application/cms": true,
	"application/xml": true, "text/xml": true, "application/jose": true, "application/jose+json": true,
}

// A verdict is a result on its way out: what is answered and what is kept of it.
type verdict struct {
	answer json.RawMessage
	code   string
	keep   []store.Record
}

// reply keeps what is to be kept, and only then lets the answer go.
func (a *API) reply(c call, v verdict, err error) (reply, error) {
	if err == nil {
		err = c.Context().Err()
	}
	if err == nil {
		err = a.Store.Keep(c.Context(), c.Access, v.keep, a.Now())
	}
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, v.answer, v.code}, nil
}

// A keeping says what shall be kept of a verdict.
type keeping struct {
	kind       string // of evidence; "" keeps none
	action     string // for the holder's record
	user       string
	attributes bool // and the certificates that carry them
}

// kept is evidence as it is sealed.
type kept struct {
	Kind             string             `json:"kind"`
	AttributesStored bool               `json:"attributes_stored"`
	Result           json.RawMessage    `json:"result"`
	Signed           *signed            `json:"signature,omitempty"`
	Evidence         *verifier.Evidence `json:"evidence,omitempty"`
}

// encode writes what json.Marshal would, but with the result, which is JSON already and the longest of it, at the end and not read again.
func (e *kept) encode() (json.RawMessage, error) {
	out := make([]byte, 0, len(e.Result)+1024)
	out = append(out, `{"kind":"`+e.Kind+`","attributes_stored":`...)
	out = strconv.AppendBool(out, e.AttributesStored)
	if s := e.Signed; s != nil {
		out = append(out, `,"signature":{`...)
		if len(s.Certificate) > 0 {
			out = append(appendOctets(append(out, `"certificate":`...), s.Certificate), ',')
		}
		out = appendOctets(append(out, `"digest":`...), s.Digest)
		out = append(out, `,"hash":"`+s.Hash+`","signature":`...)
		out = append(appendOctets(out, s.Signature), '}')
	}
	if e.Evidence != nil {
		text, err := json.Marshal(e.Evidence)
		if err != nil {
			return nil, err
		}
		out = append(append(out, `,"evidence":`...), text...)
	}
	out = append(append(out, `,"result":`...), e.Result...)
	return append(out, '}'), nil
}

func appendOctets(b, octets []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(append(b, '"'), octets), '"')
}

// signed is what a signature over a digest was.
type signed struct {
	Certificate []byte `json:"certificate,omitempty"`
	Digest      []byte `json:"digest"`
	Hash        string `json:"hash"`
	Signature   []byte `json:"signature"`
}

// conclude makes a verdict of a result. Why a status could not be established is for our log: the answer has only its name,
// since the cause may tell of our network.
func (a *API) conclude(ctx context.Context, res *verifier.Result, extra map[string]any, k keeping, s *signed) (v verdict, err error) {
	if err := ctx.Err(); err != nil {
		return v, err // what was found out before the time was over is no verdict
	}
	if res.Cause != nil {
		a.Log.WarnContext(ctx, "status not established", slog.String("request_id", jpki.RequestID(ctx)),
			slog.String("failure", string(res.StatusFailure)), slog.Any("error", res.Cause))
	}
	v.code = string(res.Code)
	attributes := res.Attributes
	plain := *res
	plain.Attributes = nil
	if v.answer, err = plain.AppendJSON(make([]byte, 0, answerBytes)); err != nil {
		return v, err
	}
	result := v.answer
	for name, value := range extra {
		if v.answer, err = with(v.answer, name, value); err != nil {
			return v, err
		}
	}
	if attributes != nil {
		if v.answer, err = with(v.answer, "attributes", attributes); err != nil {
			return v, err
		}
	}
	r := store.Record{ID: res.ID, User: k.user, Action: k.action, Outcome: v.code}
	if res.Signer != nil {
		r.Certificate, _ = hex.DecodeString(res.Signer.SHA256)
		r.Report = a.useOf(res, k.action)
	}
	if k.kind != "" {
		e := kept{Kind: k.kind, AttributesStored: k.attributes, Result: result, Signed: s}
		if k.attributes && attributes != nil {
			e.Result = v.answer
		}
		if s != nil && !k.attributes {
			s.Certificate = nil
		}
		if r.Content, err = e.encode(); err != nil {
			return v, err
		}
	}
	v.keep = []store.Record{r}
	return v, nil
}

// answerBytes is about how long an answer is, and room for the attributes.
const answerBytes = 5 << 10

// with adds a member to a JSON object that has some.
func with(object json.RawMessage, name string, value any) (json.RawMessage, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return slices.Concat(object[:len(object)-1], []byte(`,"`+name+`":`), text, []byte("}")), nil
}

// concludeDocument does the same for a document.
func (a *API) concludeDocument(ctx context.Context, res *verifier.DocumentResult, k keeping) (v verdict, err error) {
	if err := ctx.Err(); err != nil {
		return v, err
	}
	for _, f := range res.Fetches {
		if f.Err != nil {
			a.Log.WarnContext(ctx, "status not fetched", slog.String("request_id", jpki.RequestID(ctx)), slog.Any("error", f.Err))
		}
	}
	v.code = string(res.Code)
	if v.answer, err = res.AppendJSON(make([]byte, 0, answerBytes)); err != nil {
		return v, err
	}
	r := store.Record{ID: res.ID, User: k.user, Action: k.action, Outcome: v.code}
	if k.kind != "" {
		e := kept{Kind: k.kind, AttributesStored: k.attributes, Result: v.answer}
		if k.attributes {
			e.Evidence = &res.Evidence
		} else {
			plain := *res
			plain.Signatures = slices.Clone(res.Signatures)
			for i := range plain.Signatures {
				plain.Signatures[i].Attributes = nil
			}
			if e.Result, err = plain.AppendJSON(make([]byte, 0, answerBytes)); err != nil {
				return v, err
			}
		}
		if r.Content, err = e.encode(); err != nil {
			return v, err
		}
	}
	v.keep = []store.Record{r}
	seen := map[string]bool{}
	for _, s := range res.Signatures {
		if s.Signer == nil || seen[s.Signer.SHA256] {
			continue
		}
		seen[s.Signer.SHA256] = true
		if len(seen) > 1 {
			v.keep = append(v.keep, store.Record{ID: res.ID + "." + hex.EncodeToString([]byte{byte(len(seen))}), Action: k.action, Outcome: v.code})
		}
		last := &v.keep[len(v.keep)-1]
		last.Certificate, _ = hex.DecodeString(s.Signer.SHA256)
		last.Report = a.useIn(res, s.Signer, k.action)
	}
	return v, nil
}

func (a *API) verify(c call) (reply, error) {
	media := c.media()
	var f *fields
	var document, detached []byte
	var err error
	switch {
	case documentMedia[media]:
		f, document = &fields{}, c.body
	case media == multipartMedia:
		f, document, detached, err = c.parts()
	default:
		f, err = c.fields(verificationMembers...)
	}
	if err != nil {
		return reply{}, err
	}
	if err := a.meters.verdict(c.answer, c.Access, a.Now()); err != nil {
		return reply{}, err
	}
	v, err := a.verification(c.Context(), c.Access, f, document, detached)
	return a.reply(c, v, err)
}

// verificationMembers are those of a verification in JSON, of a signature over a digest or of a document.
var verificationMembers = []string{"certificate?", "digest?", "hash?", "signature?", "at?", "document?", "detached?", "format?", "existed?", "user?", "store_attributes?", "identify_user?", "purpose?"}

// verification gives the verdict on a document, or on a signature over a digest if there is none.
func (a *API) verification(ctx context.Context, access *store.Access, f *fields, document, detached []byte) (v verdict, err error) {
	if f.has("document") {
		document = f.octets("document")
		if f.has("detached") {
			detached = f.octets("detached")
		}
	}
	k := keeping{action: "verification", user: f.user(), attributes: f.store(access.Tenant.StoreAttributes)}
	purpose, err := a.identification(f, "verification")
	if err != nil {
		return v, err
	}
	if document == nil {
		if v, err = a.signature(ctx, f, k); err != nil {
			return v, err
		}
		return a.identified(ctx, access, v, purpose, f.octets("certificate"))
	}
	if err := f.without("certificate", "digest", "hash", "signature"); err != nil {
		return v, err
	}
	in := verifier.DocumentInput{Data: document, Format: verifier.Format(f.text("format")), At: f.time("at"), Existed: f.time("existed")}
	if detached != nil {
		in.Detached = func(string) io.Reader { return bytes.NewReader(detached) }
	}
	if f.err != nil {
		return v, f.err
	}
	k.kind = "document"
	res, err := a.Verifier.Document(ctx, in)
	if err != nil {
		return v, err
	}
	if v, err = a.concludeDocument(ctx, res, k); err != nil {
		return v, err
	}
	return a.identified(ctx, access, v, purpose, certificateOf(res))
}

func (a *API) signature(ctx context.Context, f *fields, k keeping) (v verdict, err error) {
	if err := f.require("certificate", "digest", "hash", "signature"); err != nil {
		return v, err
	}
	if err := f.without("detached", "format", "existed"); err != nil {
		return v, err
	}
	var in verifier.SignatureInput
	if in.Hash, err = verifier.ParseHash(f.text("hash")); err != nil {
		return v, err
	}
	in.Certificate, in.Digest, in.Signature, in.At = f.octets("certificate"), f.octets("digest"), f.octets("signature"), f.time("at")
	if f.err != nil {
		return v, f.err
	}
	res, err := a.Verifier.Signature(ctx, in)
	if err != nil {
		return v, err
	}
	k.kind = "signature"
	return a.conclude(ctx, res, nil, k, &signed{in.Certificate, in.Digest, f.text("hash"), in.Signature})
}

// parts reads a form: the document, what it signs if that is apart, and the members that are text. The parts were read
// as one body before, so their sum is bounded.
func (c call) parts() (f *fields, document, detached []byte, err error) {
	bad := func(err error, detail string) error { return jpki.WrapError(jpki.Malformed, err, detail) }
	if c.Header.Get("Content-Encoding") != "" {
		return nil, nil, nil, bad(nil, "Content-Encoding is not supported")
	}
	_, params, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if err != nil || params["boundary"] == "" {
		return nil, nil, nil, bad(err, "the form has no boundary")
	}
	f = &fields{values: map[string]string{}}
	form := multipart.NewReader(bytes.NewReader(c.body), params["boundary"])
	for {
		p, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, nil, bad(err, "the form cannot be read")
		}
		content, err := io.ReadAll(p)
		if err != nil {
			return nil, nil, nil, bad(err, "the form cannot be read")
		}
		switch name := p.FormName(); name {
		case "document", "detached":
			to := map[string]*[]byte{"document": &document, "detached": &detached}[name]
			if *to != nil || len(content) == 0 {
				return nil, nil, nil, bad(nil, name+" is empty or occurs twice")
			}
			*to = content
		case "format", "at", "existed", "user", "store_attributes", "identify_user", "purpose":
			text := string(content)
			switch {
			case f.has(name) || len(text) > 1024 || !utf8.ValidString(text):
				return nil, nil, nil, bad(nil, name+" occurs twice or is no text")
			case jpki.ContainsMyNumber(text):
				return nil, nil, nil, jpki.Errorf(jpki.MyNumberPresent, "remove the My Number; nothing was kept")
			case slices.Contains(booleans, name) && text != "true" && text != "false":
				return nil, nil, nil, bad(nil, name+" is not true or false")
			}
			f.values[name] = text
		default:
			return nil, nil, nil, bad(nil, "a part is none of document, detached, format, at, existed, user, store_attributes, identify_user, purpose")
		}
	}
	if document == nil {
		return nil, nil, nil, bad(nil, "document is missing")
	}
	return f, document, detached, nil
}

// The purposes of looking at a status again, as they are reported to who runs the authority.
var statusPurposes = []string{"liveness_check", "signature_verification"}

func (a *API) certificateStatus(c call) (reply, error) {
	f, err := c.fields(statusMembers...)
	if err != nil {
		return reply{}, err
	}
	if err := a.meters.verdict(c.answer, c.Access, a.Now()); err != nil {
		return reply{}, err
	}
	v, err := a.status(c.Context(), c.Access, f, nil, nil)
	return a.reply(c, v, err)
}

var statusMembers = []string{"certificate", "purpose?"}

// status has the form of verification; a status concerns no document.
func (a *API) status(ctx context.Context, _ *store.Access, f *fields, _, _ []byte) (v verdict, err error) {
	certificate, purpose := f.octets("certificate"), statusPurposes[0]
	if f.has("purpose") {
		if purpose = f.text("purpose"); !slices.Contains(statusPurposes, purpose) {
			f.fail("purpose is none of liveness_check and signature_verification")
		}
	}
	if f.err != nil {
		return v, f.err
	}
	res, err := a.Verifier.CertificateStatus(ctx, certificate)
	if err != nil {
		return v, err
	}
	extra := map[string]any{"check_purpose": purpose}
	if res.Revocation != nil {
		extra["source_updated_at"] = res.Revocation.ThisUpdate.UTC()
	}
	return a.conclude(ctx, res, extra, keeping{action: purpose}, nil)
}

func (a *API) challenge(c call) (reply, error) {
	f, err := c.fields("audience?", "binding?")
	if err != nil {
		return reply{}, err
	}
	audience, binding := f.session(c.Tenant.Name)
	if f.err != nil {
		return reply{}, f.err
	}
	ch, err := a.Challenges.NewChallenge(c.Context(), audience, binding)
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusCreated, struct {
		ID        string    `json:"challenge_id"`
		Nonce     []byte    `json:"nonce"`
		Message   []byte    `json:"message"`
		ExpiresAt time.Time `json:"expires_at"`
	}{ch.ID, ch.Nonce, ch.Message, ch.ExpiresAt}, answered}, nil
}

func (a *API) authenticate(c call) (reply, error) {
	f, err := c.fields("challenge_id", "audience?", "binding?", "certificate", "signature", "user?", "identify_user?", "purpose?")
	if err != nil {
		return reply{}, err
	}
	in := verifier.LoginInput{ChallengeID: f.text("challenge_id"), Certificate: f.octets("certificate"), Signature: f.octets("signature")}
	in.Audience, in.Binding = f.session(c.Tenant.Name)
	user := f.user()
	if f.err != nil {
		return reply{}, f.err
	}
	purpose, err := a.identification(f, "log-in")
	if err != nil {
		return reply{}, err
	}
	if err := a.meters.verdict(c.answer, c.Access, a.Now()); err != nil {
		return reply{}, err
	}
	var v verdict
	res, err := a.Verifier.Login(c.Context(), in)
	if err == nil {
		v, err = a.conclude(c.Context(), res, nil, keeping{kind: "authentication", action: "authentication", user: user}, nil)
	}
	if err == nil {
		v, err = a.identified(c.Context(), c.Access, v, purpose, in.Certificate)
	}
	return a.reply(c, v, err)
}

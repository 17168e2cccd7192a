package api

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

// read returns the evidence that the path names.
func (a *API) read(c call) (e kept, created, end time.Time, err error) {
	if err := c.checkID(); err != nil {
		return e, created, end, err
	}
	stored, err := a.Store.Evidence(c.Context(), c.Access, c.param, a.Now())
	if err != nil {
		return e, created, end, err
	}
	if err := json.Unmarshal(stored.Content, &e); err != nil {
		return e, created, end, fmt.Errorf("read evidence: %w", err)
	}
	return e, stored.CreatedAt, stored.DeleteAfter, nil
}

// checkID lets nothing but an identifier come near the database.
func (c call) checkID() error {
	if b, err := hex.DecodeString(c.param); err != nil || len(b) != 16 {
		return jpki.Errorf(jpki.NotFound, "there is no such evidence")
	}
	return nil
}

func (a *API) evidence(c call) (reply, error) {
	e, created, end, err := a.read(c)
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, struct {
		ID          string    `json:"id"`
		CreatedAt   time.Time `json:"created_at"`
		DeleteAfter time.Time `json:"delete_after"`
		kept
	}{c.param, created, end, e}, answered}, nil
}

func (a *API) deleteEvidence(c call) (reply, error) {
	if err := c.checkID(); err != nil {
		return reply{}, err
	}
	if err := a.Store.DeleteEvidence(c.Context(), c.Access, c.param); err != nil {
		return reply{}, err
	}
	return reply{http.StatusNoContent, nil, answered}, nil
}

// deleteOfUser takes the user's name in a body: names have no place in URLs, which proxies log.
func (a *API) deleteOfUser(c call) (reply, error) {
	f, err := c.fields("user")
	if err != nil {
		return reply{}, err
	}
	user := f.user()
	if f.err != nil {
		return reply{}, f.err
	}
	n, err := a.Store.DeleteEvidenceOfUser(c.Context(), c.Access, user)
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]int64{"deleted": n}, answered}, nil
}

func (a *API) reevaluate(c call) (reply, error) {
	f, err := c.fields("policy")
	if err != nil {
		return reply{}, err
	}
	name := f.text("policy")
	e, _, _, err := a.read(c)
	if err != nil {
		return reply{}, err
	}
	judge := a.judgeDocument
	if e.Kind == "signature" {
		judge = a.judgeSignature
	}
	v, err := judge(c, &e, name)
	if err != nil {
		return reply{}, err
	}
	// The verdict has the identifier of the evidence; its use one of its own.
	for i := range v.keep {
		var id [16]byte
		if _, err := io.ReadFull(a.Rand, id[:]); err != nil {
			return reply{}, fmt.Errorf("draw identifier: %w", err)
		}
		v.keep[i].ID = hex.EncodeToString(id[:])
	}
	return a.reply(c, v, nil)
}

// judgeDocument judges a document anew.
func (a *API) judgeDocument(c call, e *kept, name string) (v verdict, err error) {
	policy, err := verifier.FindDocumentPolicy(name)
	if err != nil {
		return v, err
	}
	if e.Evidence == nil {
		return v, errNotKept()
	}
	if err := a.meters.verdict(c.answer, c.Access, a.Now()); err != nil {
		return v, err
	}
	res, err := a.Verifier.Reevaluate(c.Context(), *e.Evidence, policy)
	if err != nil {
		return v, err
	}
	return a.concludeDocument(c.Context(), res, keeping{action: "reevaluation"})
}

// judgeSignature judges a signature over a digest anew.
func (a *API) judgeSignature(c call, e *kept, name string) (v verdict, err error) {
	if !slices.ContainsFunc(a.Verifier.Policies(), func(p verifier.Policy) bool { return p.Name == name && p.Purpose == verifier.ForSignature }) {
		return v, jpki.Errorf(jpki.Malformed, "policy is none of those for signatures that this server has now")
	}
	if e.Signed == nil || len(e.Signed.Certificate) == 0 {
		return v, errNotKept()
	}
	var first struct {
		At         time.Time `json:"validation_time"`
		Revocation struct {
			Source    string    `json:"source"`
			CheckedAt time.Time `json:"checked_at"`
			Evidence  []byte    `json:"evidence"`
			Format    string    `json:"evidence_format"`
		} `json:"revocation"`
	}
	if err := json.Unmarshal(e.Result, &first); err != nil {
		return v, fmt.Errorf("read evidence: %w", err)
	}
	in := verifier.SignatureEvidence{
		SignatureInput: verifier.SignatureInput{Certificate: e.Signed.Certificate, Digest: e.Signed.Digest, Signature: e.Signed.Signature, At: first.At},
		CheckedAt:      first.Revocation.CheckedAt, Source: first.Revocation.Source,
	}
	if first.Revocation.Format == "application/ocsp-response" { // no other proof is known
		in.Response = first.Revocation.Evidence
	}
	if in.Hash, err = verifier.ParseHash(e.Signed.Hash); err != nil {
		return v, fmt.Errorf("read evidence: %w", err)
	}
	if err := a.meters.verdict(c.answer, c.Access, a.Now()); err != nil {
		return v, err
	}
	res, err := a.Verifier.ReevaluateSignature(c.Context(), in)
	if err != nil {
		return v, err
	}
	res.ID = c.param
	return a.conclude(c.Context(), res, nil, keeping{action: "reevaluation"}, nil)
}

func errNotKept() error {
	return jpki.Errorf(jpki.EvidenceNotKept, "only documents and signatures verified with store_attributes can be evaluated anew")
}

package api

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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
	policy, err := verifier.FindDocumentPolicy(f.text("policy"))
	if err != nil {
		return reply{}, err
	}
	e, _, _, err := a.read(c)
	if err != nil {
		return reply{}, err
	}
	if e.Evidence == nil {
		return reply{}, jpki.Errorf(jpki.EvidenceNotKept, "only documents verified with store_attributes can be evaluated anew")
	}
	if err := a.meters.verdict(c.answer, c.Access, a.Now()); err != nil {
		return reply{}, err
	}
	res, err := a.Verifier.Reevaluate(c.Context(), *e.Evidence, policy)
	if err != nil {
		return reply{}, err
	}
	v, err := a.concludeDocument(c.Context(), res, keeping{action: "reevaluation"})
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

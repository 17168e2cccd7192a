package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
)

// askAgain is after what time it is worth asking again for attributes that are not available yet: a new certificate is issued at a
// counter.
const askAgain = time.Hour

// latestAttributes passes the attributes through: they are answered and kept nowhere. The authority checks the consent, and records
// the fetch. Who repeats a request under its Idempotency-Key gets the same from the authority, so that no lost answer is lost
// for good, and none has to be stored.
func (a *API) latestAttributes(c call) (reply, error) {
	authority, err := a.authority()
	if err != nil {
		return reply{}, err
	}
	f, err := c.fields("user", "purpose")
	if err != nil {
		return reply{}, err
	}
	key := c.Header.Get("Idempotency-Key")
	switch {
	case key == "":
		return reply{}, jpki.Errorf(jpki.MissingIdempotency, "an answer that was lost can be had again with it")
	case len(key) > 255 || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }):
		return reply{}, jpki.Errorf(jpki.Malformed, "Idempotency-Key is not 1 to 255 printable ASCII characters")
	case jpki.ContainsMyNumber(key):
		return reply{}, jpki.Errorf(jpki.MyNumberPresent, "remove the My Number; nothing was kept")
	}
	// What a tenant calls its requests is no business of the authority's, and another tenant's of the same name is another.
	sum := sha256.Sum256([]byte(string(c.Tenant.ID) + "\x00" + key))
	got, err := authority.LatestAttributes(c.Context(), hex.EncodeToString(sum[:]), client.AttributesRequest{Tenant: c.Tenant.ID, User: f.text("user"), Purpose: f.text("purpose")})
	if errors.Is(err, jpki.NotAvailableYet) {
		c.answer.Set("Retry-After", strconv.Itoa(int(askAgain/time.Second)))
	}
	if err != nil {
		return reply{}, theirs(err)
	}
	return reply{http.StatusOK, got, answered}, nil
}

package api

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/push"
)

// Routes lists every route as "METHOD path".
func Routes() []string {
	out := []string{"GET " + documentPath, "GET " + docsPath, "GET " + receiptKeysPath, "GET " + push.MetadataPath, "GET " + push.KeySetPath}
	for _, r := range slices.Concat(routes, watchRoutes) {
		out = append(out, r.method+" "+strings.Replace(r.path, ":id", "{id}", 1))
	}
	return out
}

// ReadMembers reads a body both ways: quickly, which may leave it to the other, and as encoding/json does.
func ReadMembers(body []byte) (quick, flat map[string]string, taken bool, detail string) {
	known := []string{"certificate", "digest", "user", "store_attributes"}
	q, f := &fields{values: map[string]string{}}, &fields{values: map[string]string{}}
	taken, detail = q.quick(string(body), known), f.flat(body, known)
	return q.values, f.values, taken, detail
}

// Kept encodes evidence by hand and by encoding/json.
func Kept(kind string, attributes bool, result []byte, certificate, digest, signature []byte, evidence *verifier.Evidence) (byHand, marshaled []byte, err error) {
	e := kept{Kind: kind, AttributesStored: attributes, Result: result, Evidence: evidence}
	if digest != nil {
		e.Signed = &signed{certificate, digest, "sha256", signature}
	}
	if byHand, err = e.encode(); err == nil {
		marshaled, err = json.Marshal(e)
	}
	return byHand, marshaled, err
}

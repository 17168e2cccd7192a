package verifier

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/openjpki/jpki"
)

// AppendJSON appends what json.Marshal makes of the result, octet for octet, at a fraction of its cost: a verification takes so little
// that encoding by reflection would weigh as much. Its error is that of json.Marshal: a time outside the years 0 to 9999.
func (r *Result) AppendJSON(b []byte) ([]byte, error) {
	w := jsonWriter{b: b}
	w.text("{", "id", r.ID)
	w.verdict(Verdict{r.Indication, r.SubIndication, r.Code, r.Message, r.Action, r.RetryAfter})
	w.textIf("status_failure", string(r.StatusFailure))
	w.checks(r.Checks)
	if s := r.Signer; s != nil {
		w.name(",", "signer")
		w.text("{", "issuer_key_id", s.IssuerKeyID)
		w.text(",", "serial", s.Serial.String())
		w.textIf("kind", string(s.Kind))
		w.time("not_before", s.NotBefore)
		w.time("not_after", s.NotAfter)
		w.text(",", "certificate_sha256", s.SHA256)
		w.raw("}")
	}
	w.attributes(r.Attributes)
	if r.Revocation != nil {
		w.name(",", "revocation")
		w.revocation(r.Revocation)
	}
	w.policy(r.Policy)
	w.time("validation_time", r.ValidationTime)
	w.raw("}")
	return w.b, w.err
}

// AppendJSON is [Result.AppendJSON] for documents.
func (r *DocumentResult) AppendJSON(b []byte) ([]byte, error) {
	w := jsonWriter{b: b}
	w.text("{", "id", r.ID)
	w.verdict(r.Verdict)
	w.text(",", "format", string(r.Format))
	w.textIf("document_sha256", r.SHA256)
	w.name(",", "signatures")
	each(&w, r.Signatures, (*jsonWriter).signature)
	w.policy(r.Policy)
	w.time("validation_time", r.ValidationTime)
	w.name(",", "fetches")
	each(&w, r.Fetches, func(w *jsonWriter, f *Fetch) {
		w.text("{", "source", f.Source)
		w.text(",", "certificate_sha256", f.Certificate)
		w.time("at", f.At)
		w.number("found", f.Found)
		w.truthIf("failed", f.Failed)
		w.raw("}")
	})
	w.raw("}")
	return w.b, w.err
}

func (w *jsonWriter) signature(s *SignatureResult) {
	w.verdictFrom("{", s.Verdict)
	w.checks(s.Checks)
	if d := s.Signer; d != nil {
		w.name(",", "signer")
		w.text("{", "certificate_sha256", d.SHA256)
		w.textIf("kind", string(d.Kind))
		w.time("not_before", d.NotBefore)
		w.time("not_after", d.NotAfter)
		w.textIf("anchor_sha256", d.AnchorSHA256)
		w.raw("}")
	}
	w.attributes(s.Attributes)
	w.text(",", "level", s.Level)
	w.name(",", "scope")
	w.name("{", "whole")
	w.b = strconv.AppendBool(w.b, s.Scope.Whole)
	if len(s.Scope.Parts) > 0 {
		w.name(",", "parts")
		w.texts(s.Scope.Parts)
	}
	w.textIf("note", s.Scope.Note)
	w.raw("}")
	w.truthIf("countersigns", s.Countersigns)
	w.textIf("signature_policy", s.PolicyID)
	if p := s.Policy; p != nil {
		w.name(",", "signature_policy_document")
		w.text("{", "state", string(p.State))
		w.textIf("source", p.Source)
		w.textIf("sha256", p.SHA256)
		w.textIf("hash", p.Hash)
		w.textIf("digest", base64.StdEncoding.EncodeToString(p.Digest))
		w.textIf("uri", p.URI)
		w.textIf("detail", p.Detail)
		w.raw("}")
	}
	if len(s.Commitments) > 0 {
		w.name(",", "commitments")
		w.texts(s.Commitments)
	}
	w.truthIf("claims_roles", s.ClaimsRoles)
	w.timeIf("claimed_time", s.ClaimedTime)
	w.time("best_time", s.BestTime)
	w.text(",", "best_time_proof", string(s.BestTimeProof))
	w.name(",", "time_stamps")
	each(w, s.TimeStamps, func(w *jsonWriter, t *TimeStampResult) { w.any(t) })
	w.textIf("status_failure", string(s.StatusFailure))
	w.name(",", "evidence")
	each(w, s.Evidence, func(w *jsonWriter, e *EvidenceRef) {
		w.text("{", "kind", e.Kind)
		w.text(",", "sha256", e.SHA256)
		w.text(",", "certificate_sha256", e.Certificate)
		w.text(",", "source", e.Source)
		w.time("this_update", e.ThisUpdate)
		w.timeIf("next_update", e.NextUpdate)
		w.number("age_seconds", e.Age)
		w.raw("}")
	})
	if s.Token != nil {
		w.name(",", "token")
		w.any(s.Token)
	}
	w.raw("}")
}

// A jsonWriter writes as encoding/json does. err is the first thing that has no JSON form.
type jsonWriter struct {
	b   []byte
	err error
}

func (w *jsonWriter) raw(s string) { w.b = append(w.b, s...) }

// name begins a member; names are ours and need no escapes.
func (w *jsonWriter) name(before, name string) {
	w.b = append(w.b, before...)
	w.b = append(w.b, '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

func (w *jsonWriter) text(before, name, value string) {
	w.name(before, name)
	w.string(value)
}

func (w *jsonWriter) textIf(name, value string) {
	if value != "" {
		w.text(",", name, value)
	}
}

// string leaves to encoding/json what needs an escape.
func (w *jsonWriter) string(s string) {
	if !plain(s) {
		w.any(s)
		return
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, s...)
	w.b = append(w.b, '"')
}

// plain reports whether encoding/json writes a string as it is. U+2028 and U+2029, which it escapes, begin with E2 80.
func plain(s string) bool {
	ascii := true
	for i := range len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			if c == 0xE2 && i+1 < len(s) && s[i+1] == 0x80 {
				return false
			}
			ascii = false
		case c < ' ' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&':
			return false
		}
	}
	return ascii || utf8.ValidString(s)
}

func (w *jsonWriter) any(v any) {
	text, err := json.Marshal(v)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.b = append(w.b, text...)
}

func (w *jsonWriter) time(name string, t time.Time) {
	w.name(",", name)
	w.b = append(w.b, '"')
	b, err := t.AppendText(w.b)
	if err != nil {
		if w.err == nil {
			w.err = err
		}
		return
	}
	w.b = append(b, '"')
}

func (w *jsonWriter) timeIf(name string, t time.Time) {
	if !t.IsZero() {
		w.time(name, t)
	}
}

func (w *jsonWriter) number(name string, n int) {
	w.name(",", name)
	w.b = strconv.AppendInt(w.b, int64(n), 10)
}

func (w *jsonWriter) truthIf(name string, b bool) {
	if b {
		w.name(",", name)
		w.raw("true")
	}
}

func (w *jsonWriter) texts(values []string) {
	w.raw("[")
	for i, s := range values {
		if i > 0 {
			w.raw(",")
		}
		w.string(s)
	}
	w.raw("]")
}

func each[T any](w *jsonWriter, values []T, write func(*jsonWriter, *T)) {
	if values == nil {
		w.raw("null")
		return
	}
	w.raw("[")
	for i := range values {
		if i > 0 {
			w.raw(",")
		}
		write(w, &values[i])
	}
	w.raw("]")
}

func (w *jsonWriter) verdict(v Verdict) { w.verdictFrom(",", v) }

func (w *jsonWriter) verdictFrom(before string, v Verdict) {
	w.text(before, "indication", string(v.Indication))
	w.textIf("sub_indication", string(v.SubIndication))
	w.text(",", "code", string(v.Code))
	for _, t := range []struct {
		name string
		Text
	}{{"message", v.Message}, {"action", v.Action}} {
		w.name(",", t.name)
		w.text("{", "en", t.EN)
		w.text(",", "ja", t.JA)
		w.raw("}")
	}
	if v.RetryAfter != 0 {
		w.number("retry_after_seconds", v.RetryAfter)
	}
}

func (w *jsonWriter) checks(checks []Check) {
	w.name(",", "checks")
	each(w, checks, func(w *jsonWriter, c *Check) {
		w.text("{", "id", string(c.ID))
		w.name(",", "ok")
		w.b = strconv.AppendBool(w.b, c.OK)
		w.text(",", "detail", c.Detail)
		w.raw("}")
	})
}

func (w *jsonWriter) attributes(a *jpki.Attributes) {
	if a == nil {
		return
	}
	w.name(",", "attributes")
	w.text("{", "name", a.Name)
	w.textIf("name_substitutes", a.NameSubstitutes)
	w.text(",", "sex", string(a.Sex))
	w.text(",", "birth_date", string(a.BirthDate))
	w.text(",", "address", a.Address)
	w.textIf("address_substitutes", a.AddressSubstitutes)
	w.raw("}")
}

// revocation writes what [Revocation.MarshalJSON] does.
func (w *jsonWriter) revocation(r *Revocation) {
	w.text("{", "state", string(r.State))
	if r.RevokedAt != nil {
		w.time("revoked_at", *r.RevokedAt)
	}
	w.text(",", "source", r.Source)
	w.time("status_as_of", r.ThisUpdate)
	w.timeIf("next_update", r.NextUpdate)
	w.time("checked_at", r.CheckedAt)
	w.number("age_seconds", r.Age)
	if len(r.Evidence) > 0 {
		w.name(",", "evidence")
		w.b = append(w.b, '"')
		w.b = base64.StdEncoding.AppendEncode(w.b, r.Evidence)
		w.b = append(w.b, '"')
	}
	w.textIf("evidence_format", r.Format)
	if r.RevokedAt != nil {
		w.textIf("reason", r.Reason.String())
	}
	w.raw("}")
}

func (w *jsonWriter) policy(p PolicyRef) {
	w.name(",", "policy")
	w.text("{", "name", p.Name)
	w.text(",", "sha256", p.SHA256)
	w.raw("}")
}

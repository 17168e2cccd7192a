package ocsp_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// What a cache is told, for every kind of answer and by both methods: signed answers may be kept by whom they are of use to,
// refusals by nobody (RFC 9919 §7.2).
func TestCacheControl(t *testing.T) {
	const (
		shared  = "max-age=60, public, no-transform, must-revalidate"
		lasting = "max-age=150, public, no-transform, must-revalidate"
		alone   = "max-age=0, private, no-transform, must-revalidate"
		never   = "no-store"
	)
	withQuota := func(_ *world, c *ocsp.Config) { c.Quota = ocsp.Quota{Rate: 1e-6, Burst: 1} }
	failing := func(err error) option {
		return withStatuses(func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
			return jpki.Status{}, time.Time{}, err
		})
	}
	ask := func(w *world, nonce []byte, serials ...jpki.Serial) []byte {
		return must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nonce, serials...)).Marshal())
	}
	nonce := bytes.Repeat([]byte{7}, 32)
	for name, test := range map[string]struct {
		with    option
		request func(*world) []byte
		status  ocsp.ResponseStatus
		control string
		asked   int // before
	}{
		"good":                  {nil, func(w *world) []byte { return ask(w, nil, w.good) }, ocsp.Successful, shared, 0},
		"good, kept":            {withNear, func(w *world) []byte { return ask(w, nil, w.good) }, ocsp.Successful, shared, 1},
		"on hold":               {nil, func(w *world) []byte { return ask(w, nil, w.hold) }, ocsp.Successful, shared, 0},
		"revoked":               {nil, func(w *world) []byte { return ask(w, nil, w.revoked) }, ocsp.Successful, lasting, 0},
		"never issued":          {nil, func(w *world) []byte { return ask(w, nil, w.never) }, ocsp.Successful, shared, 0},
		"good, with a nonce":    {nil, func(w *world) []byte { return ask(w, nonce, w.good) }, ocsp.Successful, alone, 0},
		"revoked, with a nonce": {nil, func(w *world) []byte { return ask(w, nonce, w.revoked) }, ocsp.Successful, alone, 0},
		"several":               {nil, func(w *world) []byte { return ask(w, nil, w.good, w.revoked) }, ocsp.Successful, shared, 0},
		"malformed":             {nil, func(*world) []byte { return []byte{0x30, 3, 1, 2, 3} }, ocsp.MalformedRequest, never, 0},
		"foreign": {nil, func(w *world) []byte {
			other := newAuthority(jpki.IssuerID{CA: jpki.AuthCA, Generation: 9}, p256(), now)
			return must(must(ocsp.NewRequest(other.cert, crypto.SHA256, nil, w.good)).Marshal())
		}, ocsp.Unauthorized, never, 0},
		"too often":          {withQuota, func(w *world) []byte { return ask(w, nil, w.good) }, ocsp.TryLater, never, 1},
		"statuses away":      {failing(jpki.Errorf(jpki.Unavailable, "away")), func(w *world) []byte { return ask(w, nil, w.good) }, ocsp.TryLater, never, 0},
		"statuses broken":    {failing(context.Canceled), func(w *world) []byte { return ask(w, nil, w.good) }, ocsp.InternalError, never, 0},
		"away, with a nonce": {failing(jpki.Errorf(jpki.Unavailable, "away")), func(w *world) []byte { return ask(w, nonce, w.good) }, ocsp.TryLater, never, 0},
	} {
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			t.Run(name+" by "+method, func(t *testing.T) {
				var options []option
				if test.with != nil {
					options = append(options, test.with)
				}
				w := newWorld(t, p256(), p256(), p256(), now, options...)
				request := test.request(w)
				var body []byte
				var h http.Header
				for range test.asked + 1 {
					if method == http.MethodGet {
						body, h = w.get(t, "/"+base64.StdEncoding.EncodeToString(request))
					} else {
						body, h = w.post(t, request)
					}
				}
				if s := statusOf(t, body); s != test.status || h.Get("Cache-Control") != test.control {
					t.Errorf("%v, Cache-Control %q; want %v, %q", s, h.Get("Cache-Control"), test.status, test.control)
				}
				// Only what is signed has times and a tag: a refusal must not be taken for the successor of an answer.
				for _, field := range []string{"Expires", "Last-Modified", "ETag"} {
					if (h.Get(field) != "") != (test.status == ocsp.Successful) {
						t.Errorf("%s: %q", field, h.Get(field))
					}
				}
				if h.Get("Pragma") != "" || (h.Get("Retry-After") != "") != (test.status == ocsp.TryLater) {
					t.Errorf("Pragma %q, Retry-After %q", h.Get("Pragma"), h.Get("Retry-After"))
				}
			})
		}
	}
}

// The example of RFC 9654 §2.1, octet for octet, and what its text demands for each length.
func TestNonceOfRFC9654(t *testing.T) {
	extension := must(hex.DecodeString(strings.ReplaceAll("30 2f 06 09 2b 06 01 05 05 07 30 01 02 04 22 04 20 dd 49 d4 07 2c 44 9d a1 c3 17 bd 1c 1b df fe db e1 50 31 2e c4 cd 0a dd 18 e5 bd 6f 84 bf 14 c8", " ", "")))
	w := newWorld(t, p256(), p256(), p256(), now)
	nonce := extension[len(extension)-32:]
	der := must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nonce, w.good)).Marshal())
	if !bytes.Contains(der, extension) {
		t.Errorf("%x does not have %x", der, extension)
	}
	if body, _ := w.post(t, der); !bytes.Contains(body, extension) {
		t.Errorf("%x does not have %x", body, extension)
	}
	id := must(ocsp.NewCertID(w.first.cert, crypto.SHA256, w.good)).Raw
	for _, n := range []int{0, 1, 15, 16, 32, 33, 128, 129} {
		body, _ := w.post(t, request([][]byte{id}, exts(nonceExt(n))))
		r := must(ocsp.ParseResponse(body))
		switch {
		case n == 0 || n > 128: // MUST be rejected as malformedRequest
			if r.Status != ocsp.MalformedRequest {
				t.Errorf("%d octets: %v", n, r.Status)
			}
		case r.Status != ocsp.Successful || !bytes.Equal(r.Nonce, make([]byte, n)): // of 16 to 32 it MUST be taken, of others it is
			t.Errorf("%d octets: %v, %x comes back", n, r.Status, r.Nonce)
		}
	}
}

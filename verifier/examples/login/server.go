package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed" // page.html
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	maxBody     = 64 << 10 // octets of what a browser sends
	maxSessions = 100_000
	sessionTime = 15 * time.Minute
	// Browsers send cookies of this prefix only to the host that set them, and only if they are Secure.
	sessionCookie = "__Host-session"
	beginCookie   = "__Host-begin" // of who was shown a challenge
)

// A server has the log-in page and the sessions.
type server struct {
	verifier verifier
	origin   string
	now      func() time.Time

	mu       sync.Mutex
	sessions map[string]session // by identifier
}

// A session is found by an identifier and proven by a secret, of which only a hash is here.
type session struct {
	secret [sha256.Size]byte
	user   string
	ends   time.Time
}

func newServer(v verifier, origin string, now func() time.Time) *server {
	return &server{verifier: v, origin: origin, now: now, sessions: map[string]session{}}
}

// handler has one page: GET shows it, POST logs in or out. Forms of other sites are refused.
func (s *server) handler() http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { s.show(w, r, http.StatusOK, "") })
	routes.HandleFunc("POST /login", s.login)
	routes.HandleFunc("POST /logout", s.logout)
	return http.NewCrossOriginProtection().Handler(routes)
}

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// show shows who is logged in, or a challenge and, after a failure, what to do.
func (s *server) show(w http.ResponseWriter, r *http.Request, status int, code string) {
	view := struct {
		In         bool
		JA, EN     string
		ID, Signed string
	}{}
	if _, view.In = s.who(r); !view.In {
		if code != "" {
			said := sentenceFor(code)
			view.JA, view.EN = said.ja, said.en
		}
		binding := rand.Text()
		c, err := s.verifier.challenge(r.Context(), s.origin, binding)
		if err != nil {
			status = http.StatusServiceUnavailable
			said := sentenceFor("unavailable")
			view.JA, view.EN = said.ja, said.en
		} else {
			view.ID, view.Signed = c.ID, base64.StdEncoding.EncodeToString(c.Message)
			setCookie(w, beginCookie, binding, 2*time.Minute)
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_ = page.Execute(w, view)
}

// login ends a log-in. Steps:
//  1. read the form, from the browser that was shown the challenge
//  2. ask the verifier
//  3. unless it says yes, tell the customer what to do, with a new challenge: one serves once
//  4. open a session under a name that nobody can have known before
func (s *server) login(w http.ResponseWriter, r *http.Request) {
	// 1.
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	begun, err := r.Cookie(beginCookie)
	if err != nil {
		s.show(w, r, http.StatusBadRequest, "challenge-invalid")
		return
	}
	certificate, err1 := base64.StdEncoding.DecodeString(r.PostFormValue("certificate"))
	signature, err2 := base64.StdEncoding.DecodeString(r.PostFormValue("signature"))
	if err1 != nil || err2 != nil || len(certificate) == 0 || len(signature) == 0 {
		s.show(w, r, http.StatusBadRequest, "malformed-certificate")
		return
	}
	// 2.
	got, err := s.verifier.login(r.Context(), r.PostFormValue("challenge_id"), certificate, signature, s.origin, begun.Value)
	if err != nil {
		got = answer{code: "unavailable"}
	}
	// 3.
	if !got.ok {
		status := http.StatusForbidden
		if sentenceFor(got.code).again {
			status = http.StatusServiceUnavailable
		}
		s.show(w, r, status, got.code)
		return
	}
	// 4.
	id, secret := rand.Text(), rand.Text()
	if !s.open(id, session{sha256.Sum256([]byte(secret)), got.user, s.now().Add(sessionTime)}) {
		s.show(w, r, http.StatusServiceUnavailable, "unavailable")
		return
	}
	setCookie(w, sessionCookie, id+"."+secret, sessionTime)
	setCookie(w, beginCookie, "", -time.Second)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// open keeps a session, unless there are too many.
func (s *server) open(id string, n session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sessions) >= maxSessions {
		for id, old := range s.sessions {
			if !s.now().Before(old.ends) {
				delete(s.sessions, id)
			}
		}
	}
	if len(s.sessions) >= maxSessions {
		return false
	}
	s.sessions[id] = n
	return true
}

// who returns the session that the request's cookie proves. The secret is compared in constant time.
func (s *server) who(r *http.Request) (id string, ok bool) {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return "", false
	}
	id, secret, _ := strings.Cut(c.Value, ".")
	sum := sha256.Sum256([]byte(secret))
	s.mu.Lock()
	known, found := s.sessions[id]
	s.mu.Unlock()
	return id, subtle.ConstantTimeCompare(sum[:], known.secret[:]) == 1 && found && s.now().Before(known.ends)
}

func (s *server) logout(w http.ResponseWriter, r *http.Request) {
	if id, ok := s.who(r); ok {
		s.mu.Lock()
		delete(s.sessions, id)
		s.mu.Unlock()
	}
	setCookie(w, sessionCookie, "", -time.Second)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// setCookie sets a cookie that no script reads and no other site sends; with a negative time it deletes it.
func setCookie(w http.ResponseWriter, name, value string, lasts time.Duration) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(lasts / time.Second), HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode})
}

package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// A ServerConfig says what a server serves. Dir and Now are required.
type ServerConfig struct {
	Dir    string // that publishers write to
	Now    func() time.Time
	MaxAge time.Duration // how long caches may keep an index; 0 means 1 min
}

// A Server answers GET and HEAD of /snapshot/, an issuer and a file, such as /snapshot/sign-1/index.json, and anything else
// with a problem. It answers conditional and range requests. A snapshot or delta never changes under its name.
type Server struct {
	// Outcomes counts answers: "index", "file", or the name of a problem.
	Outcomes jpki.Tally

	cfg ServerConfig
}

// NewServer checks the configuration.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.MaxAge == 0 {
		cfg.MaxAge = time.Minute
	}
	switch {
	case cfg.Dir == "":
		return nil, errors.New("snapshot.ServerConfig.Dir is missing")
	case cfg.Now == nil:
		return nil, errors.New("snapshot.ServerConfig.Now is missing")
	case cfg.MaxAge < 0:
		return nil, errors.New("snapshot.ServerConfig.MaxAge is negative")
	}
	return &Server{cfg: cfg}, nil
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.serve(w, r); err != nil {
		if errors.Is(err, jpki.MethodNotAllowed) {
			w.Header().Set("Allow", "GET, HEAD")
		}
		s.Outcomes.Add(string(jpki.ProblemOf(err)))
		jpki.WriteProblem(w, r, err)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	path, ok := strings.CutPrefix(r.URL.Path, "/snapshot/")
	issuer, name, ok2 := strings.Cut(path, "/")
	id, err := jpki.ParseIssuerID(issuer)
	_, _, file := parseName(name)
	switch {
	case !ok || !ok2 || err != nil || !file && name != IndexName || r.URL.RawPath != "":
		return jpki.Errorf(jpki.NotFound, "which status snapshots there are is said at /snapshot/, the issuer and index.json, as in /snapshot/sign-1/index.json")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return jpki.Errorf(jpki.MethodNotAllowed, "a status snapshot can be read with GET and HEAD")
	}
	f, err := os.Open(filepath.Join(s.cfg.Dir, id.String(), name))
	if errors.Is(err, fs.ErrNotExist) {
		return jpki.Errorf(jpki.NotFound, "there is no status snapshot %s/%s", id, name)
	}
	if err != nil {
		return jpki.WrapError(jpki.Unavailable, err, "the status snapshot cannot be read now")
	}
	defer f.Close()
	content, tag, cache, err := s.learn(f, file)
	if err != nil {
		return jpki.WrapError(jpki.Unavailable, err, "the status snapshot cannot be read now")
	}
	h := w.Header()
	h.Set("Content-Type", map[bool]string{false: "application/json", true: "application/octet-stream"}[file])
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", `"`+tag+`"`)
	h.Set("Cache-Control", cache)
	s.Outcomes.Add(map[bool]string{false: "index", true: "file"}[file])
	http.ServeContent(w, r, "", time.Time{}, content) // tags tell everything; a file's time would be told in whole seconds
	return nil
}

// learn returns what an answer's head needs.
func (s *Server) learn(f *os.File, file bool) (content io.ReadSeeker, tag, cache string, err error) {
	if file {
		head := make([]byte, headerOctets)
		if _, err := f.ReadAt(head, 0); err != nil {
			return nil, "", "", err
		}
		h, err := parseHeader(head)
		if err != nil {
			return nil, "", "", err
		}
		sum := sha256.Sum256(head) // with the hash of all that follows in it
		fresh := max(0, h.NextUpdate.Sub(s.cfg.Now()))
		return f, hex.EncodeToString(sum[:16]), fmt.Sprintf("public, max-age=%d, immutable", int(fresh/time.Second)), nil
	}
	text, err := io.ReadAll(io.LimitReader(f, maxIndex))
	sum := sha256.Sum256(text)
	return bytes.NewReader(text), hex.EncodeToString(sum[:16]), fmt.Sprintf("public, max-age=%d, must-revalidate", int(s.cfg.MaxAge/time.Second)), err
}

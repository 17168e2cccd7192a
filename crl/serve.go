package crl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openjpki/jpki"
)

// A ServerConfig says what a server serves. Dir and Now are required.
type ServerConfig struct {
	Dir    string // that publishers write to
	Now    func() time.Time
	MaxAge time.Duration // how long caches may keep a CRL, never past its nextUpdate; 0 means 5 min
}

// A Server answers GET and HEAD of /crl/ and an [ID.Path], such as /crl/sign-1/99101.crl, with the CRL, and anything else
// with a problem. It answers conditional and range requests, and with the list's gzip form, which has a tag of its own, who accepts that.
type Server struct {
	// Outcomes counts answers: "ok", "partial", "not-modified", "precondition-failed", "bad-range", or the name of a problem.
	Outcomes jpki.Tally

	cfg   ServerConfig
	mu    sync.Mutex
	files map[ID]served // of files that exist
}

// served is what was learnt from the content of a file.
type served struct {
	info os.FileInfo
	tag  string    // of its content
	next time.Time // nextUpdate
}

// NewServer checks the configuration.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.MaxAge == 0 {
		cfg.MaxAge = 5 * time.Minute
	}
	switch {
	case cfg.Dir == "":
		return nil, errors.New("crl.ServerConfig.Dir is missing")
	case cfg.Now == nil:
		return nil, errors.New("crl.ServerConfig.Now is missing")
	case cfg.MaxAge < 0:
		return nil, errors.New("crl.ServerConfig.MaxAge is negative")
	}
	return &Server{cfg: cfg, files: map[ID]served{}}, nil
}

// settled is how old a file must be to be told apart from every later one by a time in whole seconds.
const settled = 2 * time.Second

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, file, err := s.open(r)
	if err != nil {
		if errors.Is(err, jpki.MethodNotAllowed) {
			w.Header().Set("Allow", "GET, HEAD")
		}
		s.Outcomes.Add(string(jpki.ProblemOf(err)))
		jpki.WriteProblem(w, r, err)
		return
	}
	defer f.Close()

	now, length := s.cfg.Now(), file.info.Size()
	fresh := max(0, min(s.cfg.MaxAge, file.next.Sub(now)))
	h := w.Header()
	h.Set("Content-Type", "application/pkix-crl")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
	tag := file.tag
	if acceptsGzip(r.Header) {
		if packed, info := openPacked(f.Name(), tag); packed != nil {
			defer packed.Close()
			f, tag, length = packed, tag+"-gzip", info.Size()
			h.Set("Content-Encoding", "gzip")
		}
	}
	h.Set("ETag", `"`+tag+`"`)
	h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d, must-revalidate", int(fresh/time.Second)))
	modified := file.info.ModTime()
	if now.Sub(modified) < settled { // a CRL that follows within the second would have the same Last-Modified
		modified = time.Time{}
	}
	http.ServeContent(counter{w, &s.Outcomes, length}, r, "", modified, f)
}

// open opens the file a request is about and learns from it what the answer's head needs.
func (s *Server) open(r *http.Request) (*os.File, served, error) {
	path, ok := strings.CutPrefix(r.URL.Path, "/crl/")
	id, err := ParsePath(path)
	switch {
	case !ok || err != nil || r.URL.RawPath != "":
		return nil, served{}, jpki.Errorf(jpki.NotFound, "a CRL is at /crl/, the issuer and the municipality code, as in /crl/sign-1/99101.crl")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return nil, served{}, jpki.Errorf(jpki.MethodNotAllowed, "a CRL can be read with GET and HEAD")
	}
	f, err := os.Open(filepath.Join(s.cfg.Dir, filepath.FromSlash(id.Path())))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, served{}, jpki.Errorf(jpki.NotFound, "there is no CRL %s", id)
	}
	var file served
	if err == nil {
		if file, err = s.learn(id, f); err == nil {
			return f, file, nil
		}
		f.Close()
	}
	return nil, served{}, jpki.WrapError(jpki.Unavailable, err, "the CRL cannot be read now")
}

// learn reads a file, once as long as it stays: publishers replace files and never write into them.
func (s *Server) learn(id ID, f *os.File) (served, error) {
	info, err := f.Stat()
	if err != nil {
		return served{}, err
	}
	if !info.Mode().IsRegular() {
		return served{}, errors.New("not a regular file")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.files[id]; ok && os.SameFile(known.info, info) && known.info.ModTime().Equal(info.ModTime()) && known.info.Size() == info.Size() {
		return known, nil
	}
	_, next, err := headTimes(f)
	if err != nil {
		return served{}, err
	}
	tag, err := tagOf(f, info.Size())
	if err != nil {
		return served{}, err
	}
	file := served{info, tag, next}
	s.files[id] = file
	return file, nil
}

// headTimes reads thisUpdate and nextUpdate of a CRL file.
func headTimes(f io.ReaderAt) (this, next time.Time, err error) {
	head := make([]byte, maxHead)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return this, next, err
	}
	return readTimes(head[:n])
}

// A counter counts the status that ServeContent chooses.
type counter struct {
	http.ResponseWriter
	outcomes *jpki.Tally
	length   int64 // of the whole, of which ServeContent says nothing if it is encoded
}

func (c counter) WriteHeader(status int) {
	switch status {
	case http.StatusPartialContent:
		c.outcomes.Add("partial")
	case http.StatusNotModified:
		c.outcomes.Add("not-modified")
	case http.StatusPreconditionFailed:
		c.outcomes.Add("precondition-failed")
	case http.StatusRequestedRangeNotSatisfiable:
		c.outcomes.Add("bad-range")
	default:
		c.outcomes.Add("ok")
		c.Header().Set("Content-Length", strconv.FormatInt(c.length, 10))
	}
	c.ResponseWriter.WriteHeader(status)
}

// ReadFrom keeps the way open for the kernel to copy the file.
func (c counter) ReadFrom(src io.Reader) (int64, error) { return io.Copy(c.ResponseWriter, src) }

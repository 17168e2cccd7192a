package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/crl/snapshot"
)

// files hands out what the authority's zone publishes: CRLs, status snapshots and CA certificates.
type files struct {
	lists     *crl.Server
	snapshots *snapshot.Server
	dir       string
}

// files returns nil if none are served.
func (c *config) files() (*files, error) {
	if c.Public == "" {
		return nil, nil
	}
	dir := c.path(c.Public)
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, errors.New("public is not a directory")
	}
	lists, err := crl.NewServer(crl.ServerConfig{Dir: filepath.Join(dir, "crl"), Now: time.Now})
	if err != nil {
		return nil, err
	}
	snapshots, err := snapshot.NewServer(snapshot.ServerConfig{Dir: filepath.Join(dir, "snapshot"), Now: time.Now})
	return &files{lists, snapshots, dir}, err
}

func (f *files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/crl/"):
		f.lists.ServeHTTP(w, r)
	case strings.HasPrefix(r.URL.Path, "/snapshot/"):
		f.snapshots.ServeHTTP(w, r)
	default:
		f.serveCA(w, r)
	}
}

// serveCA hands out an authority's certificate: /ca/sign-1.cer.
func (f *files) serveCA(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/ca/")
	path, ok2 := strings.CutSuffix(path, ".cer")
	id, err := jpki.ParseIssuerID(path)
	var file *os.File
	if ok && ok2 && err == nil {
		file, err = os.Open(filepath.Join(f.dir, "ca", id.String()+".cer"))
	}
	switch {
	case !ok || !ok2 || err != nil:
		jpki.WriteProblem(w, r, jpki.Errorf(jpki.NotFound, ""))
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		jpki.WriteProblem(w, r, jpki.Errorf(jpki.MethodNotAllowed, ""))
	default:
		w.Header().Set("Content-Type", "application/pkix-cert")
		w.Header().Set("Cache-Control", "public, max-age=86400") // a generation has one certificate for life
		http.ServeContent(w, r, "", time.Time{}, file)
	}
	_ = file.Close()
}

// Package sandbox is the whole system in one process, on SQLite and file keys, with a story to watch.
//
// [Run] makes a directory's sandbox on first start (hierarchy, stations, sample certificates), starts the authority's zone,
// the status zone and the verifier's zone, each on listeners of its own, plays the life of a card and stays until it is
// told to stop. [Load] reads the environment file of a running sandbox for the tools. Nothing in it is for production: all
// names say JPKI-SANDBOX. The zones speak with each other only as they would on different machines: by HTTP, the database
// and published files. Start at Run.
package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/hsm/signer"
)

// Options say what to run.
type Options struct {
	Dir    string    // everything lives here
	Offset int       // added to every port
	Once   bool      // end after the story
	Lang   string    // of the story: en or ja
	Out    io.Writer // where the story goes

	Live     time.Duration // after the story: something happens to a resident so often; 0 means nothing does
	LiveSeed uint64        // the same, the same order of what happens

	Samples bool // write requests for every answer of the verifier into Dir
	// VerifierDatabase is where the verifier's store is instead of a file in Dir: a postgres:// URL.
	VerifierDatabase string

	HSM     bool   // on first start: the CAs' keys go into a SoftHSM token behind jpki-signer, remembered in Dir
	Profile string // one of Profiles, remembered in Dir; empty: as before, or today's
}

// Ports, before the offset; all on loopback.
const (
	authorityPort = 8443
	enrolmentPort = 8445
	statusPort    = 8080
	verifierPort  = 8090
	adminPort     = 8099
)

// A System is the running sandbox.
type System struct {
	opt     Options
	dir     dir
	log     *slog.Logger
	db      *store.Store
	keys    *hierarchy
	profile ruleSet
	authority
	status
	relyingParty
	env       Env
	signer    *signer.Client // nil when the CAs' keys are files
	usage     string         // hash of the record of use that the audit chain has
	preparing sync.Mutex     // held by who changes what stands ready for the generations
}

// Run starts the sandbox in opt.Dir and returns when ctx ends, or after the story with opt.Once. An error says what did not
// start or which step of the story did not hold.
func Run(ctx context.Context, opt Options) (err error) {
	abs, err := filepath.Abs(opt.Dir)
	if err != nil {
		return err
	}
	s := &System{opt: opt, dir: dir(abs)}
	if err := s.dir.make(); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	unlock, err := s.dir.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if s.profile, err = s.dir.chooseProfile(opt.Profile); err != nil {
		return fmt.Errorf("choose profile: %w", err)
	}
	// One that was killed leaves its environment behind; nobody shall take it for this one's.
	if err := os.Remove(s.dir.path("env")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old environment: %w", err)
	}
	logFile, err := os.OpenFile(s.dir.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = logFile.Close() }()
	s.log = slog.New(slog.NewJSONHandler(logFile, &slog.HandlerOptions{Level: slog.LevelInfo}))

	// Listeners first: a port that is taken is the commonest mistake, and should cost nothing.
	var services []boot.Service
	for _, l := range []struct {
		name string
		port int
	}{{"authority", authorityPort}, {"status", statusPort}, {"verifier", verifierPort}, {"admin", adminPort}, {"enrolment", enrolmentPort}} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(l.port+opt.Offset)))
		if err != nil {
			return fmt.Errorf("listen for the %s: %w (another sandbox? try -offset 100)", l.name, err)
		}
		defer func() { _ = listener.Close() }()
		services = append(services, boot.Service{Name: l.name, Listener: listener})
	}

	stopSigner, err := s.startSigner(ctx)
	if err != nil {
		return fmt.Errorf("start jpki-signer: %w", err)
	}
	defer stopSigner()
	if s.db, err = store.Create(ctx, "sqlite:"+s.dir.path("authority", "ca.db")); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer func() { err = errors.Join(err, s.db.Close()) }()
	if fenced, err := s.db.Fenced(ctx); err != nil {
		return fmt.Errorf("open database: %w", err)
	} else if fenced {
		return fmt.Errorf("%w: see `jpki restore reconcile` and `jpki restore lift`", store.ErrFenced)
	}
	if s.keys, err = s.openHierarchy(ctx); err != nil {
		return fmt.Errorf("open hierarchy: %w", err)
	}
	loops, err := s.openZones(ctx)
	if err != nil {
		return err
	}
	defer func() { _, _, _ = s.reader.Close(), s.answers.Close(), s.tenants.Close() }()
	services[0].Handler, services[0].TLS = s.station, &tls.Config{Certificates: []tls.Certificate{s.keys.server}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	services[2].Handler = http.HandlerFunc(s.serveBank)
	services[3].Handler = boot.Admin(s.ready, s.metrics()...)
	services[4].Handler, services[4].TLS = s.enrolment, services[0].TLS
	public := services[1].Listener // of the status zone, which has a server of its own
	services = slices.Delete(services, 1, 2)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	loops = append(loops, boot.Serve("status", s.front, public), func(ctx context.Context) error {
		defer stop() // nothing runs on without the story's process
		err := s.live(ctx)
		if s.opt.Once && errors.Is(err, context.Canceled) {
			return errors.New("stopped before the story had ended")
		}
		return err
	})
	defer func() { err = errors.Join(err, s.checkpoint(context.WithoutCancel(ctx)), s.index.Save()) }()
	return boot.Run(ctx, s.log, services, loops...)
}

// live is what the sandbox does once its services are up.
func (s *System) live(ctx context.Context) error {
	if err := s.waitReady(ctx); err != nil {
		return err
	}
	if err := s.makeSamples(ctx); err != nil {
		return fmt.Errorf("make samples: %w", err)
	}
	if s.opt.Samples {
		if err := s.writeSamples(ctx); err != nil {
			return fmt.Errorf("make samples of answers: %w", err)
		}
	}
	if err := s.env.write(s.dir.path("env")); err != nil {
		return fmt.Errorf("write environment: %w", err)
	}
	defer func() { _ = os.Remove(s.dir.path("env")) }()
	if err := s.tellLife(ctx); err != nil {
		return err
	}
	if s.opt.Once {
		return nil
	}
	s.tellAddresses()
	if s.opt.Live > 0 {
		return s.liveOn(ctx)
	}
	<-ctx.Done()
	return nil
}

// waitReady waits until every zone answers.
func (s *System) waitReady(ctx context.Context) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := s.ready()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after 30 s: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A dir is the sandbox's directory. What belongs to one zone lies in one folder.
type dir string

func (d dir) path(parts ...string) string {
	return filepath.Join(append([]string{string(d)}, parts...)...)
}

func (d dir) make() error {
	for _, p := range []string{"authority", "status", "infrastructure", "cards", "sample", "verifier", filepath.Join("public", "ca"), filepath.Join("public", "crl"), filepath.Join("public", "snapshot")} {
		if err := os.MkdirAll(d.path(p), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// lock keeps a second sandbox out of the directory.
func (d dir) lock() (unlock func(), err error) {
	f, err := os.OpenFile(d.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another sandbox runs in %s", d)
	}
	return func() { _ = f.Close() }, nil
}

// inUse reports whether a sandbox runs in the directory.
func (d dir) inUse() bool {
	unlock, err := d.lock()
	if err == nil {
		unlock()
	}
	return err != nil
}

// system is the actor of what the sandbox does to itself.
var system = jpki.Actor{Role: jpki.System, ID: "sandbox"}

func newSerial() (jpki.Serial, error) { return jpki.NewSerial(rand.Reader) }

func poolOf(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

package main

import (
	"bytes"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store/storetest"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/ocsp/cache/redistest"
)

// What the authority commits is what is answered, from either engine, with Redis and without; the end of the process saves
// the view, and the next begins with it.
func TestServe(t *testing.T) {
	t.Parallel()
	storetest.EachEngine(t, func(t *testing.T, fresh func(*testing.T) string) {
		w := newWorld(t, fresh(t), "RSA")
		w.delegate("a", "P-256")
		w.delegate("b", "RSA")
		alive, lost, ended, never, later := newSerial(t), newSerial(t), newSerial(t), newSerial(t), newSerial(t)
		w.set(good, alive, lost)
		w.set(revoked, ended)
		redis := redistest.Start(t)
		w.write("secret", bytes.Repeat([]byte("s"), 32))
		config := w.config(map[string]string{"redis": "{addresses: ['" + redis.Addr() + "'], secret_file: secret}"}, "a", "b")
		s := w.serve(config)
		if s.certificates != 0 {
			t.Errorf("there was no snapshot, but %d certificates are known", s.certificates)
		}
		s.want(alive, xocsp.Good, 0)
		s.want(lost, xocsp.Good, 0)
		s.want(ended, xocsp.Revoked, int(jpki.AffiliationChanged))
		s.want(never, xocsp.Unknown, 0)

		// What the database says is said within the bound; what is new, at once.
		w.set(suspended, lost)
		w.set(good, later)
		s.want(later, xocsp.Good, 0)
		s.until("the suspension is answered", func() bool {
			got, err := s.ask(lost)
			return err == nil && got.Status == xocsp.Revoked && got.RevocationReason == int(jpki.CertificateHold)
		})

		code, body := s.get("/readyz")
		if code != http.StatusOK || body != "ready\n" {
			t.Errorf("ready: %d %q", code, body)
		}
		_, metrics := s.get("/metrics")
		for _, want := range []string{
			`jpki_ocsp_responses_total{outcome="good"}`, `jpki_ocsp_sources_total{outcome="signed"}`, `jpki_ocsp_listener_total{outcome="exchanged"}`,
			`jpki_status_log_total{outcome="database"}`, "jpki_status_certificates 4\n", "jpki_status_snapshot_failed 0\n", "jpki_status_view_age_seconds ", "jpki_ocsp_connections ",
			`jpki_ocsp_memory_total{outcome=`, `jpki_ocsp_redis_total{outcome=`,
		} {
			if !strings.Contains(metrics, want) {
				t.Errorf("no metric %s", want)
			}
		}
		if code := s.stop(); code != 0 {
			t.Fatalf("exit code %d", code)
		}

		s = w.serve(config)
		if s.certificates != 4 {
			t.Errorf("the snapshot has %d certificates, want 4", s.certificates)
		}
		s.want(lost, xocsp.Revoked, int(jpki.CertificateHold))
		s.want(alive, xocsp.Good, 0)
		if code := s.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}

// SIGTERM answers what was begun: every client gets an answer or cannot connect, none half of one.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "sqlite:"+t.TempDir()+"/ca.db", "P-256")
	w.delegate("a", "P-256")
	serial := newSerial(t)
	w.set(good, serial)
	s := w.serve(w.config(nil, "a"))
	answered, failed := make(chan int), make(chan error)
	for range 4 {
		go func() {
			for n := 0; ; n++ {
				got, err := s.ask(serial)
				if err != nil {
					failed <- err
					answered <- n
					return
				}
				if got.Status != xocsp.Good {
					t.Errorf("status %d", got.Status)
				}
			}
		}()
	}
	s.until("answers", func() bool {
		_, metrics := s.get("/metrics")
		return strings.Contains(metrics, `jpki_ocsp_responses_total{outcome="good"}`)
	})
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for range 4 {
		// The listener is gone, or it closed a connection that was on its way to us: nobody got half an answer.
		if err := <-failed; !strings.Contains(err.Error(), "connection refused") && !strings.Contains(err.Error(), "connection reset") && !strings.HasSuffix(err.Error(), "EOF") {
			t.Error(err)
		}
		<-answered
	}
	if info, err := os.Stat(w.path("status.snapshot")); err != nil || info.Size() == 0 {
		t.Errorf("no snapshot: %v", err)
	}
}

// A delegate that is replaced on disk answers soon, and one that does not fit together leaves the old one in office.
func TestReplacedDelegates(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the look at the files")
	}
	t.Parallel()
	w := newWorld(t, "sqlite:"+t.TempDir()+"/ca.db", "P-256")
	first := w.delegate("a", "P-256")
	serial := newSerial(t)
	w.set(good, serial)
	s := w.serve(w.config(map[string]string{"memory": "0"}, "a"))
	signer := func() []byte {
		got, err := s.ask(serial)
		if err != nil {
			t.Fatal(err)
		}
		return got.Certificate.Raw
	}
	if !bytes.Equal(signer(), first.Raw) {
		t.Error("somebody else answers")
	}
	old, err := os.ReadFile(w.path("a.key"))
	if err != nil {
		t.Fatal(err)
	}
	second := w.delegate("a", "P-256")
	key, err := os.ReadFile(w.path("a.key"))
	if err != nil {
		t.Fatal(err)
	}
	w.write("a.key", old)
	s.until("the wrong key is noticed", func() bool { return strings.Contains(s.said(), "key is not that of the certificate") })
	if !bytes.Equal(signer(), first.Raw) {
		t.Error("the old delegate left office")
	}
	w.write("a.key", key) // the certificate has not changed since
	s.until("the new delegate is taken up", func() bool { return strings.Contains(s.said(), "replaced delegates are taken up") })
	s.until("the new delegate answers", func() bool { // it takes over in the course of minutes, certificate by certificate
		for range 20 {
			id := newSerial(t)
			w.set(good, id)
			if got, err := s.ask(id); err == nil && bytes.Equal(got.Certificate.Raw, second.Raw) {
				return true
			}
		}
		return false
	})
}

// readyz says when nothing can be answered, and why; a snapshot that could not be read is worth a note only. A role that
// loses a right and gets it back is a database that fails and comes back.
func TestReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.Postgres(t), "P-256")
	w.delegate("a", "P-256")
	serial := newSerial(t)
	w.set(good, serial)
	owner := w.database
	role := "status_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	w.role(role)
	w.write("status.snapshot", []byte("this is no snapshot"))
	s := w.serve(w.config(nil, "a"))
	s.until("ready", func() bool { code, _ := s.get("/readyz"); return code == http.StatusOK })
	if _, body := s.get("/readyz"); !strings.Contains(body, "ready, but the snapshot of statuses is not up to date") {
		t.Errorf("%q", body)
	}
	if _, metrics := s.get("/metrics"); !strings.Contains(metrics, "jpki_status_snapshot_failed 1\n") {
		t.Error("the metric does not say that the snapshot is not used")
	}
	s.want(serial, xocsp.Good, 0)

	storetest.Exec(t, owner, "REVOKE SELECT ON status_log FROM "+role)
	s.until("not ready", func() bool { code, _ := s.get("/readyz"); return code == http.StatusServiceUnavailable })
	if _, body := s.get("/readyz"); !strings.Contains(body, "the view of statuses is") || !strings.Contains(body, "permission denied") {
		t.Errorf("%q", body)
	}
	if got, err := s.ask(serial); err == nil || !strings.Contains(err.Error(), "try later") {
		t.Errorf("an answer from a view that is too old: %+v, %v", got, err)
	}
	if code, _ := s.get("/healthz"); code != http.StatusOK {
		t.Error("not healthy: to start it anew would help nobody")
	}
	storetest.Exec(t, owner, "GRANT SELECT ON status_log TO "+role)
	s.until("ready again", func() bool { code, _ := s.get("/readyz"); return code == http.StatusOK })
	s.want(serial, xocsp.Good, 0)
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if s = w.serve(w.path("status.yaml")); s.certificates != 1 {
		t.Errorf("the snapshot that replaced the bad one has %d certificates, want 1", s.certificates)
	}
}

// A snapshot that cannot be written is a failure at the end, not a silence.
func TestUnsavedSnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "sqlite:"+t.TempDir()+"/ca.db", "P-256")
	w.delegate("a", "P-256")
	serial := newSerial(t)
	w.set(good, serial)
	s := w.serve(w.config(map[string]string{"snapshot": "no/such/folder/status.snapshot"}, "a"))
	s.want(serial, xocsp.Good, 0)
	if code := s.stop(); code != boot.ExitFailure || !strings.Contains(s.said(), "snapshot") {
		t.Errorf("exit code %d", code)
	}
}

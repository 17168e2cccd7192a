package ca_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// commands are all that change something, each with what it needs prepared; a token of its own lets it be given again.
func (w *world) commands() map[string]func() error {
	born := jpki.NewBirthDate(1980, 2, 17)
	id := w.newest("h1", jpki.CardSign).ID
	renewal := w.request("h1", "card-1", card...)
	requests := map[string]ca.IssueRequest{"issue": w.request("h1", "card-2", card...), "issue one": w.request("h1", "card-3", jpki.CardAuth)}
	change := func(do func(context.Context, jpki.Actor, ca.ChangeRequest) ([]ca.Changed, error), by jpki.Actor, r ca.ChangeRequest) func() error {
		r.IdempotencyKey = w.name()
		return func() error { _, err := do(w.t.Context(), by, r); return err }
	}
	elsewhere := attributes(born)
	elsewhere.Address = "砂箱県青葉市北町" + w.name() + "番"
	event := jpki.Event{ID: w.name(), Holder: "h1", Type: jpki.AddressChanged, EffectiveAt: w.now, Municipality: "99101", Attributes: elsewhere}
	waiting := jpki.Event{ID: w.name(), Holder: "h1", Type: jpki.GuardianshipBegan, EffectiveAt: w.now.Add(time.Hour)}
	out := map[string]func() error{
		"renew":   func() error { _, err := w.a.Renew(w.t.Context(), counter, renewal); return err },
		"suspend": change(w.a.Suspend, centre, ca.ChangeRequest{Token: "card-1", Cause: jpki.Lost}),
		"revoke":  change(w.a.Revoke, counter, ca.ChangeRequest{Certificate: &id, Cause: jpki.KeyCompromised}),
		"event":   func() error { _, err := w.event(event); return err },
		"waiting": func() error { _, err := w.event(waiting); return err },
	}
	key := w.name()
	out["deliver"] = func() error { _, err := w.a.Deliver(w.t.Context(), counter, key, "card-1"); return err }
	for name, r := range requests {
		out[name] = func() error { _, err := w.a.Issue(w.t.Context(), counter, r); return err }
	}
	return out
}

// What cannot be recorded does not happen: whichever of the records cannot be written, no command does anything, and status
// answers go on.
func TestNothingHappensThatCannotBeRecorded(t *testing.T) {
	for _, table := range []string{"audit", "status_log", "certificate_status"} {
		t.Run(table, func(t *testing.T) {
			storetest.EachEngine(t, func(t *testing.T, fresh func(*testing.T) string) {
				database := fresh(t)
				w := newWorld(t, storetest.Create(t, database))
				w.issue("h1", "card-1", card...)
				w.now = time.Date(2031, 2, 1, 9, 0, 0, 0, jpki.JST)
				w.check()
				before := w.invariants()
				commands := w.commands()
				var allow []string
				if strings.HasPrefix(database, "sqlite:") {
					for _, verb := range []string{"INSERT", "UPDATE"} {
						storetest.Exec(t, database, fmt.Sprintf("CREATE TRIGGER stop_%s BEFORE %s ON %s BEGIN SELECT RAISE(ABORT, 'stopped'); END", verb, verb, table))
						allow = append(allow, "DROP TRIGGER stop_"+verb)
					}
				} else {
					storetest.Exec(t, database, "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'stopped'; END $$",
						"CREATE TRIGGER stop BEFORE INSERT OR UPDATE ON "+table+" FOR EACH ROW EXECUTE FUNCTION stop()")
					allow = []string{"DROP TRIGGER stop ON " + table}
				}
				for name, give := range commands {
					quiet := table != "audit" && (name == "deliver" || name == "waiting") // they change no status
					if err := give(); !quiet && jpki.ProblemOf(err) != jpki.Internal && jpki.ProblemOf(err) != jpki.Unavailable {
						t.Errorf("%s: %v, want a refusal", name, err)
					} else if err == nil && !quiet {
						t.Errorf("%s went unrecorded", name)
					}
				}
				if after := w.invariants(); len(after) != len(before) || len(before) != 2 {
					t.Errorf("%d statuses before, %d after", len(before), len(after))
				}
				w.check()
				storetest.Exec(t, database, allow...)
				if _, err := w.a.Reconcile(t.Context(), 0); err != nil {
					t.Error(err)
				}
				w.check()
				for _, name := range []string{"renew", "event", "suspend"} { // in an order in which each is still possible
					if err := commands[name](); err != nil {
						t.Errorf("%s after it could be recorded again: %v", name, err)
					}
				}
				w.check()
			})
		})
	}
}

// A role that may no longer write the audit record is told from a database that is gone: the one is our fault.
func TestWithoutThePrivilegeToWrite(t *testing.T) {
	t.Parallel()
	c := storetest.NewCluster(t)
	c.Database("ca")
	w := newWorld(t, storetest.Create(t, c.URL("ca")))
	w.issue("h1", "card-1", card...)
	storetest.Exec(t, c.URL("ca"), "ALTER TABLE audit OWNER TO pg_monitor", "CREATE ROLE authority LOGIN", "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO authority", "REVOKE INSERT ON audit FROM authority")
	w.db = storetest.Open(t, strings.Replace(c.URL("ca"), "postgres@", "authority@", 1))
	w.restart(w.issuers)
	for name, give := range w.commands() {
		if err := give(); name != "renew" && jpki.ProblemOf(err) != jpki.Internal {
			t.Errorf("%s: %v, want %s", name, err, jpki.Internal)
		}
	}
	if log := w.invariants(); len(log) != 2 {
		t.Errorf("%d statuses, want 2", len(log))
	}
	w.check()
	storetest.Exec(t, c.URL("ca"), "GRANT INSERT ON audit TO authority")
	w.issue("h1", "card-2", card...)
	w.check()
}

// Connections break in the middle of things. What was not committed is tried again on another; where the commit itself was
// cut off the caller is told so, and finds out by repeating the request.
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	kill := `CREATE SEQUENCE bomb;
		CREATE FUNCTION explode() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('bomb') <= TG_ARGV[0]::int THEN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(60); END IF;
			RETURN NULL;
		END $$;`
	for name, c := range map[string]struct {
		trigger string
		want    jpki.Problem
	}{
		"in the first transaction":       {"CREATE TRIGGER bomb AFTER INSERT ON intent FOR EACH ROW EXECUTE FUNCTION explode(1)", ""},
		"in the second transaction":      {"CREATE TRIGGER bomb AFTER INSERT ON certificate FOR EACH ROW EXECUTE FUNCTION explode(3)", ""},
		"in the first commit":            {"CREATE CONSTRAINT TRIGGER bomb AFTER INSERT ON intent DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION explode(1)", jpki.Unavailable},
		"in the second commit":           {"CREATE CONSTRAINT TRIGGER bomb AFTER INSERT ON certificate DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION explode(1)", jpki.Unavailable},
		"every time":                     {"CREATE TRIGGER bomb AFTER INSERT ON intent FOR EACH ROW EXECUTE FUNCTION explode(1000)", jpki.Unavailable},
		"in the commit of an abandoning": {"CREATE CONSTRAINT TRIGGER bomb AFTER INSERT ON certificate_status DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION explode(2)", jpki.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			database := storetest.Postgres(t)
			w := newWorld(t, storetest.Create(t, database))
			w.issue("h1", "card-1", card...)
			storetest.Exec(t, database, kill, c.trigger)
			req := w.request("h1", "card-2", card...)
			got, err := w.a.Issue(t.Context(), counter, req)
			if problemOf(err) != c.want {
				t.Errorf("got %v %v, want %q", got, err, c.want)
			}
			w.invariants()
			storetest.Exec(t, database, "SELECT setval('bomb', 9000)")
			if _, err := w.a.Reconcile(t.Context(), 0); err != nil {
				t.Error(err)
			}
			again, err := w.a.Issue(t.Context(), counter, req)
			if err != nil || len(again) != 2 || len(got) > 0 && got[0].ID != again[0].ID {
				t.Errorf("repeated: %v %v", again, err)
			}
			w.check()
		})
	}
	t.Run("between the transactions", func(t *testing.T) {
		database := storetest.Postgres(t)
		w := newWorld(t, storetest.Create(t, database))
		w.between(func() {
			storetest.Exec(t, database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()")
		})
		w.issue("h1", "card-1", card...)
		w.check()
	})
}

// A stream of requests keeps a few stations busy and repeats each until it is answered, as a station does.
type stream struct {
	w        *world
	wg       sync.WaitGroup
	mu       sync.Mutex
	answered map[string][]ca.Issued // by idempotency key
	asked    map[string]ca.IssueRequest
	told     map[jpki.Problem]int
}

func (w *world) stream(stations, requests int) *stream {
	s := &stream{w: w, answered: map[string][]ca.Issued{}, asked: map[string]ca.IssueRequest{}, told: map[jpki.Problem]int{}}
	todo := make([][]ca.IssueRequest, stations)
	for n := range todo {
		holder := fmt.Sprint("s", n)
		w.register(holder, "99101", jpki.NewBirthDate(1980, 2, 17))
		for i := range requests {
			todo[n] = append(todo[n], w.request(holder, fmt.Sprintf("%s-card-%d", holder, i), card...))
		}
	}
	for _, mine := range todo {
		s.wg.Go(func() {
			for _, r := range mine {
				if !s.ask(r) {
					return
				}
			}
		})
	}
	return s
}

// ask repeats a request until it is answered or a minute has passed.
func (s *stream) ask(r ca.IssueRequest) bool {
	s.mu.Lock()
	s.asked[r.IdempotencyKey] = r
	s.mu.Unlock()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var got []ca.Issued
		got, err = s.w.a.Issue(context.Background(), counter, r)
		s.mu.Lock()
		s.told[problemOf(err)]++
		if err == nil {
			s.answered[r.IdempotencyKey] = got
		}
		s.mu.Unlock()
		switch problemOf(err) {
		case "":
			return true
		case jpki.InProgress: // what the dead process would have been found to have left
			_, _ = s.w.a.Reconcile(context.Background(), 0)
		case jpki.Unavailable, jpki.Conflict:
		default:
			s.w.t.Errorf("a station was told %v", err)
			return false
		}
	}
	s.w.t.Errorf("no answer within a minute: %v", err)
	return false
}

// after waits until so many requests have been answered.
func (s *stream) after(n int) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		have := len(s.answered)
		s.mu.Unlock()
		if have >= n {
			return
		}
	}
	s.w.t.Errorf("%d answers do not come", n)
}

// end waits for the stations and checks that every answer holds.
func (s *stream) end() {
	s.w.t.Helper()
	s.wg.Wait()
	if _, err := s.w.a.Reconcile(context.Background(), 0); err != nil {
		s.w.t.Error(err)
	}
	for key, r := range s.asked {
		again, err := s.w.a.Issue(context.Background(), counter, r)
		if err != nil || len(again) != 2 || len(s.answered[key]) != 2 || !slices.Equal(again[0].Certificate, s.answered[key][0].Certificate) || !slices.Equal(again[1].Certificate, s.answered[key][1].Certificate) {
			s.w.t.Errorf("request %s has another answer now: %v", key, err)
		}
	}
	s.w.check()
	s.w.t.Logf("%d requests, told %v", len(s.asked), s.told)
}

func TestTheDatabaseRestartsInTheMiddle(t *testing.T) {
	t.Parallel()
	c := storetest.NewCluster(t)
	c.Database("ca")
	w := newWorld(t, storetest.Create(t, c.URL("ca")))
	w.check()
	s := w.stream(3, 5)
	for _, n := range []int{2, 7} {
		s.after(n)
		c.Stop()
		if n == 2 {
			if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: "s0-card-0", Cause: jpki.Lost}); !errors.Is(err, jpki.Unavailable) {
				t.Errorf("without a database: %v", err)
			}
			if _, err := w.a.Certificates(t.Context(), counter, "s0-card-0"); !errors.Is(err, jpki.Unavailable) {
				t.Errorf("without a database: %v", err)
			}
		}
		c.Start()
	}
	s.end()
}

// The server that is written to dies for good, between an issuance's transactions and in the middle of others, and the
// standby takes its place. With synchronous replication nothing that was answered is lost: certificates, statuses, audit
// record, and the place of those who follow the log.
func TestTheDatabaseFailsOver(t *testing.T) {
	t.Parallel()
	primary := storetest.NewCluster(t)
	primary.Database("ca")
	storetest.Create(t, primary.URL("ca"))
	standby := primary.Standby()
	w := newWorld(t, storetest.Open(t, primary.URL("ca", standby)))
	w.issue("h1", "card-1", card...)
	w.check()
	var signatures atomic.Int64
	w.during(func() {
		if signatures.Add(1) == 10 {
			primary.Stop()
			standby.Promote()
		}
	})
	s := w.stream(3, 5)
	s.end()
}

// A full disk: SQLite's file may not grow beyond a limit that the process sets itself.
func TestTheDiskIsFull(t *testing.T) {
	t.Parallel()
	if path := os.Getenv("JPKI_TEST_FULL_DISK"); path != "" {
		fillDisk(t, path)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTheDiskIsFull$", "-test.v") //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), "JPKI_TEST_FULL_DISK="+filepath.Join(t.TempDir(), "ca.sqlite"))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "the disk was full") {
		t.Errorf("%v\n%s", err, out)
	}
}

func fillDisk(t *testing.T, path string) {
	w := newWorld(t, storetest.Create(t, "sqlite:"+path))
	w.issue("h1", "card-1", card...)
	w.check()
	key(t, 60)
	size := int64(0)
	for _, name := range []string{path, path + "-wal"} {
		if info, err := os.Stat(name); err == nil {
			size = max(size, info.Size())
		}
	}
	var unlimited syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &unlimited); err != nil {
		t.Fatal(err)
	}
	limit := func(octets uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: octets, Max: unlimited.Max}); err != nil {
			t.Fatal(err)
		}
	}
	full := 0
	for n := range 20 {
		limit(uint64(size) + uint64(n)*7_001)
		for range 3 {
			r := w.request("h1", w.name(), card...)
			w.nextKey -= 2
			_, err := w.a.Issue(t.Context(), counter, r)
			if err == nil {
				w.nextKey += 2
				continue
			}
			if full++; !errors.Is(err, jpki.Unavailable) {
				t.Errorf("on a full disk: %v", err)
			}
			limit(unlimited.Cur)
			w.invariants()
			if _, err := w.a.Reconcile(t.Context(), 0); err != nil {
				t.Error(err)
			}
			if got, err := w.a.Issue(t.Context(), counter, r); err != nil || len(got) != 2 {
				t.Errorf("when there was room again: %v", err)
			}
			w.nextKey += 2
			break
		}
	}
	w.check()
	t.Logf("the disk was full %d times", full)
	if full < 10 {
		t.Error("so seldom?")
	}
}

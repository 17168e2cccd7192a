package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/backup"
	"github.com/openjpki/jpki/ca/relay"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/ocsp/status"
)

// restoreFlags are common to all that restores.
type restoreFlags struct {
	database databaseFlag
	operator string
}

func (f *restoreFlags) add(c *cobra.Command) {
	f.database.add(c)
	c.Flags().StringVar(&f.operator, "operator", "", "who orders it: goes into the audit record")
}

// open returns what reconciles the database.
func (f *restoreFlags) open(c *cobra.Command) (*ca.Restored, error) {
	if f.operator == "" {
		return nil, usageError{errors.New("-operator is required")}
	}
	db, err := f.database.open(c)
	if err != nil {
		return nil, err
	}
	return &ca.Restored{Store: db, Now: time.Now, Rand: rand.Reader, By: ca.Operator(f.operator)}, nil
}

func restoreCommand() *cobra.Command {
	var f restoreFlags
	var key string
	c := &cobra.Command{
		Use: "restore FILE", Short: "Fill an empty database with a backup, reconcile it, and open it again",
		Long: `Fills a database that is new or empty with a backup, all of it or nothing, and leaves it fenced: the authority issues and changes
nothing, and status servers answer tryLater, until the database has been reconciled with what was published after the backup
and the fence is lifted. What was restored by other means, such as PostgreSQL's own, is fenced by "jpki restore fence".`,
		Example: `  jpki restore -key backup.key -operator sato monday.backup
  jpki restore reconcile -operator sato -crl var/sandbox/public/crl -key backup.key -records monday-0905.records
  jpki restore lift -operator sato`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if f.operator == "" {
				return usageError{errors.New("-operator is required")}
			}
			k, err := readKey(key)
			if err != nil {
				return err
			}
			file, in, err := openBackup(c.Context(), args[0], "restore")
			if err != nil {
				return err
			}
			defer func() { _ = file.Close() }()
			db, err := store.Create(c.Context(), f.database.name(c))
			if err != nil {
				in.end(err)
				return err
			}
			defer func() { err = errors.Join(err, db.Close()) }()
			m, err := backup.Restore(c.Context(), db, in, k, ca.Operator(f.operator), time.Now())
			in.end(err)
			if err != nil {
				return err
			}
			printManifest(c.OutOrStdout(), m)
			fmt.Fprintln(c.OutOrStdout(), "fenced       until `jpki restore reconcile` and `jpki restore lift`")
			return nil
		},
	}
	f.add(c)
	c.Flags().StringVar(&key, "key", "", "the key file")
	c.AddCommand(restoreFenceCommand(), restoreReconcileCommand(), restoreLiftCommand())
	return c
}

func restoreFenceCommand() *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use: "fence", Short: "Put a fence around a database that was restored by other means",
		Long: `To be run before anything else is connected to the database, after a recovery to a point in time or from a copy of the disk.
Around a fenced database it does nothing.`,
		Example: "  jpki restore fence -operator sato -database postgres://authority@db1/ca",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			r, err := f.open(c)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Store.Close()) }()
			if err := r.Store.Fence(c.Context(), time.Now(), r.By, "restored"); err != nil {
				return err
			}
			end, err := r.RestoredTo(c.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "audit        to entry %d\nstatus log   to entry %d\nfenced       until `jpki restore reconcile` and `jpki restore lift`\n", end.Audit, end.Status)
			return nil
		},
	}
	f.add(c)
	return c
}

// sourceFlags name what a database is reconciled with.
type sourceFlags struct {
	lists   []string
	records []string
	indexes []string
	seen    []string
	relay   string
	key     string
	beyond  int64
}

func restoreReconcileCommand() *cobra.Command {
	var f restoreFlags
	var s sourceFlags
	c := &cobra.Command{
		Use: "reconcile", Short: "Make a restored database say at least what others have seen",
		Long: `Reads what was published or recorded after the backup and enters it: what a CRL or a copy of the log has suspended or revoked is
so again, and a certificate that the database does not know is revoked, for its contents are lost. No certificate becomes
better. The status log first goes on beyond the highest position that anybody has read. It may be repeated, with more sources.

  -crl      a folder as it is published; lists are verified with the CA certificates in the database
  -records  what "jpki backup -after" wrote since the backup; each must begin where another, or the backup, has not ended
  -index    a status server's snapshot file
  -relay    a relay's configuration: what it has copied to Redis
  -seen     certificates seen by anybody, one a line, such as sign-1/0A1B…; # begins a comment`,
		Example: `  jpki restore reconcile -operator sato -crl var/sandbox/public/crl
  jpki restore reconcile -operator sato -key backup.key -records a.records -index status.index -seen seen.txt`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			r, err := f.open(c)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Store.Close()) }()
			sources, beyond, err := s.open(c.Context(), r)
			if err != nil {
				return err
			}
			bars, bar := progress(c.Context(), "status log", 0, 0)
			taken, err := r.Advance(c.Context(), beyond, func(done, total int64) { bar.SetTotal(total, false); bar.SetCurrent(done) })
			bar.SetTotal(-1, true)
			bars.Wait()
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			fmt.Fprintf(out, "%-12s goes on behind position %d, %d taken for the new timeline\n", "status log", beyond, taken)
			for _, source := range sources {
				sum, err := r.Reconcile(c.Context(), source.name, source.seen)
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "%-12s %d seen, %d agreed, %d suspended, %d revoked, %d unknown, %d followed\n", source.name, sum.Seen, sum.Agreed, sum.Suspended, sum.Revoked, sum.Unknown, sum.Followed)
			}
			return nil
		},
	}
	f.add(c)
	c.Flags().StringArrayVar(&s.lists, "crl", nil, "a folder of published CRLs")
	c.Flags().StringArrayVar(&s.records, "records", nil, "a backup of records made after the one restored")
	c.Flags().StringArrayVar(&s.indexes, "index", nil, "a status server's snapshot file")
	c.Flags().StringArrayVar(&s.seen, "seen", nil, "a file of certificates seen")
	c.Flags().StringVar(&s.relay, "relay", "", "the configuration of a relay")
	c.Flags().StringVar(&s.key, "key", "", "the key file of the records")
	c.Flags().Int64Var(&s.beyond, "beyond", 0, "a position of the status log that somebody has seen, if no source knows it")
	return c
}

func restoreLiftCommand() *cobra.Command {
	var f restoreFlags
	var without bool
	c := &cobra.Command{
		Use: "lift", Short: "Lift the fence around a reconciled database",
		Long: `Says what the database was reconciled with, writes it into the audit record and lifts the fence: the authority works again, and
status servers follow the new timeline of the log by themselves. Publish every CRL anew then.`,
		Example: "  jpki restore lift -operator sato",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			r, err := f.open(c)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Store.Close()) }()
			l, err := r.Lift(c.Context(), without)
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			fmt.Fprintf(out, "restored     %s\n", l.Restored.Format(time.RFC3339))
			for _, s := range l.Sources {
				fmt.Fprintln(out, "with         "+s)
			}
			fmt.Fprintf(out, "lifted       the status log goes on behind position %d\n", l.Position)
			return nil
		},
	}
	f.add(c)
	c.Flags().BoolVar(&without, "without-sources", false, "nobody has seen anything since the backup, I am sure")
	return c
}

// A source is what one place has seen.
type source struct {
	name string
	seen iter.Seq2[ca.Sighting, error]
}

// open opens and checks all sources, and finds the highest position that any has seen.
func (s *sourceFlags) open(ctx context.Context, r *ca.Restored) (sources []source, beyond int64, err error) {
	beyond = s.beyond
	for _, dir := range s.lists {
		issuers, err := issuersOf(ctx, r.Store)
		if err != nil {
			return nil, 0, err
		}
		position, err := crl.Positions(dir)
		if err != nil {
			return nil, 0, err
		}
		found, err := findLists(dir, issuers)
		if err != nil {
			return nil, 0, err
		}
		beyond = max(beyond, position)
		sources = append(sources, source{"CRLs", readLists(dir, issuers, found)})
	}
	if len(s.records) > 0 {
		some, position, err := s.openRecords(ctx, r)
		if err != nil {
			return nil, 0, err
		}
		beyond, sources = max(beyond, position), append(sources, some)
	}
	for _, path := range s.indexes {
		copied, err := status.OpenCopy(path)
		if err != nil {
			return nil, 0, err
		}
		beyond = max(beyond, copied.Position)
		sources = append(sources, source{"status index", func(yield func(ca.Sighting, error) bool) {
			for id, st := range copied.All() {
				if !yield(ca.Sighting{ID: id, Status: st, AsOf: copied.Created}, nil) {
					return
				}
			}
		}})
	}
	if s.relay != "" {
		log, position, err := s.openRelay(ctx)
		if err != nil {
			return nil, 0, err
		}
		beyond, sources = max(beyond, position), append(sources, source{"Redis", sightingsOf(log)})
	}
	for _, path := range s.seen {
		ids, err := readSeen(path)
		if err != nil {
			return nil, 0, err
		}
		sources = append(sources, source{"seen", func(yield func(ca.Sighting, error) bool) {
			for _, id := range ids {
				if !yield(ca.Sighting{ID: id, Status: jpki.Status{State: jpki.Good}}, nil) {
					return
				}
			}
		}})
	}
	return sources, beyond, nil
}

func issuersOf(ctx context.Context, db *store.Store) (map[jpki.IssuerID]*x509.Certificate, error) {
	out := map[jpki.IssuerID]*x509.Certificate{}
	return out, db.View(ctx, func(tx *store.Tx) error {
		generations, err := tx.Generations()
		if err != nil {
			return err
		}
		for _, g := range generations {
			if out[g.Issuer], err = x509.ParseCertificate(g.Certificate); err != nil {
				return fmt.Errorf("read generation %s: %w", g.Issuer, err)
			}
		}
		return nil
	})
}

// findLists finds the lists in a folder and verifies all of them before any is believed.
func findLists(dir string, issuers map[jpki.IssuerID]*x509.Certificate) (found []crl.ID, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".crl") || strings.HasPrefix(e.Name(), ".") {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		id, err := crl.ParsePath(filepath.ToSlash(name))
		if err != nil {
			return fmt.Errorf("%s is not where a CRL lies: %w", name, err)
		}
		if issuers[id.Issuer] == nil {
			return fmt.Errorf("%s: generation %s is younger than the backup: record it first", name, id.Issuer)
		}
		found = append(found, id)
		_, err = readList(dir, issuers, id, nil)
		return err
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no CRLs in %s", dir)
	}
	return found, err
}

func readList(dir string, issuers map[jpki.IssuerID]*x509.Certificate, id crl.ID, visit func(crl.Entry) error) (*crl.Head, error) {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(id.Path())))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	head, err := crl.Read(f, issuers[id.Issuer], visit)
	if err != nil {
		return nil, fmt.Errorf("read CRL %s: %w", id, err)
	}
	return head, nil
}

var errStop = errors.New("no more is wanted")

// readLists walks the entries of lists that were verified.
func readLists(dir string, issuers map[jpki.IssuerID]*x509.Certificate, found []crl.ID) iter.Seq2[ca.Sighting, error] {
	return func(yield func(ca.Sighting, error) bool) {
		for _, id := range found {
			head, err := readList(dir, issuers, id, nil) // again, for its time
			if err == nil {
				_, err = readList(dir, issuers, id, func(e crl.Entry) error {
					s := ca.Sighting{
						ID: jpki.CertID{Issuer: id.Issuer, Serial: e.Serial}, Partition: id.Partition, AsOf: head.ThisUpdate,
						Status: jpki.Status{State: jpki.Revoked, Reason: e.Reason, Since: e.At},
					}
					switch e.Reason {
					case jpki.RemoveFromCRL:
						return nil
					case jpki.CertificateHold:
						s.Status.State = jpki.Suspended
					}
					if !yield(s, nil) {
						return errStop
					}
					return nil
				})
			}
			if errors.Is(err, errStop) {
				return
			}
			if err != nil {
				yield(ca.Sighting{}, err)
				return
			}
		}
	}
}

// openRecords reads all backups of records. What they tell is held in memory: it is what happened since one backup.
func (s *sourceFlags) openRecords(ctx context.Context, r *ca.Restored) (source, int64, error) {
	k, err := readKey(s.key)
	if err != nil {
		return source{}, 0, err
	}
	end, err := r.RestoredTo(ctx)
	if err != nil {
		return source{}, 0, err
	}
	var read []*backup.Manifest
	log := newestStatuses{}
	begun := map[jpki.CertID]bool{}
	for _, path := range s.records {
		f, in, err := openBackup(ctx, path, "records")
		if err != nil {
			return source{}, 0, err
		}
		m, err := backup.Read(ctx, in, k, backup.Visitor{Change: log.add, Entry: func(e audit.Entry) error {
			if id, err := jpki.ParseCertID(e.Subject); err == nil && e.Action == "issue.intent" {
				begun[id] = true
			}
			return nil
		}})
		in.end(err)
		if err = errors.Join(err, f.Close()); err == nil && m.After == nil {
			m.After = new(store.Position) // a whole backup, as good
		}
		if err != nil {
			return source{}, 0, fmt.Errorf("read %s: %w", path, err)
		}
		read = append(read, m)
	}
	slices.SortFunc(read, func(a, b *backup.Manifest) int { return cmp.Compare(a.After.Audit, b.After.Audit) })
	for _, m := range read {
		if m.After.Audit > end.Audit || m.After.Status > end.Status {
			return source{}, 0, fmt.Errorf("records are missing: those behind audit entry %d and status log entry %d, up to %d and %d", end.Audit, end.Status, m.After.Audit, m.After.Status)
		}
		end.Audit, end.Status = max(end.Audit, m.End.Audit), max(end.Status, m.End.Status)
	}
	// An issuance that was begun and of which no more is told: its certificate may have been signed.
	for id := range begun {
		if _, told := log[id]; !told {
			log[id] = jpki.StatusChange{ID: id, Status: jpki.Status{State: jpki.Good}}
		}
	}
	return source{"records", sightingsOf(log)}, end.Status, nil
}

// newestStatuses is the last word of a log on each certificate.
type newestStatuses map[jpki.CertID]jpki.StatusChange

func (n newestStatuses) add(c jpki.StatusChange) error {
	if c.Status.Version >= n[c.ID].Status.Version && !c.NewTimeline() {
		n[c.ID] = c
	}
	return nil
}

func sightingsOf(log newestStatuses) iter.Seq2[ca.Sighting, error] {
	order := slices.SortedFunc(maps.Values(log), func(a, b jpki.StatusChange) int { return cmp.Compare(a.Seq, b.Seq) })
	return func(yield func(ca.Sighting, error) bool) {
		for _, c := range order {
			if !yield(ca.Sighting{ID: c.ID, Status: c.Status, Partition: c.Partition, NotAfter: c.NotAfter}, nil) {
				return
			}
		}
	}
}

func (s *sourceFlags) openRelay(ctx context.Context) (log newestStatuses, position int64, err error) {
	cfg, err := readRelayConfig(s.relay)
	if err != nil {
		return nil, 0, usageError{err}
	}
	key, err := cfg.secret(cfg.KeyFile)
	if err != nil {
		return nil, 0, err
	}
	server, err := cfg.Redis.Open(cfg.dir)
	if err != nil {
		return nil, 0, err
	}
	log = newestStatuses{}
	for c, err := range relay.Copied(ctx, relay.FollowerConfig{Server: relay.Server(server), Key: key}) {
		if err != nil {
			return nil, 0, err
		}
		_ = log.add(c)
		position = max(position, c.Seq)
	}
	return log, position, nil
}

// readSeen reads certificates, one a line.
func readSeen(path string) (ids []jpki.CertID, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		id, err := jpki.ParseCertID(text)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
		ids = append(ids, id)
	}
	return ids, lines.Err()
}

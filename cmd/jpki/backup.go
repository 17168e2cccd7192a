package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki/ca/backup"
	"github.com/openjpki/jpki/ca/store"
)

// A databaseFlag names a database; the sandbox's if none is given.
type databaseFlag string

func (d *databaseFlag) add(c *cobra.Command) {
	c.Flags().StringVar((*string)(d), "database", "", "the database, sqlite:PATH or postgres://… (default: the sandbox's; passwords in ~/.pgpass)")
}

func (d *databaseFlag) name(c *cobra.Command) string {
	if *d != "" {
		return string(*d)
	}
	return "sqlite:" + filepath.Join(dirOf(c), "authority", "ca.db")
}

func (d *databaseFlag) open(c *cobra.Command) (*store.Store, error) {
	db, err := store.Open(c.Context(), d.name(c))
	if err != nil && *d == "" {
		return nil, fmt.Errorf("open the sandbox's database (has the sandbox been started once?): %w", err)
	}
	return db, err
}

func readKey(path string) (k backup.Key, err error) {
	if path == "" {
		return k, usageError{errors.New("-key is required: `jpki backup key FILE` makes one")}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return k, err
	}
	return backup.ParseKey(text)
}

// A note stands beside a backup: what it holds, and what file it is. There is nothing secret or personal in it.
type note struct {
	backup.Manifest
	Octets int64  `json:"octets"`
	SHA256 string `json:"sha256"` // of the file
}

const noteSuffix = ".json"

func readNote(path string) (*note, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	n := new(note)
	if err := json.Unmarshal(text, n); err != nil {
		return nil, fmt.Errorf("%s is not what stands beside a backup: %w", path, err)
	}
	return n, nil
}

func backupCommand() *cobra.Command {
	var database databaseFlag
	var key, out, after string
	c := &cobra.Command{
		Use: "backup", Short: "Carry the authority's database into an encrypted file",
		Long: `Writes every table, as one snapshot of the database sees it, into an encrypted file, while the authority works. FILE.json beside
it says what it holds. With -after and the .json of an earlier backup only what the audit record and the status log have got
since: small, and quick enough for every minute. A file gets its name when it is complete; one that is there is never replaced.

No keys are in a backup: neither those of CAs and responders nor the one it is encrypted with. docs/backup.md says what else to keep.`,
		Example: `  jpki backup key backup.key
  jpki backup -key backup.key -out monday.backup
  jpki backup -key backup.key -out monday-0905.records -after monday.backup.json
  jpki backup verify -key backup.key monday.backup`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			k, err := readKey(key)
			if err != nil {
				return err
			}
			if out == "" {
				return usageError{errors.New("-out is required")}
			}
			cfg := backup.Config{Key: k, Now: time.Now, Rand: rand.Reader}
			if after != "" {
				n, err := readNote(after)
				if err != nil {
					return err
				}
				cfg.After = &n.End
			}
			if cfg.Store, err = database.open(c); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, cfg.Store.Close()) }()
			return writeBackup(c, cfg, out)
		},
	}
	database.add(c)
	c.Flags().StringVar(&key, "key", "", "the key file")
	c.Flags().StringVar(&out, "out", "", "the file to be written")
	c.Flags().StringVar(&after, "after", "", "only the records behind those of this backup, given by its .json")
	c.AddCommand(backupKeyCommand(), backupVerifyCommand())
	return c
}

func writeBackup(c *cobra.Command, cfg backup.Config, out string) (err error) {
	for _, path := range []string{out, out + noteSuffix} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s exists and is not replaced", path)
		}
	}
	f, err := os.OpenFile(out+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(out + ".new")
		}
	}()
	bars, bar := progress(c.Context(), "backup", 0, 0)
	cfg.Progress = func(done, total int64) { bar.SetTotal(total, false); bar.SetCurrent(done) }
	sum := sha256.New()
	n := note{}
	m, err := backup.Write(c.Context(), countOctets(io.MultiWriter(f, sum), &n.Octets), cfg)
	if err != nil {
		bar.Abort(false)
	} else {
		bar.SetTotal(-1, true)
	}
	bars.Wait()
	if err != nil {
		return err
	}
	n.Manifest, n.SHA256 = *m, hex.EncodeToString(sum.Sum(nil))
	text, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := writeLasting(out+noteSuffix, append(text, '\n')); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(out+".new", out), syncFolder(out)); err != nil {
		return err
	}
	printManifest(c.OutOrStdout(), m)
	return nil
}

type octetCounter struct {
	w io.Writer
	n *int64
}

func countOctets(w io.Writer, n *int64) io.Writer { return octetCounter{w, n} }

func (c octetCounter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	*c.n += int64(n)
	return n, err
}

func writeLasting(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func printManifest(w io.Writer, m *backup.Manifest) {
	what := "whole database"
	if m.After != nil {
		what = fmt.Sprintf("records behind audit entry %d and status log entry %d", m.After.Audit, m.After.Status)
	}
	rows := int64(0)
	for _, t := range m.Tables {
		rows += t.Rows
	}
	fmt.Fprintf(w, "backup       %s, %s\nrows         %d in %d tables, %d certificates\naudit        whole to entry %d, head %s\nstatus log   whole to entry %d\n",
		m.CreatedAt.Format(time.RFC3339), what, rows, len(m.Tables), m.Tables["certificate"].Rows, m.End.Audit, m.AuditHash, m.End.Status)
}

func backupKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "key FILE", Short: "Make a key for backups",
		Long: `Draws 32 octets and writes them into a file that only its owner may read. Who loses it has no backups; who has it and a backup
knows every holder. Keep it apart from both.`,
		Example: "  jpki backup key backup.key",
		Args:    exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := backup.NewKey(rand.Reader)
			if err != nil {
				return err
			}
			text, err := k.MarshalText()
			if err != nil {
				return err
			}
			return writeLasting(args[0], text)
		},
	}
}

func backupVerifyCommand() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "verify FILE", Short: "Check a backup without restoring it",
		Long: `Decrypts all of it and checks that nothing is missing or altered, that every row and number is what the manifest says, that the
audit record's chain is whole and the status log has no gap; and, if FILE.json is beside it, that it is that file. Nothing is
written. Exit code 0 means it can be restored; 3 that it cannot.`,
		Example: "  jpki backup verify -key backup.key monday.backup",
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := readKey(key)
			if err != nil {
				return err
			}
			f, in, err := openBackup(c.Context(), args[0], "verify")
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			sum := sha256.New()
			m, err := backup.Read(c.Context(), io.TeeReader(in, sum), k, backup.Visitor{})
			in.end(err)
			if err == nil {
				err = compareNote(args[0], m, hex.EncodeToString(sum.Sum(nil)))
			}
			if c.Context().Err() != nil {
				return c.Context().Err()
			}
			if err != nil {
				fmt.Fprintln(c.OutOrStdout(), "unfit: "+explain(err))
				return errNo
			}
			printManifest(c.OutOrStdout(), m)
			return nil
		},
	}
	c.Flags().StringVar(&key, "key", "", "the key file")
	return c
}

// compareNote compares what was read with what stands beside it, if anything does.
func compareNote(path string, m *backup.Manifest, sum string) error {
	n, err := readNote(path + noteSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if n.SHA256 != sum || n.End != m.End || n.AuditHash != m.AuditHash {
		return fmt.Errorf("%s is about another file", filepath.Base(path)+noteSuffix)
	}
	return nil
}

// A barReader moves a bar as it is read.
type barReader struct {
	r    io.Reader
	read func(int64)
	end  func(error)
}

func (b barReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.read(int64(n))
	return n, err
}

func openBackup(ctx context.Context, path, name string) (*os.File, *barReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	bars, bar := progress(ctx, name, int(info.Size()), 0)
	return f, &barReader{f, bar.IncrInt64, func(err error) {
		if err != nil {
			bar.Abort(false)
		}
		bar.SetTotal(-1, err == nil)
		bars.Wait()
	}}, nil
}

// Command benchca measures issuance against its limits and against other authorities, in one run on one machine.
//
// It issues through package ca and, over mutual TLS, through a server process of this same program, all on PostgreSQL;
// step-ca and cfssl do the same under the same load. Rounds are interleaved, so that a ratio compares what happened at about
// the same time; requests are made before the clock starts. It judges nothing but its list of targets and exits with 0 when
// one is missed. make bench-ca runs it on a server of its own with fsync. Start at run.
package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/openjpki/jpki"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet("benchca", flag.ExitOnError)
	database := flags.String("db", os.Getenv("JPKI_TEST_POSTGRES"), "a PostgreSQL server on this machine, postgres:// URL; databases called benchca_… are made on it and dropped")
	profile := flags.String("cpuprofile", "", "write a CPU profile here, and those of server processes beside it")
	var err error
	if len(os.Args) > 1 && os.Args[1] == "serve" { // what the bench starts for itself
		kind := flags.String("key", p256, "the kind of CA key")
		_ = flags.Parse(os.Args[2:]) // exits
		err = serve(ctx, *database, *kind, *profile)
	} else {
		b := &bench{results: results{samples: map[row][]sample{}}, keys: map[string]crypto.Signer{}, inProcess: map[string]*inProcess{}}
		flags.IntVar(&b.rounds, "rounds", 3, "how often everything is measured; the table shows medians")
		flags.IntVar(&b.pairs, "pairs", 400, "pairs of certificates in each measurement")
		flags.BoolVar(&b.withPeers, "peers", true, "measure step-ca and cfssl, too; the first time they are built, which takes minutes")
		flags.DurationVar(&b.peerTime, "peertime", 2*time.Second, "how long a measurement of a peer lasts")
		flags.IntVar(&b.memory, "memory", 0, "besides, issue so many certificates and watch the memory")
		short := flags.Bool("short", false, "one short round without peers")
		_ = flags.Parse(os.Args[1:]) // exits
		if *short {
			b.rounds, b.pairs, b.withPeers = 1, 200, false
		}
		b.profile = *profile
		debug.SetGCPercent(400) // as servers have it
		err = b.run(ctx, *database)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchca:", err)
		os.Exit(1)
	}
}

// clientCounts are the numbers of clients at once.
var clientCounts = []int{8, 32}

// bothKinds are a card's two certificates, oneKind is the second.
var bothKinds, oneKind = []int{0, 1}, []int{1}

// eventCount is how many register events are fed in: as many as one batch may have.
const eventCount = 100_000

// peersScript builds the peers into peersFolder.
const peersScript, peersFolder = "deploy/test/bench-peers.sh", "var/bench"

// A bench is one run.
type bench struct {
	rounds, pairs, memory int
	withPeers             bool
	peerTime              time.Duration
	profile               string

	url       *url.URL
	admin     *sql.DB
	postgres  postgres
	dir       string // temporary
	ring      *keyring
	proof     *x509.CertificateRequest
	prefixes  int
	keys      map[string]crypto.Signer
	inProcess map[string]*inProcess
	servers   []*authority
	peers     []*peer
	pleas     []plea
	results   results
	bar       *mpb.Bar
	ends      []func() error
}

// run does it all. Steps:
//  1. prepare keys, databases, servers and peers
//  2. rounds: in process, then over HTTP with the peers in turn
//  3. register events; memory, if asked for
//  4. the table and the targets
func (b *bench) run(ctx context.Context, database string) (err error) {
	defer func() {
		for _, end := range slices.Backward(b.ends) {
			err = errors.Join(err, end())
		}
	}()
	// 1.
	settings, err := b.prepare(ctx, database)
	if err != nil {
		return err
	}
	// 2.
	bars, bar := progress(ctx, "measurements", b.rounds*b.measurements())
	b.bar = bar
	defer bars.Wait()
	defer bar.Abort(false)
	begin := b.meter()
	for round := range b.rounds {
		if !isatty.IsTerminal(os.Stderr.Fd()) {
			fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, b.rounds)
		}
		if err := b.roundInProcess(ctx, round); err != nil {
			return err
		}
		if err := b.roundOverHTTP(ctx); err != nil {
			return err
		}
	}
	others := begin.others(b.meter())
	bar.SetTotal(-1, true)
	bars.Wait()
	// 3.
	start := time.Now()
	if err := b.servers[1].feed(ctx, func(yield func(jpki.Event) bool) {
		prefix := b.prefix()
		for i := range eventCount {
			if !yield(registered(fmt.Sprint(prefix, "-", i))) {
				return
			}
		}
	}); err != nil {
		return err
	}
	took := time.Since(start)
	var prints []footprint
	if b.memory > 0 {
		bars, bar := progress(ctx, "certificates", b.memory)
		var out io.Writer = os.Stdout
		if isatty.IsTerminal(os.Stderr.Fd()) {
			out = bars // above the bar
		}
		prints, err = b.watchMemory(ctx, b.memory, out, bar.IncrBy)
		bar.SetTotal(-1, true)
		bars.Wait()
		if err != nil {
			return err
		}
	}
	// 4.
	fmt.Printf("\n%s; %d processors, %s; medians of %d round(s)\n\n", settings, runtime.GOMAXPROCS(0), runtime.Version(), b.rounds)
	b.results.table(os.Stdout)
	fmt.Printf("Other work took %.0f %% of its processors meanwhile; the more, the less certificates a second say. Trust those per CPU-second first.\n\n", 100*others)
	for _, t := range append(b.results.targets(), eventsTarget(took), memoryTarget(b.memory, prints)) {
		fmt.Println(t)
	}
	return nil
}

// prepare gets everything ready that no clock shall see, and says how the database is set.
func (b *bench) prepare(ctx context.Context, database string) (settings string, err error) {
	if b.withPeers {
		build := exec.CommandContext(ctx, peersScript, peersFolder)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return "", fmt.Errorf("build the peers (-peers=false goes without): %w", err)
		}
	}
	if b.url, err = url.Parse(database); err != nil || !strings.HasPrefix(b.url.Scheme, "postgres") {
		return "", errors.New("-db wants the URL of a PostgreSQL server; make bench-ca starts one")
	}
	if b.admin, err = sql.Open("pgx", database); err != nil { // the driver that ca/store brings
		return "", err
	}
	b.atEnd(b.admin.Close)
	if b.postgres, err = findPostgres(ctx, b.admin); err != nil {
		return "", err
	}
	var version, fsync, commit string
	if err := b.admin.QueryRowContext(ctx, `SELECT current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')`).Scan(&version, &fsync, &commit); err != nil {
		return "", err
	}
	if b.dir, err = os.MkdirTemp("", "benchca-"); err != nil {
		return "", err
	}
	b.atEnd(func() error { return os.RemoveAll(b.dir) })
	if b.ring, err = newKeyring(); err != nil {
		return "", err
	}
	if b.proof, err = proofOf(b.ring); err != nil {
		return "", err
	}
	if b.profile != "" {
		end, err := startProfile(b.profile)
		if err != nil {
			return "", err
		}
		b.atEnd(func() error { end(); return nil })
	}
	url, err := b.newDatabase(ctx, "inprocess")
	if err != nil {
		return "", err
	}
	if err := b.openInProcess(ctx, url); err != nil {
		return "", err
	}
	for _, kind := range []string{rsa2048, p256} {
		url, err := b.newDatabase(ctx, "http-"+kind)
		if err != nil {
			return "", err
		}
		a, err := b.startAuthority(ctx, url, kind)
		if err != nil {
			return "", err
		}
		b.servers = append(b.servers, a)
	}
	if b.withPeers {
		err = b.startPeers(ctx, peersFolder)
	}
	return fmt.Sprintf("PostgreSQL %s, fsync %s, synchronous_commit %s", version, fsync, commit), err
}

// measurements is how many a round has.
func (b *bench) measurements() int {
	return len(clientCounts)*(len(b.inProcess)+len(b.servers)+len(b.peers)) + 1 + len(b.servers)
}

func (b *bench) roundInProcess(ctx context.Context, round int) error {
	for _, kind := range []string{rsa2048, p256, p384} {
		p := b.inProcess[kind]
		for _, clients := range clientCounts {
			works := []func() error{func() error { return b.issueInProcess(ctx, p.authority, row{inside, kind, clients}) }}
			if kind == p256 && clients == 32 {
				works = append(works, func() error { return b.issueInProcess(ctx, p.hasty, row{hasty, kind, clients}) })
				if round%2 == 1 { // who goes first must not matter
					slices.Reverse(works)
				}
			}
			for _, work := range works {
				if err := work(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *bench) roundOverHTTP(ctx context.Context) error {
	for i, kind := range []string{rsa2048, p256} {
		for _, clients := range clientCounts {
			if err := b.issueOverHTTP(ctx, b.servers[i], row{outside, kind, clients}, bothKinds); err != nil {
				return err
			}
			for _, p := range b.peers {
				if p.key != kind {
					continue
				}
				if err := b.issueByPeer(ctx, p, row{p.name, kind, clients}); err != nil {
					return err
				}
			}
		}
		if err := b.issueOverHTTP(ctx, b.servers[i], row{single, kind, 32}, oneKind); err != nil {
			return err
		}
	}
	return nil
}

// atEnd has something done when the run has ended, the last thing first.
func (b *bench) atEnd(f func() error) { b.ends = append(b.ends, f) }

func (b *bench) step() { b.bar.Increment() }

// prefix is what a set of cards is called, another each time.
func (b *bench) prefix() string {
	b.prefixes++
	return fmt.Sprint("s", b.prefixes)
}

// newDatabase makes an empty database on the server and returns its URL.
func (b *bench) newDatabase(ctx context.Context, name string) (string, error) {
	name = "benchca_" + strings.ToLower(strings.ReplaceAll(name, "-", "_"))
	drop := func(ctx context.Context) error {
		_, err := b.admin.ExecContext(ctx, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`)
		return err
	}
	if err := drop(ctx); err != nil {
		return "", fmt.Errorf("make room on the database server: %w", err)
	}
	if _, err := b.admin.ExecContext(ctx, `CREATE DATABASE `+name); err != nil {
		return "", fmt.Errorf("make a database: %w", err)
	}
	b.atEnd(func() error { return drop(context.WithoutCancel(ctx)) })
	u := *b.url
	u.Path = "/" + name
	if u.RawQuery == "" {
		u.RawQuery = "application_name=benchca" // so that options can be appended
	}
	return u.String(), nil
}

// progress shows a bar on standard error, if that is a terminal.
func progress(ctx context.Context, name string, total int) (*mpb.Progress, *mpb.Bar) {
	var out io.Writer
	if isatty.IsTerminal(os.Stderr.Fd()) {
		out = os.Stderr
	}
	bars := mpb.NewWithContext(ctx, mpb.WithOutput(out))
	return bars, bars.AddBar(int64(total), mpb.PrependDecorators(decor.Name(name+" "), decor.CountersNoUnit("%d / %d")),
		mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)))
}

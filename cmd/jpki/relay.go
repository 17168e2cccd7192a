package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/openjpki/jpki/ca/relay"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/redisconf"
	"github.com/openjpki/jpki/ocsp/cache"
)

//go:embed relay.yaml
var relayExample []byte

func relayCommand() *cobra.Command {
	var path string
	var check, example bool
	c := &cobra.Command{
		Use: "relay", Short: "Copy the status log of a database to Redis, for status servers",
		Long: `Runs beside the authority's database until SIGTERM. Status servers that have the same key follow the log through Redis,
instead of asking the database each for itself. Several relays may run: one works, the others stand by. Nothing depends on
it: without it the servers read the database.`,
		Example: `  jpki relay -example                    # a configuration to begin with
  jpki relay -config relay.yaml -check
  jpki relay -config relay.yaml`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if example {
				_, err := c.OutOrStdout().Write(relayExample)
				return err
			}
			cfg, err := readRelayConfig(path)
			if err != nil {
				return usageError{err}
			}
			log := slog.New(slog.NewJSONHandler(c.ErrOrStderr(), nil))
			cache.LogTo(log)
			return cfg.run(c.Context(), log, check)
		},
	}
	c.Flags().StringVar(&path, "config", "", "the configuration, YAML")
	c.Flags().BoolVar(&check, "check", false, "check the configuration and the files it names, and end")
	c.Flags().BoolVar(&example, "example", false, "print a configuration with every field explained, and end")
	return c
}

// relayConfig is what the file says; relay.yaml explains each field. Where it speaks of Redis it is as jpki-status' own.
type relayConfig struct {
	Database string           `yaml:"database"`
	Redis    redisconf.Server `yaml:"redis"`
	KeyFile  string           `yaml:"key_file"`
	Admin    string           `yaml:"admin"`

	dir string // of the file
}

func readRelayConfig(path string) (*relayConfig, error) {
	if path == "" {
		return nil, errors.New("-config is required")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &relayConfig{Admin: "127.0.0.1:8082"}
	if err := yaml.UnmarshalWithOptions(text, c, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false))
	}
	if c.dir, err = filepath.Abs(filepath.Dir(path)); err != nil {
		return nil, err
	}
	switch {
	case c.Database == "":
		err = errors.New("database is required")
	case c.KeyFile == "":
		err = errors.New("key_file is required: followers believe nothing that is not sealed with it")
	default:
		err = store.CheckPrimary(c.Database)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// secret reads a file that holds nothing else; nil for no file.
func (c *relayConfig) secret(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.dir, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return []byte(strings.TrimRight(string(text), "\r\n")), nil
}

// run works until ctx ends; with check it makes everything but connections, and ends.
func (c *relayConfig) run(ctx context.Context, log *slog.Logger, check bool) error {
	key, err := c.secret(c.KeyFile)
	if err != nil {
		return usageError{err}
	}
	server, err := c.Redis.Open(c.dir)
	if err != nil {
		return usageError{err}
	}
	reader, err := store.OpenStatusReader(c.Database)
	if err != nil {
		return usageError{err}
	}
	defer func() { _ = reader.Close() }()
	r, err := relay.New(relay.Config{
		Server: relay.Server(server), Log: reader, Key: key, Rand: rand.Reader,
	})
	if err != nil {
		return usageError{err}
	}
	if check {
		return nil
	}
	admin, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Admin)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "relaying", slog.String("admin", admin.Addr().String()))
	return boot.Run(ctx, log, []boot.Service{{Name: "admin", Listener: admin, Handler: boot.Admin(
		func() error {
			err := r.Err()
			if errors.Is(err, relay.ErrLease) {
				return boot.Note("another relay works, this one stands by")
			}
			return err
		},
		boot.Outcomes("jpki_relay_total", "Entries and answers published, copies compared and rebuilt, times at which the work broke off.", r.Outcomes),
		boot.Gauge("jpki_relay_working", "1 if this relay is the one that works.", func() float64 {
			if r.Working() {
				return 1
			}
			return 0
		}),
	)}}, r.Run)
}

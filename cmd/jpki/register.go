package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// registerCommand is what the resident register does.
func registerCommand() *cobra.Command {
	var result string
	feed := &cobra.Command{
		Use: "feed FILE", Short: "Report the events of a file, one a line; may be repeated without harm",
		Long: `Sends the events of FILE to the authority: each a line {"id", "holder", "type", "effective_at", …}. An event that was
reported before gets the outcome it had then, so after an interruption the same command does what is missing.

Exit code 3: every event was answered, some with a problem.`,
		Example: `  jpki register feed moves.ndjson -out outcomes.ndjson`,
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			register, err := env.Register()
			if err != nil {
				return err
			}
			var events []jpki.Event
			for n, text := range fileLines(args[0], &err) {
				var e jpki.Event
				if e := json.Unmarshal(text, &e); e != nil {
					return fmt.Errorf("%s, line %d is no event: %w", args[0], n, e)
				}
				events = append(events, e)
			}
			if err != nil {
				return err
			}
			out := os.Stdout
			if result != "" {
				if out, err = os.OpenFile(result, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err != nil {
					return err
				}
				defer func() { _ = out.Close() }()
			}
			bars, bar := progress(c.Context(), "feed", len(events), 0)
			done, refused := 0, map[jpki.Problem]int{}
			for part := range slices.Chunk(events, linesPerRequest) {
				answered := 0
				for r, failed := range register.Feed(c.Context(), slices.Values(part)) {
					if err = failed; err != nil {
						break
					}
					r.Line += done
					if err = json.NewEncoder(out).Encode(r); err != nil {
						break
					}
					if r.Problem != nil {
						refused[r.Problem.Problem()]++
					}
					answered++
					bar.Increment()
				}
				if done += answered; err == nil && answered < len(part) {
					err = jpki.Errorf(jpki.Unavailable, "the authority ended the feed")
				}
				if err != nil {
					break
				}
			}
			if err != nil {
				bar.Abort(false)
				err = errors.Join(err, fmt.Errorf("%d of %d events were answered; repeat the command", done, len(events)))
			}
			bars.Wait()
			fmt.Fprintf(c.ErrOrStderr(), "%d of %d events answered\n", done, len(events))
			for _, p := range slices.Sorted(maps.Keys(refused)) {
				fmt.Fprintf(c.ErrOrStderr(), "  %6d  %s\n", refused[p], p)
			}
			if err == nil && len(refused) > 0 {
				return errNo
			}
			return err
		},
	}
	feed.Flags().StringVar(&result, "out", "", "where the outcomes go (default: standard output)")
	return group(&cobra.Command{Use: "register", Short: "Report events as the resident register", Example: feed.Example}, feed)
}

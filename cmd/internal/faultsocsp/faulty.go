package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// useFaulty starts responders that can have faults, in the place of the first ones.
func (s *stage) useFaulty(p *play, count int) error {
	for i := range count {
		s.names++
		name := fmt.Sprint("responder-f", s.names)
		faults := filepath.Join(s.dir, name+".faults")
		if err := os.WriteFile(faults, nil, 0o600); err != nil {
			return err
		}
		r, err := s.startProgram(name, s.faulty, func(c *exec.Cmd) { c.Env = append(os.Environ(), "JPKI_FAULTS="+faults) }, "", s.database(), []string{at(s.redis.port)}, false)
		if err != nil {
			return fmt.Errorf("%w (is -faulty built?)", err)
		}
		r.faults = faults
		p.at = append(append([]*responder{}, p.at[:i]...), append([]*responder{r}, p.at[i+1:]...)...)
		p.atEnd(func() error { r.process.kill(); return nil })
	}
	return nil
}

// have gives a responder a fault, or takes it away.
func (r *responder) have(fault string) error {
	next := r.faults + ".new"
	if err := os.WriteFile(next, []byte(fault+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(next, r.faults)
}

// wrongBy sets a responder's clock. When it is right again, answers by the wrong one are under way for a moment.
func (r *responder) wrongBy(offset time.Duration) error {
	if offset == 0 {
		time.AfterFunc(time.Second, func() { r.setOffset(0) })
		return r.have("")
	}
	r.setOffset(offset)
	return r.have("clock " + offset.String())
}

func (r *responder) setOffset(offset time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offset = offset
}

// useOwnKeys starts a responder with copies of keys and certificates, in the place of the first one.
func (s *stage) useOwnKeys(p *play) error {
	s.names++
	name := fmt.Sprint("responder-k", s.names)
	for _, ca := range jpki.CAs {
		for _, end := range []string{"-ocsp.key", "-ocsp.cer"} {
			file := jpki.IssuerID{CA: ca, Generation: 1}.String() + end
			octets, err := os.ReadFile(filepath.Join(s.dir, file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(s.dir, name+"-"+file), octets, 0o600); err != nil {
				return err
			}
		}
	}
	r, err := s.startProgram(name, s.status, nil, name+"-", s.database(), []string{at(s.redis.port)}, false)
	if err != nil {
		return err
	}
	p.at = append([]*responder{r}, p.at[1:]...)
	p.atEnd(func() error { r.process.kill(); return nil })
	return nil
}

func (r *responder) keyFiles() ([]string, error) {
	return filepath.Glob(strings.TrimSuffix(r.config, ".yaml") + "-*.key")
}

// loseKeys removes the key files of the first responder.
func (s *stage) loseKeys(p *play) error {
	files, err := p.at[0].keyFiles()
	if err == nil && len(files) != len(jpki.CAs) {
		err = fmt.Errorf("%d key files", len(files))
	}
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

// mustNotStart sees that the first responder has noticed, goes on, and could not be started anew.
func (s *stage) mustNotStart(p *play) error {
	r := p.at[0]
	if err := r.process.await(s.ctx, "the loss is noticed", func() error {
		if text, err := os.ReadFile(r.process.log); err != nil || !strings.Contains(string(text), "look for replaced certificates") {
			return errors.Join(errors.New("not yet"), err)
		}
		return nil
	}); err != nil {
		return err
	}
	out, err := exec.CommandContext(s.ctx, s.status, "-config", r.config).CombinedOutput() //nolint:gosec // ours
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "no such file") {
		return fmt.Errorf("a responder without its key starts, or does not say why not: %w: %s", err, out)
	}
	return nil
}

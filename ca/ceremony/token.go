package ceremony

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/openjpki/jpki/hsm"
)

// A Token says where a second implementation, OpenSC's pkcs11-tool, looks for a key that jpki-signer uses: what a ceremony
// says about a token is not only what our own programs say.
type Token struct {
	Module string `yaml:"module"` // absolute path of the token's library
	Label  string `yaml:"label"`  // of the token
	Object string `yaml:"object"` // CKA_LABEL of the key
	PIN    string `yaml:"pin"`    // file with the PIN and nothing else
}

const maxTokens = 8

// inToken reports whether the plan's key is one that jpki-signer has in a token.
func (p *Plan) inToken() bool { return strings.HasPrefix(p.Key, "signer:") }

func (p *Plan) checkTokens() error {
	needed := p.inToken() && p.Kind != Delegation
	switch {
	case needed && len(p.Tokens) == 0:
		return errors.New("tokens are required for a key behind jpki-signer: pkcs11-tool looks into them")
	case !needed && len(p.Tokens) > 0:
		return errors.New("tokens are of a key behind jpki-signer, as in key: signer:///run/jpki/signer.sock?key=sign-1")
	case len(p.Tokens) > maxTokens:
		return fmt.Errorf("there are at most %d tokens", maxTokens)
	}
	for i, t := range p.Tokens {
		if !strings.HasPrefix(t.Module, "/") || !line(t.Label) || !line(t.Object) || t.PIN == "" {
			return fmt.Errorf("token %d: module (an absolute path), label, object and pin (a file) are required", i+1)
		}
	}
	return nil
}

// A sight is a private key as pkcs11-tool lists it.
type sight struct{ label, id, access string }

// look has pkcs11-tool log in to a token and list its private keys. A token that is not there, or a login that fails, is an
// error and never an empty list. The PIN goes by the environment: a command line is for everybody to read.
func (p *Plan) look(ctx context.Context, t Token) ([]sight, error) {
	pin, err := readSmall(p.path(t.PIN))
	if err != nil {
		return nil, err
	}
	defer clear(pin)
	cmd := exec.CommandContext(ctx, "pkcs11-tool", "--module", t.Module, "--token-label", t.Label, "--login", "--pin", "env:JPKI_CEREMONY_PIN", "--list-objects", "--type", "privkey") //nolint:gosec // of the plan that witnesses have read
	cmd.Env = append(os.Environ(), "LC_ALL=C", "JPKI_CEREMONY_PIN="+strings.TrimSuffix(string(pin), "\n"))
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("pkcs11-tool cannot read token %q: %s", t.Label, strings.Join(strings.Fields(string(exit.Stderr)), " "))
	}
	if err != nil {
		return nil, fmt.Errorf("a ceremony for a token's key needs pkcs11-tool, as the second implementation: %w", err)
	}
	return parseSights(string(out)), nil
}

// parseSights reads what pkcs11-tool lists: a line for each object, and under it indented lines of its attributes.
func parseSights(text string) (all []sight) {
	private := false
	for l := range strings.Lines(text) {
		if !strings.HasPrefix(l, " ") {
			if private = strings.HasPrefix(l, "Private Key Object"); private {
				all = append(all, sight{})
			}
			continue
		}
		name, value, ok := strings.Cut(strings.TrimSpace(l), ":")
		if !private || !ok {
			continue
		}
		last := &all[len(all)-1]
		switch value = strings.TrimSpace(value); name {
		case "label":
			last.label = value
		case "ID":
			last.id = value
		case "Access":
			last.access = value
		}
	}
	return all
}

// found returns the key that a token must have.
func (p *Plan) found(ctx context.Context, t Token) (sight, error) {
	all, err := p.look(ctx, t)
	if err != nil {
		return sight{}, err
	}
	all = slices.DeleteFunc(all, func(s sight) bool { return s.label != t.Object })
	if len(all) != 1 {
		return sight{}, fmt.Errorf("pkcs11-tool finds %d private keys %q in token %q", len(all), t.Object, t.Label)
	}
	return all[0], nil
}

// gone says whether a token has no private key of a name, nor one of a former ID under another name.
func (p *Plan) gone(ctx context.Context, t Token, id string) error {
	all, err := p.look(ctx, t)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.label == t.Object || id != "" && s.id == id {
			return fmt.Errorf("pkcs11-tool still finds the private key %q, ID %s, in token %q", s.label, s.id, t.Label)
		}
	}
	return nil
}

func tokenFact(i int) string { return "token " + strconv.Itoa(i+1) + ", by pkcs11-tool" }

// kept has pkcs11-tool find the key in each token and say how it is kept. What it says must include each of wants.
func (h *hold) kept(ctx context.Context, wants ...string) (map[string]string, []string, error) {
	facts := map[string]string{}
	var ids []string
	for i, t := range h.Plan.Tokens {
		s, err := h.Plan.found(ctx, t)
		if err != nil {
			return nil, nil, err
		}
		for _, want := range wants {
			if !slices.Contains(strings.Split(s.access, ", "), want) {
				return nil, nil, fmt.Errorf("pkcs11-tool says that the key in token %q is %q: not %s", t.Label, s.access, want)
			}
		}
		ids = append(ids, s.id)
		facts[tokenFact(i)] = fmt.Sprintf("private key %s in %s, ID %s: %s", s.label, t.Label, s.id, s.access)
	}
	return facts, ids, nil
}

// makeInToken has somebody make the key in a token, which had none of the name before, and opens it through jpki-signer.
func (h *hold) makeInToken(ctx context.Context) error {
	if err := h.step("look into the token", "pkcs11-tool looks whether a token has a key of the name already", func() (map[string]string, error) {
		facts := map[string]string{}
		for i, t := range h.Plan.Tokens {
			if err := h.Plan.gone(ctx, t, ""); err != nil {
				return nil, err
			}
			facts[tokenFact(i)] = "no private key " + t.Object + " in " + t.Label
		}
		return facts, nil
	}); err != nil {
		return err
	}
	return h.step("make the key", fmt.Sprintf("now have jpki-signer make a key %s in the token (-create), and read its keys again (-reload); then go on: it is opened at %s", h.Plan.Algorithm, h.Plan.Key),
		func() (_ map[string]string, err error) {
			if h.key, err = hsm.Open(ctx, h.Plan.Key); err != nil {
				return nil, err
			}
			if alg, err := hsm.AlgorithmOf(h.key.Public()); err != nil || alg != h.Plan.Algorithm {
				return nil, errors.Join(err, fmt.Errorf("the key is %s and not %s", alg, h.Plan.Algorithm))
			}
			facts, _, err := h.kept(ctx, "sensitive", "never extractable", "local")
			if err != nil {
				return nil, err
			}
			facts["algorithm"], facts["kept at"] = string(h.Plan.Algorithm), h.Plan.Key
			facts["public key"], err = publicHash(h.key.Public())
			return facts, err
		})
}

// destroyInToken says that no token has the key any more, which each of them had before, and that jpki-signer cannot sign with it.
func (h *hold) destroyInToken(ctx context.Context, ids []string) (map[string]string, error) {
	facts := map[string]string{"destroyed": "by the token's means; jpki-signer cannot sign with it any more"}
	for i, t := range h.Plan.Tokens {
		if err := h.Plan.gone(ctx, t, ids[i]); err != nil {
			return nil, err
		}
		facts[tokenFact(i)] = fmt.Sprintf("no private key %s and none with ID %s in %s", t.Object, ids[i], t.Label)
	}
	if key, err := hsm.Open(ctx, h.Plan.Key); err == nil && trySign(key) == nil {
		return nil, errors.New("jpki-signer still signs with the key")
	}
	return facts, nil
}

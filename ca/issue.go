package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// An IssueRequest asks for one or two certificates for keys made on one token.
type IssueRequest struct {
	IdempotencyKey string         `json:"-"` // a repeated request gets the same certificates
	Holder         string         `json:"holder"`
	Token          string         `json:"token"`
	Requests       []KeyRequest   `json:"requests"`         // one a kind, at most two
	Parent         *jpki.CertID   `json:"parent,omitempty"` // of a phone: the card signature certificate that asks for it
	TokenType      jpki.TokenType `json:"-"`                // follows from the kinds
}

// A KeyRequest is a certification request for one kind of certificate, signed by the key that is to be certified.
type KeyRequest struct {
	Kind    jpki.Kind `json:"kind"`
	Request []byte    `json:"request"` // PKCS #10, DER
}

// Issued is a certificate as it is handed to the station.
type Issued struct {
	ID          jpki.CertID
	Kind        jpki.Kind
	Certificate []byte // DER
	Issuer      []byte // DER of the CA certificate
	NotAfter    time.Time
	Replaces    *jpki.CertID
}

// Issue certifies keys of a token that has no certificate of that kind in force. A new card takes the place of the
// holder's former card, a new phone that of the former phone: their certificates end with [jpki.TokenReplaced].
//
// The problems it reports: Malformed, TooLarge, BadRequestProof, WeakKey, KeyReused, UnknownHolder, WrongMunicipality,
// NotEligible, AlreadyCertified, NoValidityLeft, IdempotencyReused, InProgress, Conflict, Unavailable.
func (a *Authority) Issue(ctx context.Context, by jpki.Actor, req IssueRequest) ([]Issued, error) {
	return a.issue(ctx, by, req, false)
}

// Renew certifies new keys on a token whose certificates end within three months and supersedes those at once. Besides
// the problems of [Authority.Issue] it reports NotRenewable, and never AlreadyCertified.
func (a *Authority) Renew(ctx context.Context, by jpki.Actor, req IssueRequest) ([]Issued, error) {
	return a.issue(ctx, by, req, true)
}

// issue is both commands. Steps:
//  1. check the requests: form, proof of possession, keys
//  2. transaction 1: claim the idempotency key, check the rules, draw serial numbers, build the certificates, unsigned,
//     and record the intents
//  3. lint what is to be signed
//  4. sign; no transaction is open here
//  5. transaction 2: check the rules again, record certificates, statuses, audit, what they replace, and the answer
//
// Both transactions are shared with other issuances that come at the same time.
// A crash leaves nothing, or intents that [Authority.Reconcile] ends; a signature without a status row cannot remain.
func (a *Authority) issue(ctx context.Context, by jpki.Actor, req IssueRequest, renew bool) ([]Issued, error) {
	// 1.
	keys, err := a.profile.checkIssueRequest(&req)
	if err != nil {
		return nil, err
	}
	if by.Role != jpki.Counter && by.Role != jpki.Holder {
		return nil, jpki.Errorf(jpki.Forbidden, "a %s may not ask for certificates", by.Role)
	}
	action := "issue"
	if renew {
		action = "renew"
	}
	hash, err := requestHash(action, req)
	if err != nil {
		return nil, err
	}
	i := &issuance{by: by, req: req, keys: keys, renew: renew, hash: hash, now: a.now().UTC(), issuers: *a.issuing.Load()}
	// 2.
	giveUp := func() { a.giveUp(ctx, i) }
	if !a.reserving.do(ctx, i, giveUp) {
		return nil, jpki.WrapError(jpki.Unavailable, ctx.Err(), "the database does not answer")
	}
	if i.err != nil {
		if errors.Is(i.err, jpki.Unavailable) { // the commit may have taken place
			giveUp()
		}
		return nil, i.err
	}
	if i.plan == nil {
		return a.issued(ctx, i.repeated)
	}
	// From here on the caller hanging up must not leave half an issuance.
	signing, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.signingTime)
	defer cancel()
	if err := a.sign(signing, i); err != nil {
		giveUp()
		return nil, err
	}
	// 5.
	if !a.recording.do(signing, i, func() {}) {
		i = &issuance{by: by, plan: i.plan} // the other is still being worked on
		i.err = jpki.WrapError(jpki.Unavailable, signing.Err(), "the database does not answer")
	}
	if i.err != nil {
		a.giveUp(ctx, i)
		return nil, i.err
	}
	out := make([]Issued, len(i.plan.certificates))
	for j, c := range i.plan.certificates {
		out[j] = handOut(c, i.issuers[c.Kind.CA()].Certificate.Raw)
	}
	return out, nil
}

// An issuance is a request on its way.
type issuance struct {
	by      jpki.Actor
	req     IssueRequest
	keys    []publicKey
	renew   bool
	hash    string
	now     time.Time
	issuers issuers // of this issuance, whatever generation becomes active meanwhile

	plan     *issuePlan    // nil for a repetition
	repeated []jpki.CertID // what the first request got
	err      error
}

// names are what no other issuance of the same transaction may be about.
func (i *issuance) names() []string {
	out := []string{"once " + i.by.String() + " " + i.req.IdempotencyKey, "holder " + i.req.Holder, "token " + i.req.Token}
	for _, k := range i.keys {
		out = append(out, "key "+k.hash)
	}
	return out
}

// giveUp ends an issuance that came to nothing. Where that fails, Reconcile does it later. A conflict is no failure: the
// issuance was ended by somebody else, or nothing of it was recorded, or all was and only the answer got lost.
func (a *Authority) giveUp(ctx context.Context, i *issuance) {
	if i.plan == nil || len(i.plan.intents) == 0 {
		return
	}
	const patience = 10 * time.Second // not the time for signing, which may be what has run out
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := a.abandon(ctx, i.plan.intents, a.now()); err != nil && !errors.Is(err, jpki.Conflict) {
		a.log.ErrorContext(ctx, "issuance left open", slog.Any("error", err), slog.String("request_id", jpki.RequestID(ctx)))
	}
}

// inRound runs one of the two transactions for all issuances of a round; step reports what concerns all. Those that it
// cannot serve together, because somebody holds a lock or an error cannot be told whose it is, get one each.
func (a *Authority) inRound(list []*issuance, done func(int), step func(tx *store.Tx, list []*issuance, alone bool) error) {
	run := func(list []*issuance, alone bool) error {
		ctx, cancel := context.WithTimeout(context.Background(), a.signingTime) // of nobody in particular
		defer cancel()
		return a.store.Update(ctx, func(tx *store.Tx) error { return step(tx, list, alone) })
	}
	err := run(list, len(list) == 1)
	for j, i := range list {
		switch {
		case err == nil && !errors.Is(i.err, errAlone):
			done(j)
		case err != nil && (len(list) == 1 || errors.Is(err, jpki.Unavailable)):
			i.err = err
			done(j)
		default:
			go func() {
				if err := run(list[j:j+1], true); err != nil {
					i.err = err
				}
				done(j)
			}()
		}
	}
}

// errAlone is the error of an issuance that needs a transaction of its own.
var errAlone = errors.New("not in this round")

// ahead is what the transactions of issuances are going to look at.
func ahead(list []*issuance, alone bool) store.Ahead {
	w := store.Ahead{SkipLocked: !alone}
	for _, i := range list {
		w.Holders, w.Tokens, w.Once = append(w.Holders, i.req.Holder), append(w.Tokens, i.req.Token), append(w.Once, store.OnceKey{Actor: i.by.String(), Key: i.req.IdempotencyKey})
		for _, k := range i.keys {
			w.Keys = append(w.Keys, k.hash)
		}
	}
	return w
}

// eachOf gives a transaction's issuances to step, one after another. What is refused before it has written anything leaves
// the others alone; any other error ends the transaction.
func eachOf(list []*issuance, alone bool, step func(*issuance) (wrote bool, err error)) error {
	for _, i := range list {
		wrote, err := step(i)
		_, refused := errors.AsType[*jpki.Error](err)
		switch i.err = err; {
		case err == nil:
		case alone, wrote, !refused && !errors.Is(err, errAlone):
			return err
		}
	}
	return nil
}

// reserve is step 2.
func (a *Authority) reserve(tx *store.Tx, list []*issuance, alone bool) error {
	if err := tx.ReadAhead(ahead(list, alone)); err != nil {
		return fmt.Errorf("read what issuances need: %w", err)
	}
	return eachOf(list, alone, func(i *issuance) (wrote bool, err error) {
		i.plan, i.repeated = nil, nil
		stored, done, err := tx.Once(i.by.String(), i.req.IdempotencyKey, i.hash)
		if err != nil {
			return false, err
		}
		if done {
			return false, json.Unmarshal([]byte(stored), &i.repeated)
		}
		plan, err := a.plan(tx, i, i.now)
		if errors.Is(err, jpki.UnknownHolder) && !alone {
			return false, errAlone // or locked
		}
		if err != nil {
			return false, err
		}
		if err := a.draw(plan, i); err != nil {
			return false, err
		}
		i.plan = plan
		if err := tx.ClaimOnce(i.by.String(), i.req.IdempotencyKey, i.hash, i.now); err != nil {
			return true, err
		}
		if plan.newToken {
			if err := tx.AddToken(plan.token, i.now); err != nil {
				return true, err
			}
		}
		for _, c := range plan.certificates {
			if err := a.intend(tx, i, c); err != nil {
				return true, err
			}
		}
		return true, nil
	})
}

// draw gives the planned certificates their serial numbers and builds what will be signed. It finds names and addresses
// that no certificate can carry as long as no number has been written down.
func (a *Authority) draw(p *issuePlan, i *issuance) error {
	for j := range p.certificates {
		c := &p.certificates[j]
		serial, err := jpki.NewSerial(a.rand)
		if err != nil {
			return err
		}
		c.ID = jpki.CertID{Issuer: i.issuers[c.Kind.CA()].ID, Serial: serial}
		c.Partition = a.profile.partition(c.Kind.CA(), p.place, serial)
		name, err := a.commonName(c.Kind, p.place)
		if err != nil {
			return err
		}
		s, err := a.subject(p, i.issuers, c, i.keys[j], p.caps[j], name)
		if err != nil {
			return err
		}
		tbs, err := s.tbs()
		if err != nil {
			return fmt.Errorf("build certificate: %w", err)
		}
		switch ok, err := s.issuer.fits(tbs); {
		case err != nil:
			return err
		case !ok:
			return jpki.Errorf(jpki.NotEligible, "name and address are too long for a %s certificate of %d octets", c.Kind, maxCertificate)
		}
		p.unsigned = append(p.unsigned, unsigned{s, tbs})
	}
	return nil
}

// intend writes down that a certificate is about to be signed.
func (a *Authority) intend(tx *store.Tx, i *issuance, c store.Certificate) error {
	intent := store.Intent{
		ID: c.ID, Kind: c.Kind, Holder: c.Holder, Token: c.Token, Partition: c.Partition, NotAfter: c.NotAfter,
		Actor: i.by.String(), IdemKey: i.req.IdempotencyKey, CreatedAt: i.now,
	}
	i.plan.intents = append(i.plan.intents, intent)
	if err := tx.AddIntent(intent); err != nil {
		return err
	}
	return tx.Audit(i.now, i.by, "issue.intent", c.ID.String(), intentDetail{c.Kind, c.Holder, c.Token})
}

// An intentDetail is what the audit record says of a certificate about to be signed.
type intentDetail struct {
	Kind   jpki.Kind `json:"kind"`
	Holder string    `json:"holder"`
	Token  string    `json:"token"`
}

// sign does steps 3 and 4.
func (a *Authority) sign(ctx context.Context, i *issuance) error {
	for j := range i.plan.certificates {
		c := &i.plan.certificates[j]
		// 3.
		draft, err := i.plan.unsigned[j].subject.prepareBuilt(i.plan.unsigned[j].tbs)
		if err != nil {
			if refused, ok := errors.AsType[*lintError](err); ok {
				a.log.ErrorContext(ctx, "a certificate was refused before it was signed", slog.String("lint", refused.lint), slog.String("rule", refused.rule),
					slog.String("certificate", c.ID.String()), slog.String("kind", string(c.Kind)), slog.String("request_id", jpki.RequestID(ctx)))
			}
			return err
		}
		// 4.
		if c.DER, err = i.issuers[c.Kind.CA()].signInTime(ctx, draft); err != nil {
			return err
		}
	}
	return nil
}

// record is step 5. What another command did meanwhile may have changed what the rules say.
func (a *Authority) record(tx *store.Tx, list []*issuance, alone bool) error {
	if err := tx.ReadAhead(ahead(list, alone)); err != nil {
		return fmt.Errorf("read what issuances need: %w", err)
	}
	at := a.now().UTC() // one time for all, so that one statement ends their intents
	return eachOf(list, alone, func(i *issuance) (wrote bool, err error) {
		now := i.now
		if at.After(now) {
			now = at
		}
		again, err := a.plan(tx, i, now)
		if errors.Is(err, jpki.UnknownHolder) && !alone {
			return false, errAlone
		}
		if err != nil {
			return false, err
		}
		if again.holder.Version != i.plan.holder.Version {
			return false, jpki.Errorf(jpki.Conflict, "the register entry changed while the certificate was made")
		}
		for j, c := range i.plan.certificates {
			if again.certificates[j].NotAfter.Before(c.NotAfter) {
				return false, jpki.Errorf(jpki.Conflict, "what bounds the %s certificate's validity changed while it was made", c.Kind)
			}
		}
		return true, a.recordOne(tx, i, again, now)
	})
}

// recordOne writes what came of an issuance.
func (a *Authority) recordOne(tx *store.Tx, i *issuance, again *issuePlan, now time.Time) error {
	if len(again.ends) > 0 {
		if _, err := a.applyAll(tx, i.by, again.ends, revoke, again.endCause, now); err != nil {
			return err
		}
	}
	if again.token.Type == jpki.Phone {
		if err := tx.SetParent(again.token); err != nil {
			return err
		}
	}
	ids := make([]jpki.CertID, len(i.plan.certificates))
	for j := range i.plan.certificates {
		c := &i.plan.certificates[j]
		c.Replaces = again.certificates[j].Replaces // another certificate may have come between
		if err := tx.EndIntent(c.ID, true, now); err != nil {
			return err
		}
		if err := tx.AddCertificate(*c); err != nil {
			return err
		}
		c.Status.Version = 1
		if err := tx.Audit(now, i.by, "issue", c.ID.String(), statusDetail(c.Kind, c.Status)); err != nil {
			return err
		}
		ids[j] = c.ID
	}
	return endOnce(tx, i.by, i.req.IdempotencyKey, ids)
}

// An issuePlan is what the rules make of a request.
type issuePlan struct {
	holder       store.Holder
	place        Municipality
	token        store.Token
	newToken     bool
	certificates []store.Certificate // in the order of the requests; draw and sign complete them
	caps         [][]time.Time       // for each certificate, what it must not outlive
	ends         []store.Certificate // certificates whose place the new ones take
	endCause     jpki.Cause
	unsigned     []unsigned
	intents      []store.Intent
}

// unsigned is a certificate before it is linted and signed.
type unsigned struct {
	subject *subject
	tbs     []byte
}

// plan checks a request against the register, the token and the certificates in force.
func (a *Authority) plan(tx *store.Tx, i *issuance, now time.Time) (*issuePlan, error) {
	p := &issuePlan{}
	var err error
	if p.holder, err = tx.Holder(i.req.Holder); err != nil {
		return nil, err
	}
	if err := mayActFor(i.by, p.holder); err != nil {
		return nil, err
	}
	var ok bool
	if p.place, ok = a.profile.municipality(p.holder.Municipality); !ok {
		return nil, fmt.Errorf("municipality %s is not in the profile", p.holder.Municipality)
	}
	for j, r := range i.req.Requests {
		if err := checkEligible(p.holder, r.Kind, now); err != nil {
			return nil, err
		}
		if used, err := tx.KeyCertified(i.keys[j].hash); err != nil {
			return nil, err
		} else if used {
			return nil, jpki.Errorf(jpki.KeyReused, "the key of the %s request", r.Kind)
		}
	}
	if err := a.planToken(tx, p, i.req, i.renew, now); err != nil {
		return nil, err
	}
	all, err := tx.CertificatesOf(p.holder.ID)
	if err != nil {
		return nil, err
	}
	if err := p.planEnds(a.profile.Validity, all, i.req, i.renew, now); err != nil {
		return nil, err
	}
	return p, a.planValidity(p, all, i, now)
}

// planToken finds the token, or what is to be recorded of a new one. A phone's certificates are asked for with the card's
// signature certificate every time, and hang on the one that asked last.
func (a *Authority) planToken(tx *store.Tx, p *issuePlan, req IssueRequest, renew bool, now time.Time) (err error) {
	p.token, err = tx.Token(req.Token)
	switch {
	case err == nil && p.token.Holder != p.holder.ID:
		return jpki.Errorf(jpki.Forbidden, "the token is another holder's")
	case err == nil && p.token.Type != req.TokenType:
		return jpki.Errorf(jpki.Malformed, "the token is a %s", p.token.Type)
	case err != nil && (renew || !errors.Is(err, jpki.UnknownToken)):
		return err
	case err != nil:
		p.newToken = true
		p.token = store.Token{ID: req.Token, Type: req.TokenType, Holder: p.holder.ID, ValidUntil: a.profile.Validity.cardEnd(p.holder.Attributes.BirthDate, now)}
	}
	if req.TokenType == jpki.Card {
		return nil
	}
	if req.Parent == nil {
		return jpki.Errorf(jpki.Malformed, "a phone needs the card signature certificate that asks for it")
	}
	parent, err := tx.Certificate(*req.Parent)
	if err != nil {
		return err
	}
	if parent.Holder != p.holder.ID || parent.Kind != jpki.CardSign || parent.Status.State != jpki.Good || !parent.Live(now) {
		return jpki.Errorf(jpki.Forbidden, "the parent is not the holder's card signature certificate in force")
	}
	p.token.Parent, p.token.ValidUntil = req.Parent, parent.NotAfter
	return nil
}

// planEnds decides which certificates end because of the new ones.
func (p *issuePlan) planEnds(v Validity, all []store.Certificate, req IssueRequest, renew bool, now time.Time) error {
	p.endCause = jpki.TokenReplaced
	if renew {
		p.endCause = jpki.Renewed
	}
	for _, r := range req.Requests {
		i := slices.IndexFunc(all, func(c store.Certificate) bool { return c.Token == p.token.ID && c.Kind == r.Kind && c.Live(now) })
		switch {
		case !renew && i >= 0:
			return jpki.Errorf(jpki.AlreadyCertified, "%s %s is %s", r.Kind, all[i].ID, all[i].Status.State)
		case renew && i < 0:
			return jpki.Errorf(jpki.NotRenewable, "the token has no %s certificate in force", r.Kind)
		case renew && all[i].Status.State != jpki.Good:
			return jpki.Errorf(jpki.NotRenewable, "%s %s is %s", r.Kind, all[i].ID, all[i].Status.State)
		case renew && !v.renewable(all[i].NotAfter, now):
			return jpki.Errorf(jpki.NotRenewable, "%s %s can be renewed in the last %d months before %s", r.Kind, all[i].ID, v.RenewalMonths, all[i].NotAfter.In(jpki.JST).Format(time.DateOnly))
		case renew:
			p.ends = append(p.ends, all[i])
		}
	}
	if renew {
		return nil
	}
	for _, c := range all {
		if c.Kind.Token() == p.token.Type && c.Token != p.token.ID && c.Live(now) {
			p.ends = append(p.ends, c)
		}
	}
	return nil
}

// planValidity fills in the certificates. A signature certificate never outlives the authentication certificate beside it.
func (a *Authority) planValidity(p *issuePlan, all []store.Certificate, i *issuance, now time.Time) error {
	ends, caps := map[jpki.Kind]time.Time{}, map[jpki.Kind][]time.Time{}
	for _, r := range i.req.Requests {
		k := r.Kind
		caps[k] = []time.Time{p.token.ValidUntil, i.issuers[k.CA()].Certificate.NotAfter}
		if p.holder.StayUntil != nil {
			caps[k] = append(caps[k], p.holder.StayUntil.Truncate(time.Second))
		}
		if p.token.Type == jpki.Phone {
			ends[k] = slices.MinFunc(caps[k], time.Time.Compare)
		} else {
			ends[k] = a.profile.Validity.notAfter(p.holder.Attributes.BirthDate, now, i.renew, caps[k]...)
		}
	}
	if sign, asked := ends[jpki.CardSign]; asked {
		auth, asked := ends[jpki.CardAuth]
		for _, c := range all {
			if !asked && c.Token == p.token.ID && c.Kind == jpki.CardAuth && c.Live(now) {
				auth = c.NotAfter
			}
		}
		if !auth.IsZero() && auth.Before(sign) {
			ends[jpki.CardSign], caps[jpki.CardSign] = auth, append(caps[jpki.CardSign], auth)
		}
	}
	start := now.Truncate(time.Second)
	for j, r := range i.req.Requests {
		if !ends[r.Kind].After(now) {
			return jpki.Errorf(jpki.NoValidityLeft, "%s would end %s", r.Kind, ends[r.Kind].In(jpki.JST).Format(time.DateTime))
		}
		c := store.Certificate{
			Kind: r.Kind, Holder: p.holder.ID, Token: p.token.ID, KeyHash: i.keys[j].hash,
			NotBefore: start, NotAfter: ends[r.Kind], IssuedAt: now, Status: jpki.Status{State: jpki.Good, Since: start},
		}
		c.Replaces = lineageEnd(all, r.Kind)
		p.certificates, p.caps = append(p.certificates, c), append(p.caps, caps[r.Kind])
	}
	return nil
}

// lineageEnd returns the certificate of a kind that no other has replaced yet; nil for somebody who had none.
func lineageEnd(all []store.Certificate, k jpki.Kind) *jpki.CertID {
	replaced := map[jpki.CertID]bool{}
	for _, c := range all {
		if c.Replaces != nil {
			replaced[*c.Replaces] = true
		}
	}
	for _, c := range all {
		if c.Kind == k && !replaced[c.ID] {
			return &c.ID
		}
	}
	return nil
}

// subject gathers what goes into a planned certificate.
func (a *Authority) subject(p *issuePlan, by issuers, c *store.Certificate, key publicKey, caps []time.Time, name string) (*subject, error) {
	issuer := by[c.Kind.CA()]
	scope, ok := a.profile.CRLScope(a.statusURL, issuer.ID, c.Partition)
	if !ok {
		return nil, fmt.Errorf("partition %s is not in the profile", c.Partition)
	}
	return &subject{
		profile: a.profile, authority: a.profile.Authorities[c.Kind.CA()], kind: a.profile.Kinds[c.Kind], issuer: issuer,
		serial: c.ID.Serial, id: name, municipality: p.place, attributes: p.holder.Attributes,
		spki: key.spki, notBefore: c.NotBefore, notAfter: c.NotAfter, caps: caps, ocspURL: a.statusURL + "/ocsp", scope: scope,
	}, nil
}

// commonName draws an identifier that is no name: letters, then for a signature certificate the municipality's code.
func (a *Authority) commonName(k jpki.Kind, place Municipality) (string, error) {
	b := make([]byte, 20)
	if _, err := io.ReadFull(a.rand, b); err != nil {
		return "", fmt.Errorf("draw common name: %w", err)
	}
	for i := range b {
		b[i] = 'A' + b[i]%26
	}
	if k.CA() == jpki.SignCA {
		return string(b[:14]) + place.Code + "001A", nil
	}
	return string(b) + "001B", nil
}

func handOut(c store.Certificate, issuer []byte) Issued {
	return Issued{ID: c.ID, Kind: c.Kind, Certificate: c.DER, Issuer: issuer, NotAfter: c.NotAfter, Replaces: c.Replaces}
}

// issued reads back certificates that an earlier, equal request obtained; perhaps from an earlier generation.
func (a *Authority) issued(ctx context.Context, ids []jpki.CertID) ([]Issued, error) {
	out := make([]Issued, 0, len(ids))
	err := a.store.View(ctx, func(tx *store.Tx) error {
		generations, err := tx.Generations()
		if err != nil {
			return err
		}
		for _, id := range ids {
			c, err := tx.Certificate(id)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(generations, func(g store.Generation) bool { return g.Issuer == id.Issuer })
			if i < 0 {
				return fmt.Errorf("generation %s is not recorded", id.Issuer)
			}
			out = append(out, handOut(c, generations[i].Certificate))
		}
		return nil
	})
	return out, err
}

// identifier is the form of names that others give: of holders, tokens, events and idempotency keys.
var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$`)

func checkIdentifier(field, s string) error {
	if !identifier.MatchString(s) {
		return jpki.Errorf(jpki.Malformed, "%s must be 1 to 64 letters, digits, dots, colons, underscores or hyphens", field)
	}
	if jpki.ContainsMyNumber(s) {
		return jpki.Errorf(jpki.MyNumberPresent, "in %s", field)
	}
	return nil
}

func checkIdempotencyKey(key string) error {
	if key == "" {
		return jpki.Errorf(jpki.MissingIdempotency, "")
	}
	return checkIdentifier("Idempotency-Key", key)
}

// checkIssueRequest checks everything that needs no database.
func (p *Profile) checkIssueRequest(req *IssueRequest) ([]publicKey, error) {
	if err := errors.Join(checkIdempotencyKey(req.IdempotencyKey), checkIdentifier("holder", req.Holder), checkIdentifier("token", req.Token)); err != nil {
		return nil, err
	}
	if n := len(req.Requests); n < 1 || n > 2 {
		return nil, jpki.Errorf(jpki.Malformed, "one or two requests, not %d", n)
	}
	keys := make([]publicKey, len(req.Requests))
	for i, r := range req.Requests {
		if _, err := jpki.ParseKind(string(r.Kind)); err != nil {
			return nil, jpki.Errorf(jpki.Malformed, "%s", err)
		}
		if i == 0 {
			req.TokenType = r.Kind.Token()
		}
		if r.Kind.Token() != req.TokenType || slices.ContainsFunc(req.Requests[:i], func(o KeyRequest) bool { return o.Kind == r.Kind }) {
			return nil, jpki.Errorf(jpki.Malformed, "the requests must be for two kinds on one token")
		}
		var err error
		if keys[i], err = checkRequest(r.Request, p.Kinds[r.Kind].Keys); err != nil {
			return nil, err
		}
		if i > 0 && strings.EqualFold(keys[0].hash, keys[i].hash) {
			return nil, jpki.Errorf(jpki.KeyReused, "both requests are for one key")
		}
	}
	return keys, nil
}

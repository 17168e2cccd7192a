package sandbox

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/hsm/card"
	"github.com/openjpki/jpki/ocsp"
)

// PINs of the sandbox's cards. They are no secrets.
const (
	SignPIN = "SUNABA2026"
	AuthPIN = "1234"
)

// A story is the life of a card, told while it happens. Every step goes through the zones' own doors.
type story struct {
	s       *System
	lang    string
	out     io.Writer
	steps   int
	station *client.Client
	hotline *client.Client
	roll    *client.Client // the resident register
	bank    *Bank

	resident   Resident
	first      *card.Card
	second     *card.Card
	sign, auth []byte // the certificates of the first card, DER
	newSign    []byte // and of the second
	newAuth    []byte
	suspended  time.Time
	watched    watched // the customer, whom the bank follows
	user       string  // the holder's pseudonym at the bank
}

// tellLife plays the story; the error names the step that did not hold.
func (s *System) tellLife(ctx context.Context) (err error) {
	t := &story{s: s, lang: s.opt.Lang, out: s.opt.Out, bank: s.env.Bank()}
	if t.station, err = s.env.Station(); err != nil {
		return err
	}
	if t.hotline, err = s.env.Hotline(); err != nil {
		return err
	}
	if t.roll, err = s.env.Register(); err != nil {
		return err
	}
	t.resident = NewResident(int(time.Now().UnixNano() / 1000 % int64(len(residents))))
	defer func() { t.watched.stop() }()
	begin := time.Now()
	fmt.Fprintf(t.out, "\n%s\n\n", t.say("The life of a card — JPKI-SANDBOX, everything here is fictitious", "カードの一生 — JPKI-SANDBOX（すべて架空です）"))
	for _, step := range []struct {
		en, ja string
		do     func(context.Context) error
	}{
		{"A resident enters the register", "住民票に記載される", t.register},
		{"The counter issues two certificates to a new card", "窓口でカードに二つの電子証明書を発行する", t.issue},
		{"OCSP says: good", "OCSPは「有効」と答える", t.good},
		{"The holder signs an account application; the bank verifies it", "名義人が口座開設申込書に署名し、銀行が検証する", t.signature},
		{"The holder consents to the bank's keeping the address up to date", "名義人が、住所を最新に保つことに署名して同意する", t.consent},
		{"The holder logs in with the authentication certificate", "利用者証明用電子証明書でログインする", t.login},
		{"The holder's phone gets certificates, asked for with the card", "カードで申し込み、スマートフォンに電子証明書を搭載する", t.phone},
		{"3 a.m.: the card is lost, the call centre suspends it", "午前3時、カードを紛失。コールセンターが一時停止する", t.lose},
		{"The bank refuses the lost card", "銀行は紛失したカードを受け付けない", t.refuse},
		{"The counter issues a new card; the old one ends for good", "窓口で新しいカードを発行、古いカードは失効する", t.reissue},
		{"The bank learns who its customer is, and follows the customer", "銀行は顧客の利用者IDを受け取り、変更の通知を申し込む", t.watch},
		{"The holder moves; the signature certificate ends by law", "名義人が転居。署名用電子証明書は法律により失効する", t.move},
		{"The bank is told of a change, in its feed and by a webhook", "銀行に変更が通知される（フィードとWebhook）", t.told},
		{"The bank checks its customer again", "銀行が顧客の現況を確認する", t.recheck},
		{"With the next certificate the bank gets the new address, by consent", "新しい証明書の発行後、銀行が同意に基づき新住所を取得する", t.fetch},
		{"The holder reads who did what, and what for", "名義人が、誰が何のために利用したかを確認する", t.readRecord},
		{"The audit record proves all of it", "監査記録がすべてを証明する", t.prove},
	} {
		t.steps++
		start := time.Now()
		fmt.Fprintf(t.out, "%3d  %s", t.steps, pad(t.say(step.en, step.ja), 68))
		notes := t.collect(func() error { return step.do(ctx) })
		fmt.Fprintf(t.out, "%7d ms\n%s", time.Since(start).Milliseconds(), notes.text)
		if notes.err != nil {
			fmt.Fprintf(t.out, "\n%s\n", t.say("     This step did not hold: ", "     この段階は成り立ちませんでした: ")+notes.err.Error())
			return fmt.Errorf("step %d, %s: %w", t.steps, step.en, notes.err)
		}
	}
	fmt.Fprintf(t.out, "\n%s\n", fmt.Sprintf(t.say("All %d steps held, in %.1f s.", "全%d段階が成り立ちました（%.1f秒）。"), t.steps, time.Since(begin).Seconds()))
	return nil
}

// tellAddresses says where everything is once the story is over.
func (s *System) tellAddresses() {
	say := func(en, ja string) string { return Text{en, ja}.In(s.opt.Lang) }
	fmt.Fprintf(s.opt.Out, "\n%s\n\n", say("The sandbox stays up until Ctrl-C:", "サンドボックスは Ctrl-C まで動き続けます:"))
	for _, row := range [][2]string{
		{say("authority (mTLS)", "認証局 (mTLS)"), s.env.CAURL},
		{"OCSP", s.env.OCSPURL},
		{"CRL", s.env.CRLURL + "/" + s.keys.active[0].ID.String() + "/full.crl"},
		{say("verifier", "検証サービス"), s.env.VerifierURL + "/openapi.yaml"},
		{say("health, metrics", "稼働状況"), s.env.AdminURL + "/metrics"},
		{say("shell variables", "シェル変数"), s.dir.path("env")},
		{say("log", "ログ"), s.dir.path("log")},
	} {
		fmt.Fprintf(s.opt.Out, "  %s  %s\n", pad(row[0], 18), row[1])
	}
	fmt.Fprintln(s.opt.Out)
}

func (t *story) say(en, ja string) string { return Text{en, ja}.In(t.lang) }

// pad fills a text to a width on the terminal, where a Japanese character takes two places.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-runewidth.StringWidth(s)))
}

type told struct {
	text string
	err  error
}

// collect runs a step and gathers what it notes, so that the step's time can stand on the line above.
func (t *story) collect(do func() error) told {
	var b bytes.Buffer
	out := t.out
	t.out = &b
	err := do()
	t.out = out
	return told{b.String(), err}
}

func (t *story) note(en, ja string, args ...any) {
	fmt.Fprintf(t.out, "       "+t.say(en, ja)+"\n", args...)
}

func (t *story) register(ctx context.Context) error {
	if err := RegisterResident(ctx, t.roll, t.resident); err != nil {
		return err
	}
	a := t.resident.Attributes
	t.note("%s, %s", "%s、%s", a.Name, a.Address)
	return nil
}

func (t *story) newCard() (*card.Card, error) {
	return card.New(card.Config{Dir: t.s.env.CardDir, ID: "C" + rand.Text()[:12], SignPIN: SignPIN, AuthPIN: AuthPIN, Keys: t.s.profile.cards, Rand: rand.Reader})
}

func (t *story) personalise(ctx context.Context) (c *card.Card, sign, auth []byte, err error) {
	if c, err = t.newCard(); err != nil {
		return nil, nil, nil, err
	}
	issued, err := Personalise(ctx, t.station, c, t.resident.ID, SignPIN, AuthPIN, jpki.CardSign, jpki.CardAuth)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, i := range issued {
		t.note("%-9s  %s, until %s", "%-9s  %s、%sまで", i.Kind, i.ID, i.NotAfter.In(jpki.JST).Format(time.DateOnly))
	}
	if sign, err = c.Certificate(jpki.CardSign, SignPIN); err != nil {
		return nil, nil, nil, err
	}
	auth, err = c.Certificate(jpki.CardAuth, "")
	return c, sign, auth, err
}

func (t *story) issue(ctx context.Context) (err error) {
	t.first, t.sign, t.auth, err = t.personalise(ctx)
	return err
}

func (t *story) good(ctx context.Context) error {
	for _, der := range [][]byte{t.sign, t.auth} {
		if err := t.expectOCSP(ctx, der, "good"); err != nil {
			return err
		}
	}
	return nil
}

// phone asks with the card, enrols by ACME, and logs in without the card.
func (t *story) phone(ctx context.Context) error {
	i, err := t.s.env.BeginOwnPhone(ctx, t.first, SignPIN, NewPhone(), PhoneKinds()...)
	if err != nil {
		return err
	}
	got, err := t.s.env.EnrolPhone(ctx, i, "")
	if err != nil {
		return err
	}
	for _, c := range got {
		cert, err := x509.ParseCertificate(c.DER)
		if err != nil {
			return err
		}
		t.note("%-10s  until %s, as the card's", "%-10s  カードと同じく%sまで", c.Kind, cert.NotAfter.In(jpki.JST).Format(time.DateOnly))
		if err := t.expectOCSP(ctx, c.DER, "good"); err != nil {
			return err
		}
	}
	auth := got[len(got)-1]
	ch, err := t.bank.Challenge(ctx)
	if err != nil {
		return err
	}
	digest, hash := Digest(auth.Key.Public(), ch.Message)
	signature, err := auth.Key.Sign(rand.Reader, digest, hash)
	if err != nil {
		return err
	}
	v, err := t.bank.Login(ctx, ch.ID, auth.DER, signature)
	if err != nil {
		return err
	}
	if v.Indication != "TOTAL-PASSED" {
		return fmt.Errorf("log-in by the phone: %s (%s)", v.Indication, v.Code)
	}
	t.note("log-in by the phone: %s", "スマートフォンでログイン: %s", v.Indication)
	return nil
}

// application is what the holder signs.
const application = "口座開設申込書\n砂箱銀行 御中\n私は普通預金口座の開設を申し込みます。\n"

func (t *story) sendSignature(ctx context.Context, c *card.Card, certificate []byte) (Verdict, error) {
	digest, hash, signature, err := SignWith(c, jpki.CardSign, SignPIN, []byte(application))
	if err != nil {
		return Verdict{}, err
	}
	return t.bank.VerifySignature(ctx, certificate, digest, hash, signature)
}

func (t *story) signature(ctx context.Context) error {
	v, err := t.sendSignature(ctx, t.first, t.sign)
	if err != nil {
		return err
	}
	if v.Indication != "TOTAL-PASSED" || v.Attributes == nil {
		return fmt.Errorf("the bank found %s (%s)", v.Indication, v.Code)
	}
	got, want := *v.Attributes, t.resident.Attributes
	if got.Name != want.Name || got.Address != want.Address || got.Sex != want.Sex || got.BirthDate != want.BirthDate {
		return errors.New("the bank got other attributes than the register's")
	}
	t.note("%s: the bank learns name, address, birth date and sex", "%s: 銀行は氏名・住所・生年月日・性別を受け取る", v.Indication)
	return nil
}

func (t *story) tryLogin(ctx context.Context, c *card.Card, certificate []byte) (Verdict, error) {
	ch, err := t.bank.Challenge(ctx)
	if err != nil {
		return Verdict{}, err
	}
	_, _, signature, err := SignWith(c, jpki.CardAuth, AuthPIN, ch.Message)
	if err != nil {
		return Verdict{}, err
	}
	v, err := t.bank.Login(ctx, ch.ID, certificate, signature)
	if err != nil {
		return v, err
	}
	if _, err := t.bank.Login(ctx, ch.ID, certificate, signature); err == nil {
		return v, errors.New("the challenge could be used twice")
	} else if !errors.Is(err, jpki.ChallengeInvalid) {
		return v, err
	}
	return v, nil
}

func (t *story) login(ctx context.Context) error {
	v, err := t.tryLogin(ctx, t.first, t.auth)
	if err != nil {
		return err
	}
	if v.Indication != "TOTAL-PASSED" || v.Attributes != nil {
		return fmt.Errorf("the bank found %s (%s), attributes given: %v", v.Indication, v.Code, v.Attributes != nil)
	}
	t.note("%s: and the bank learns nothing else", "%s: 銀行はそれ以外何も知らない", v.Indication)
	return nil
}

func (t *story) lose(ctx context.Context) error {
	changed, err := t.hotline.Suspend(ctx, rand.Text(), client.Change{Token: t.first.ID(), Cause: jpki.Lost})
	if err != nil {
		return err
	}
	t.suspended = time.Now()
	if len(changed.Changed) != 2 {
		return fmt.Errorf("%d certificates were suspended", len(changed.Changed))
	}
	if err := t.expectOCSP(ctx, t.sign, "revoked (certificateHold)"); err != nil {
		return err
	}
	if err := t.expectOCSP(ctx, t.auth, "revoked (certificateHold)"); err != nil {
		return err
	}
	t.note("visible %d ms after it was confirmed", "確定から%dミリ秒で公開", time.Since(t.suspended).Milliseconds())
	return nil
}

func (t *story) refuse(ctx context.Context) error {
	v, err := t.sendSignature(ctx, t.first, t.sign)
	if err != nil {
		return err
	}
	if v.Code != "suspended" || v.Attributes != nil {
		return fmt.Errorf("the bank found %s (%s)", v.Indication, v.Code)
	}
	t.note("signature: %s, %s", "署名: %s、%s", v.Indication, v.Message.In(t.lang))
	if v, err = t.tryLogin(ctx, t.first, t.auth); err != nil {
		return err
	}
	if v.Code != "suspended" {
		return fmt.Errorf("the bank found %s (%s) at log-in", v.Indication, v.Code)
	}
	t.note("log-in:    %s, %s", "ログイン: %s、%s", v.Indication, v.Message.In(t.lang))
	return nil
}

func (t *story) reissue(ctx context.Context) (err error) {
	if t.second, t.newSign, t.newAuth, err = t.personalise(ctx); err != nil {
		return err
	}
	for der, want := range map[*[]byte]string{&t.sign: "revoked (superseded)", &t.auth: "revoked (superseded)", &t.newSign: "good", &t.newAuth: "good"} {
		if err := t.expectOCSP(ctx, *der, want); err != nil {
			return err
		}
	}
	return nil
}

func (t *story) move(ctx context.Context) error {
	next := t.resident.Attributes
	next.Address = "砂箱県港市海岸通九丁目１番２号"
	outcome, err := t.roll.ReportEvent(ctx, jpki.Event{
		ID: "moved." + t.resident.ID, Holder: t.resident.ID, Type: jpki.AddressChanged, EffectiveAt: time.Now().UTC().Truncate(time.Second), Municipality: "99202", Attributes: &next,
	})
	if err != nil {
		return err
	}
	if !outcome.Applied || len(outcome.Changed) != 1 || outcome.Changed[0].Kind != jpki.CardSign {
		return fmt.Errorf("the move changed %d certificates", len(outcome.Changed))
	}
	t.resident.Attributes, t.watched.moved = next, time.Now()
	if err := t.expectOCSP(ctx, t.newSign, "revoked (affiliationChanged)"); err != nil {
		return err
	}
	return t.expectOCSP(ctx, t.newAuth, "good")
}

func (t *story) recheck(ctx context.Context) error {
	v, err := t.bank.Status(ctx, t.newSign)
	if err != nil {
		return err
	}
	if v.Code != "revoked-attributes-changed" || v.Revocation == nil || v.Revocation.Reason != "affiliationChanged" {
		return fmt.Errorf("the bank found %s (%s)", v.Indication, v.Code)
	}
	t.note("%s", "%s", v.Message.In(t.lang))
	if v, err = t.tryLogin(ctx, t.second, t.newAuth); err != nil {
		return err
	}
	if v.Indication != "TOTAL-PASSED" {
		return fmt.Errorf("log-in after the move: %s (%s)", v.Indication, v.Code)
	}
	t.note("log-in goes on: the authentication certificate holds no address", "ログインは続けられる: 利用者証明用電子証明書に住所はない")
	return nil
}

func (t *story) prove(ctx context.Context) error {
	head, err := audit.Verify(t.s.db.AuditEntries(ctx), nil)
	if err != nil {
		return err
	}
	t.note("%d entries, each linked to the one before it", "%d件、それぞれ前の件につながっている", head.Seq)
	return nil
}

// visible is within which time a change of status has to show in every OCSP answer.
const visible = time.Second

// expectOCSP asks the responder about a certificate, checks the answer as a relying party would and compares. A responder
// may not have heard yet of a change that was just confirmed; an answer asked for later than visible must be right.
func (t *story) expectOCSP(ctx context.Context, der []byte, want string) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	issuer, err := t.s.env.Issuer(cert)
	if err != nil {
		return err
	}
	for first := time.Now(); ; time.Sleep(time.Millisecond) {
		last := time.Since(first) > visible
		answer, err := AskOCSP(ctx, t.s.env.OCSPURL, cert, issuer)
		if err != nil {
			return err
		}
		got := Describe(answer)
		if got == want {
			t.note("OCSP %s…: %s", "OCSP %s…: %s", answer.CertID.Serial.String()[:8], want)
			return nil
		}
		if last {
			return fmt.Errorf("OCSP says %s, want %s", got, want)
		}
	}
}

// AskOCSP asks a responder about one certificate and checks signature, responder, nonce and times of the answer.
func AskOCSP(ctx context.Context, url string, cert, issuer *x509.Certificate) (ocsp.Answer, error) {
	serial, err := jpki.SerialFromBig(cert.SerialNumber)
	if err != nil {
		return ocsp.Answer{}, err
	}
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return ocsp.Answer{}, err
	}
	request, err := ocsp.NewRequest(issuer, crypto.SHA256, nonce, serial)
	if err != nil {
		return ocsp.Answer{}, err
	}
	der, err := request.Marshal()
	if err != nil {
		return ocsp.Answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(der))
	if err != nil {
		return ocsp.Answer{}, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return ocsp.Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return ocsp.Answer{}, err
	}
	response, err := ocsp.ParseResponse(body)
	if err != nil {
		return ocsp.Answer{}, fmt.Errorf("read OCSP answer: %w", err)
	}
	now := time.Now()
	if err := response.Verify(ocsp.VerifyOptions{Issuer: issuer, At: now, Nonce: nonce, Skew: time.Minute}); err != nil {
		return ocsp.Answer{}, fmt.Errorf("check OCSP answer: %w", err)
	}
	answer, err := response.Answer(issuer, serial)
	if err != nil {
		return ocsp.Answer{}, err
	}
	return answer, answer.Fresh(now, time.Minute, time.Hour)
}

// Describe puts an OCSP answer into words: good, unknown, or revoked with its reason.
func Describe(a ocsp.Answer) string {
	switch {
	case a.Unknown:
		return "unknown"
	case a.Revoked:
		return "revoked (" + a.Reason.String() + ")"
	}
	return "good"
}

// CardPath returns where a card of the sandbox lies.
func (e Env) CardPath(id string) string { return filepath.Join(e.CardDir, id+".card") }

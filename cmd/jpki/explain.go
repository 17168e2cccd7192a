package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

func japanese() bool { return strings.HasPrefix(os.Getenv("LANG"), "ja") }

// blocks says what the building blocks of EN 319 102-1 are, for who does not know them by their letters.
var blocks = map[verifier.CheckID]verifier.Text{
	verifier.CheckFC:  {EN: "format", JA: "形式"},
	verifier.CheckISC: {EN: "signer's certificate", JA: "署名者の証明書"},
	verifier.CheckCV:  {EN: "signature value", JA: "署名値"},
	verifier.CheckVCI: {EN: "policy", JA: "検証ポリシー"},
	verifier.CheckSAV: {EN: "algorithms", JA: "アルゴリズム"},
	verifier.CheckVTS: {EN: "time", JA: "時刻"},
	verifier.CheckXCV: {EN: "certificate path", JA: "証明書チェーン"},
	verifier.CheckRFC: {EN: "revocation", JA: "失効確認"},
	verifier.CheckSVT: {EN: "validation token", JA: "検証トークン"},
}

// labels name the facts about a signature.
var labels = map[string]string{
	"signature": "署名", "signer": "署名者証明書", "issuer": "証明書の発行者", "covers": "署名対象", "claimed": "申告時刻", "time-stamp": "タイムスタンプ", "evidence": "失効情報",
	"policy of": "署名ポリシー", "its text": "その文書", "said to be": "文書の所在", "commits to": "署名の目的", "admitted": "認められるもの", "vouched by": "検証トークン",
}

// unreadable explains why there is no verdict at all on a file.
func unreadable(name string, size int64, err error, ja bool) error {
	var e *jpki.Error
	if !errors.As(err, &e) || e.Problem != jpki.Malformed && e.Problem != jpki.TooLarge {
		return err
	}
	what, advice := "this file has no signature that can be read: "+e.Detail,
		"If the signature is in a file of its own, verify that one and name this with -detached; otherwise ask for the file as the signing software wrote it."
	if size == 0 {
		what, advice = "the file is empty", "Ask for the file again; it was lost on the way."
	}
	if ja {
		what, advice = "署名を読み取れません（"+e.Detail+"）", "署名が別のファイルの場合は、そのファイルを検証し、本ファイルを -detached で指定してください。それ以外の場合は、署名ソフトウェアが出力したままのファイルを依頼してください。"
		if size == 0 {
			what, advice = "ファイルが空です", "ファイルの再送を依頼してください。"
		}
	}
	return fmt.Errorf("%s: %s [%s]\n  = %s", name, what, string(e.Problem), advice)
}

// explainDocument says what was checked, what failed and what to do, the verdict first.
func explainDocument(out io.Writer, name string, r *verifier.DocumentResult, ja bool) {
	say := func(t verifier.Text) string {
		if ja {
			return t.JA
		}
		return t.EN
	}
	label := func(text string) string {
		if ja {
			return labels[text]
		}
		return text
	}
	fact := func(text, format string, args ...any) {
		fmt.Fprintf(out, "  %-11s %s\n", label(text), strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
	verdict := func(v verifier.Verdict) string {
		return strings.TrimSpace(fmt.Sprintf("%s %s", v.Indication, v.SubIndication)) + " [" + string(v.Code) + "]"
	}
	fmt.Fprintf(out, "%s: %s\n  %s\n  = %s\n", name, verdict(r.Verdict), say(r.Message), say(r.Action))
	for i, s := range r.Signatures {
		fmt.Fprintf(out, "\n%s %d: %s, %s\n", label("signature"), i+1, verdict(s.Verdict), s.Level)
		if s.Code != r.Code {
			fmt.Fprintf(out, "  %s\n  = %s\n", say(s.Message), say(s.Action))
		}
		for _, k := range s.Checks {
			mark := "ok   "
			if !k.OK {
				mark = "STOP "
			}
			fmt.Fprintf(out, "  %s%-4s%s: %s\n", mark, k.ID, say(blocks[k.ID]), k.Detail)
		}
		if s.Signer != nil {
			fact("signer", "%s %s", s.Signer.SHA256, s.Signer.Kind)
		}
		switch s.Code { // what one needs to know to set it right
		case verifier.UntrustedIssuer:
			if c, err := x509.ParseCertificate(r.Evidence.Signatures[i].Certificate); err == nil {
				fact("issuer", "%.300q", c.Issuer.String())
			}
		case verifier.WeakAlgorithm:
			for _, a := range admitted(r.Policy.Name) {
				fact("admitted", "%s", a)
			}
		}
		covers := "part"
		if s.Scope.Whole {
			covers = "all"
		}
		fact("covers", "%s", strings.Join(strings.Fields(covers+" "+strings.Join(s.Scope.Parts, " ")+" "+s.Scope.Note), " "))
		if s.PolicyID != "" {
			fact("policy of", "%.200q", s.PolicyID)
		}
		if p := s.Policy; p != nil {
			fact("its text", "%s %s %s", p.State, p.Source, p.SHA256)
			if p.URI != "" {
				fact("said to be", "at %.200q", p.URI)
			}
		}
		for _, c := range s.Commitments {
			fact("commits to", "%.200q", c)
		}
		if !s.ClaimedTime.IsZero() {
			fact("claimed", "%s", s.ClaimedTime.Format(time.RFC3339))
		}
		for _, t := range s.TimeStamps {
			fact("time-stamp", "%s %s [%s] %s", t.Time.Format(time.RFC3339), t.Kind, t.Code, t.Detail)
		}
		for _, e := range s.Evidence {
			fact("evidence", "%s of %s from %s", e.Kind, e.ThisUpdate.UTC().Format(time.RFC3339), e.Source)
		}
		if t := s.Token; t != nil {
			fact("vouched by", "%.64q of %s by %.200q", t.ID, t.IssuedAt.Format(time.RFC3339), t.Issuer)
		}
		if a := s.Attributes; a != nil {
			fmt.Fprintf(out, "  氏名        %s\n  生年月日    %s\n  住所        %s\n", a.Name, birthDate(a.BirthDate), a.Address)
		}
	}
	for _, f := range r.Fetches {
		if f.Failed {
			fmt.Fprintf(out, "\n%s: asked in vain about %s\n", f.Source, f.Certificate)
		}
	}
	fmt.Fprintf(out, "\npolicy %s, sha256 %s, as of %s\n", r.Policy.Name, r.Policy.SHA256, r.ValidationTime.Format(time.RFC3339))
}

// admitted lists what one of the known policies admits.
func admitted(policy string) (out []string) {
	p, err := verifier.FindDocumentPolicy(policy)
	if err != nil {
		return nil
	}
	for _, a := range p.Algorithms {
		text := a.Key
		if a.MinBits > 0 {
			text += fmt.Sprintf(" from %d bits", a.MinBits)
		}
		out = append(out, text+" with "+strings.Join(a.Hashes, ", "))
	}
	return out
}

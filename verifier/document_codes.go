package verifier

import (
	"slices"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/path"
)

// The sub-indications that only documents have.
const (
	SubSigConstraintsFailure       SubIndication = "SIG_CONSTRAINTS_FAILURE"
	SubNoSigningCertificateFound   SubIndication = "NO_SIGNING_CERTIFICATE_FOUND"
	SubSignedDataNotFound          SubIndication = "SIGNED_DATA_NOT_FOUND"
	SubRevokedCANoPOE              SubIndication = "REVOKED_CA_NO_POE"
	SubTimeStampOrderFailure       SubIndication = "TIMESTAMP_ORDER_FAILURE"
	SubSignaturePolicyNotAvailable SubIndication = "SIGNATURE_POLICY_NOT_AVAILABLE"
	SubPolicyProcessingError       SubIndication = "POLICY_PROCESSING_ERROR"
	SubNoPOE                       SubIndication = "NO_POE"
)

// The codes that only documents have; a signature in a document may have those of [Codes] as well.
const (
	NoSignature               Code = "no-signature"                // nothing in the document is a signature
	MalformedSignature        Code = "malformed-signature"         // not as its format wants it
	ChangedAfterSigning       Code = "changed-after-signing"       // by what the format adds behind what was signed, and the signer did not allow
	SigningCertificateMissing Code = "signing-certificate-missing" // it is not at hand, or not the one that was named
	SigningCertificateUnnamed Code = "signing-certificate-unnamed" // the policy wants its name signed, and it is not
	SignaturePolicyUnknown    Code = "signature-policy-unknown"    // the signer demands rules that are not at hand
	SignaturePolicyMissing    Code = "signature-policy-missing"    // they are agreed to by name, and their text is not at hand
	SignaturePolicyMismatch   Code = "signature-policy-mismatch"   // their text is not the one that was signed
	SignatureExpired          Code = "signature-expired"           // by what the signer says of it
	SignedDataMissing         Code = "signed-data-missing"         // detached, and nobody brought it
	TimeStampOrder            Code = "time-stamp-order"            // time-stamps contradict one another
	ChainRefused              Code = "chain-refused"               // a rule of RFC 5280 for the certificates above the signer's is broken
	ChainNotEstablished       Code = "chain-not-established"       // too much work, given up
	IssuerRevoked             Code = "issuer-revoked"              // an authority on the way to the trust anchor
	UncoveredContent          Code = "uncovered-content"           // the signatures hold, but not for all of the document
	TimeStampNotChecked       Code = "time-stamp-not-checked"      // only of a time-stamp: of a superseded or rare kind
	TokenRefused              Code = "token-refused"               // not by an issuer that is believed, not for us, or not of this time
	TokenMissing              Code = "token-missing"               // no token is about this signature
	TokenNegative             Code = "token-negative"              // the token says that the signature was not passed, or not by our policy
)

// documentVerdicts goes on where verdicts ends.
var documentVerdicts = []verdict{
	{
		NoSignature, Indeterminate, "",
		Text{"The document has no signature.", "文書に署名がありません。"},
		Text{"Check that this is the signed file and not the original.", "署名前の原本ではなく署名済みのファイルか確認してください。"},
	},
	{
		MalformedSignature, TotalFailed, SubFormatFailure,
		Text{"The signature is not as its format wants it.", "署名の形式が規格に適合していません。"},
		Text{"Ask for the file as the signing software wrote it; it may have been damaged on the way.", "署名ソフトウェアが出力したままのファイルを依頼してください（途中で破損した可能性があります）。"},
	},
	{
		ChangedAfterSigning, TotalFailed, SubFormatFailure,
		Text{"The document was changed after signing in a way the signer did not allow.", "署名者が許可していない変更が署名後に加えられています。"},
		Text{"Refuse; ask for the document as it was signed, or for a new signature.", "拒否し、署名時の文書または新しい署名を依頼してください。"},
	},
	{
		SigningCertificateMissing, Indeterminate, SubNoSigningCertificateFound,
		Text{"The signer's certificate is not in the file, or not the one that the signature names.", "署名者の証明書がファイルにないか、署名が指す証明書と一致しません。"},
		Text{"Ask for a file with the signer's certificate.", "署名者の証明書を含むファイルを依頼してください。"},
	},
	{
		SigningCertificateUnnamed, Indeterminate, SubSigConstraintsFailure,
		Text{"The policy wants the signature to name its certificate, and it does not.", "ポリシーは署名対象に署名者証明書の参照を求めていますが、含まれていません。"},
		Text{"Ask for an AdES signature (CAdES, XAdES, PAdES or JAdES).", "先進電子署名形式（CAdES・XAdES・PAdES・JAdES）での署名を依頼してください。"},
	},
	{
		SignaturePolicyUnknown, Indeterminate, SubSignaturePolicyNotAvailable,
		Text{"The signer refers to a signature policy that this verifier's policy does not name.", "署名者が参照する署名ポリシーは、この検証ポリシーで認められていません。"},
		Text{"Read that policy and, if you agree, add its identifier to yours.", "その署名ポリシーの内容を確認し、同意できる場合は識別子を検証ポリシーに追加してください。"},
	},
	{
		SignaturePolicyMissing, Indeterminate, SubSignaturePolicyNotAvailable,
		Text{"The text of the signature policy is not at hand, so that it cannot be compared with what was signed.", "署名ポリシーの文書が手元にないため、署名時のものと照合できません。"},
		Text{"Give the verifier the document of that policy, from a place you trust.", "信頼できる入手元から署名ポリシーの文書を取得し、検証に指定してください。"},
	},
	{
		SignaturePolicyMismatch, Indeterminate, SubPolicyProcessingError,
		Text{"The text of the signature policy is not the one whose digest was signed.", "署名ポリシーの文書が、署名時に指定されたものと一致しません。"},
		Text{"Get the version of the policy that was in force when it was signed; if it is the right one, refuse.", "署名時に有効だった版の文書を入手してください。それでも一致しない場合は拒否してください。"},
	},
	{
		SignatureExpired, Indeterminate, SubSigConstraintsFailure,
		Text{"The signer says that the signature is not to be relied upon at this time.", "署名者が定めた署名の有効期間外です。"},
		Text{"Ask for a new signature.", "署名し直すよう依頼してください。"},
	},
	{
		SignedDataMissing, Indeterminate, SubSignedDataNotFound,
		Text{"The signature is detached and what was signed was not brought.", "分離署名ですが、署名対象のデータが渡されていません。"},
		Text{"Give the signed file together with the signature.", "署名対象のファイルを署名とともに指定してください。"},
	},
	{
		TimeStampOrder, Indeterminate, SubTimeStampOrderFailure,
		Text{"The time-stamps contradict one another.", "タイムスタンプの時刻の順序が矛盾しています。"},
		Text{"Refuse; ask for a new signature.", "拒否し、署名し直すよう依頼してください。"},
	},
	{
		ChainRefused, Indeterminate, SubCertificateChainGeneralFailure,
		Text{"The chain of certificates up to the trust anchor breaks a rule.", "トラストアンカーまでの証明書チェーンが規則に違反しています。"},
		Text{"Refuse; the detail of the check says which certificate and which rule.", "拒否してください（どの証明書がどの規則に反するかは検証の詳細にあります）。"},
	},
	{
		ChainNotEstablished, Indeterminate, SubCertificateChainGeneralFailure,
		Text{"The chain of certificates is beyond the limits on work.", "証明書チェーンの検証が処理量の上限を超えました。"},
		Text{"Refuse, unless you know why the file has so many certificates.", "多数の証明書を含む理由が分からない限り拒否してください。"},
	},
	{
		IssuerRevoked, Indeterminate, SubRevokedCANoPOE,
		Text{"A certification authority between the signer and the trust anchor is revoked.", "署名者とトラストアンカーの間の認証局が失効しています。"},
		Text{"Refuse, unless you have a proof from before the revocation.", "失効前に署名が存在した証拠がない限り拒否してください。"},
	},
	{
		UncoveredContent, Indeterminate, SubSigConstraintsFailure,
		Text{"The signatures are good, but part of the document is not covered by any.", "署名は有効ですが、文書の一部がどの署名の対象にもなっていません。"},
		Text{"Rely only on what the scope of each signature names.", "各署名の対象範囲に示された部分だけを信頼してください。"},
	},
	{
		TimeStampNotChecked, Indeterminate, SubNoPOE,
		Text{"The time-stamp is of a kind that is not checked here, and proves nothing.", "この種類のタイムスタンプは検証対象外のため、証拠として扱われません。"},
		Text{"Ask for an archive time-stamp of version 3 or a signature time-stamp.", "アーカイブタイムスタンプ（第3版）または署名タイムスタンプを依頼してください。"},
	},
	{
		TokenRefused, Indeterminate, SubNoPOE,
		Text{"The validation token is not one that may be relied upon here.", "この検証トークンはここでは信頼できません。"},
		Text{"Verify the document itself, or check which token issuers are configured.", "文書そのものを検証するか、設定されているトークン発行者を確認してください。"},
	},
	{
		TokenMissing, Indeterminate, SubNoPOE,
		Text{"No validation token is about this signature.", "この署名についての検証トークンがありません。"},
		Text{"Check that token and document belong together, or verify the document itself.", "トークンと文書の組み合わせを確認するか、文書そのものを検証してください。"},
	},
	{
		TokenNegative, Indeterminate, SubNoPOE,
		Text{"The validation token does not say that the signature passed under a policy accepted here.", "検証トークンは、ここで認められたポリシーによる検証の成功を示していません。"},
		Text{"Verify the document itself; a token never makes a verdict better than it was.", "文書そのものを検証してください（トークンが判定を良くすることはありません）。"},
	},
}

// DocumentCodes lists the codes that only documents have.
func DocumentCodes() []Code {
	out := make([]Code, len(documentVerdicts))
	for i, v := range documentVerdicts {
		out[i] = v.code
	}
	return out
}

func isCode(c Code) bool {
	is := func(v verdict) bool { return v.code == c }
	return slices.ContainsFunc(verdicts, is) || slices.ContainsFunc(documentVerdicts, is)
}

// A Verdict is what is said of a document or of one of its signatures.
type Verdict struct {
	Indication    Indication    `json:"indication"`
	SubIndication SubIndication `json:"sub_indication,omitempty"`
	Code          Code          `json:"code"`
	Message       Text          `json:"message"`
	Action        Text          `json:"action"`
	RetryAfter    int           `json:"retry_after_seconds,omitempty"` // with [StatusNotEstablished] and [Suspended]: when to ask again
}

// verdictOn returns the verdict of a code. final says that the signature was surely made after what is wrong began.
func verdictOn(code Code, final bool) Verdict {
	if i := slices.IndexFunc(documentVerdicts, func(v verdict) bool { return v.code == code }); i >= 0 {
		v := documentVerdicts[i]
		return Verdict{Indication: v.indication, SubIndication: v.sub, Code: code, Message: v.message, Action: v.action}
	}
	var r Result
	r.conclude(code, final)
	v := Verdict{Indication: r.Indication, SubIndication: r.SubIndication, Code: code, Message: r.Message, Action: r.Action}
	if code == StatusNotEstablished || code == Suspended {
		v.RetryAfter = int(defaultRetry.Seconds())
	}
	return v
}

// pathCodes gives our code to what package path says of the signer's certificate, and of one above it. A revocation and a
// status that was not established have a finer one: see statusCode.
var pathCodes = map[path.Code]struct{ signer, above Code }{
	path.OK:                 {OK, OK},
	path.NoIssuer:           {UntrustedIssuer, UntrustedIssuer},
	path.SignatureWrong:     {UntrustedIssuer, UntrustedIssuer},
	path.AlgorithmRefused:   {WeakAlgorithm, WeakAlgorithm},
	path.AlgorithmExpired:   {AlgorithmExpired, AlgorithmExpired},
	path.KeyRefused:         {WeakAlgorithm, WeakAlgorithm},
	path.Malformed:          {MalformedCertificate, ChainRefused},
	path.NotYetValid:        {NotYetValid, IssuerNotValid},
	path.Expired:            {Expired, IssuerNotValid},
	path.NotCA:              {ChainRefused, ChainRefused},
	path.KeyUsageWrong:      {WrongKeyUsage, ChainRefused},
	path.PathTooLong:        {ChainRefused, ChainRefused},
	path.NameNotAdmitted:    {ChainRefused, ChainRefused},
	path.PolicyMissing:      {WrongPolicy, WrongPolicy},
	path.PolicyMappingWrong: {ChainRefused, ChainRefused},
	path.UnknownCritical:    {UnknownCriticalExtension, ChainRefused},
	path.PurposeWrong:       {WrongKeyUsage, ChainRefused},
	path.NameMismatch:       {ChainRefused, ChainRefused},
	path.ProfileViolated:    {ChainRefused, ChainRefused},
	path.Revoked:            {RevokedUnspecified, IssuerRevoked},
	path.StatusUndetermined: {StatusNotEstablished, StatusNotEstablished},
	path.LimitReached:       {ChainNotEstablished, ChainNotEstablished},
}

// codeOf returns our code for a path's verdict.
func codeOf(res *path.Result) Code {
	row := pathCodes[res.Code]
	if res.Index > 0 {
		if st := statusOf(res); st != nil && res.Code == path.Revoked && st.Reason == jpki.CertificateHold {
			return Suspended
		}
		return row.above
	}
	st := statusOf(res)
	switch {
	case res.Code == path.Revoked && st != nil:
		if code, known := revocationCodes[st.Reason]; known {
			return code
		}
	case res.Code == path.StatusUndetermined && st != nil && st.Why == path.CertificateUnknown:
		return CertificateUnknown
	case res.Code == path.StatusUndetermined && st != nil && st.Why == path.AfterExpiry:
		return StatusAfterExpiry
	}
	return row.signer
}

// statusOf returns the status the verdict is about, if it is about one.
func statusOf(res *path.Result) *path.Status {
	if res.Index < 0 || res.Index >= len(res.Statuses) {
		return nil
	}
	return &res.Statuses[res.Index]
}

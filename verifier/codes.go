package verifier

import (
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// An Indication is the verdict in the words of ETSI EN 319 102-1 §5.1.3.
type Indication string

// The indications. Only the first permits to rely on what was checked.
const (
	TotalPassed   Indication = "TOTAL-PASSED"
	Indeterminate Indication = "INDETERMINATE"
	TotalFailed   Indication = "TOTAL-FAILED"
)

// A SubIndication is the reason for a verdict in the words of ETSI EN 319 102-1 §5.1.3; empty for TOTAL-PASSED.
type SubIndication string

// The sub-indications in use.
const (
	SubFormatFailure                  SubIndication = "FORMAT_FAILURE"
	SubHashFailure                    SubIndication = "HASH_FAILURE"
	SubSigCryptoFailure               SubIndication = "SIG_CRYPTO_FAILURE"
	SubRevoked                        SubIndication = "REVOKED"
	SubRevokedNoPOE                   SubIndication = "REVOKED_NO_POE"
	SubExpired                        SubIndication = "EXPIRED"
	SubNotYetValid                    SubIndication = "NOT_YET_VALID"
	SubOutOfBoundsNoPOE               SubIndication = "OUT_OF_BOUNDS_NO_POE"
	SubNoCertificateChainFound        SubIndication = "NO_CERTIFICATE_CHAIN_FOUND"
	SubCertificateChainGeneralFailure SubIndication = "CERTIFICATE_CHAIN_GENERAL_FAILURE"
	SubChainConstraintsFailure        SubIndication = "CHAIN_CONSTRAINTS_FAILURE"
	SubCryptoConstraintsFailure       SubIndication = "CRYPTO_CONSTRAINTS_FAILURE"
	SubCryptoConstraintsFailureNoPOE  SubIndication = "CRYPTO_CONSTRAINTS_FAILURE_NO_POE"
	SubTryLater                       SubIndication = "TRY_LATER"
)

// A Code is our own stable name for a verdict: finer than a [SubIndication], a closed list, fit for branching on.
type Code string

// The codes. Their order is that of the checks.
const (
	OK                       Code = "ok"
	MalformedCertificate     Code = "malformed-certificate"      // not a certificate, or beyond a limit
	UnknownCriticalExtension Code = "unknown-critical-extension" // marked critical and not understood here
	UntrustedIssuer          Code = "untrusted-issuer"           // no trust anchor made it
	IssuerNotValid           Code = "issuer-not-valid"           // the trust anchor is outside its own validity
	WeakAlgorithm            Code = "weak-algorithm"             // the policy does not admit algorithm or key size
	AlgorithmExpired         Code = "algorithm-expired"          // the policy admits it for an earlier time only
	NotYetValid              Code = "not-yet-valid"
	Expired                  Code = "expired"
	CACertificate            Code = "ca-certificate"   // an authority's certificate where a person's is due
	WrongPurpose             Code = "wrong-purpose"    // an authentication certificate used to sign, or the reverse
	WrongPolicy              Code = "wrong-policy"     // the certificate policy is none the policy names
	WrongIssuer              Code = "wrong-issuer"     // a trust anchor made it, but not one for this purpose
	WrongKeyUsage            Code = "wrong-key-usage"  // key usage or extended key usage contradicts the purpose
	WrongAttributes          Code = "wrong-attributes" // the four attributes are missing or not in the agreed form
	DigestMismatch           Code = "digest-mismatch"  // made by this key, over other data
	SignatureWrong           Code = "signature-wrong"
	StatusNotEstablished     Code = "status-not-established" // Result.StatusFailure says why
	CertificateUnknown       Code = "certificate-unknown"    // the authority says that it never issued it
	StatusAfterExpiry        Code = "status-after-expiry"    // good, but said after it expired: a revocation may be forgotten
	Suspended                Code = "suspended"
	RevokedUnspecified       Code = "revoked-unspecified"
	RevokedKeyCompromise     Code = "revoked-key-compromise"
	RevokedCACompromise      Code = "revoked-ca-compromise"
	RevokedAttributesChanged Code = "revoked-attributes-changed" // the holder moved, or another attribute changed
	RevokedSuperseded        Code = "revoked-superseded"
	RevokedCeased            Code = "revoked-ceased"
)

// revocationCodes maps what is published of a revocation; any other reason is [RevokedUnspecified].
var revocationCodes = map[jpki.Reason]Code{
	jpki.KeyCompromise:        RevokedKeyCompromise,
	jpki.CACompromise:         RevokedCACompromise,
	jpki.AffiliationChanged:   RevokedAttributesChanged,
	jpki.Superseded:           RevokedSuperseded,
	jpki.CessationOfOperation: RevokedCeased,
	jpki.CertificateHold:      Suspended,
}

// A Text is a sentence for people.
type Text struct {
	EN string `json:"en"`
	JA string `json:"ja"`
}

// defaultRetry is how long to wait when the source of statuses does not say.
const defaultRetry = 30 * time.Second

type verdict struct {
	code       Code
	indication Indication
	sub        SubIndication
	message    Text
	action     Text
}

// verdicts is the only place where codes get a meaning: the verdict for a signature whose time of making is not proven,
// what it says to people, and what they should do.
var verdicts = []verdict{
	{
		OK, TotalPassed, "",
		Text{"Every check passed.", "すべての検証に成功しました。"},
		Text{"Keep this result as evidence.", "この結果を証跡として保存してください。"},
	},
	{
		MalformedCertificate, TotalFailed, SubFormatFailure,
		Text{"What was sent as a certificate is not one.", "送信されたデータは正しい証明書ではありません。"},
		Text{"Read the certificate from the card again and send its DER unchanged.", "カードから証明書を読み直し、DER のまま送信してください。"},
	},
	{
		UnknownCriticalExtension, Indeterminate, SubCertificateChainGeneralFailure,
		Text{"The certificate has a critical extension that this software does not understand.", "証明書に、このソフトウェアが解釈できない重要 (critical) 拡張が含まれています。"},
		Text{"Update this software; do not rely on the certificate until then.", "ソフトウェアを更新してください。それまでこの証明書を信頼しないでください。"},
	},
	{
		UntrustedIssuer, Indeterminate, SubNoCertificateChainFound,
		Text{"No trusted authority issued the certificate.", "信頼する認証局が発行した証明書ではありません。"},
		Text{"Check that the trust anchors of every generation are configured; otherwise refuse.", "全世代のトラストアンカーが設定されているか確認し、設定に問題がなければ拒否してください。"},
	},
	{
		IssuerNotValid, Indeterminate, SubCertificateChainGeneralFailure,
		Text{"The authority's own certificate was not valid at that time.", "その時点で認証局の証明書が有効期間外です。"},
		Text{"Check the time asked about and the configured trust anchors.", "検証時刻と設定されたトラストアンカーを確認してください。"},
	},
	{
		WeakAlgorithm, Indeterminate, SubCryptoConstraintsFailure,
		Text{"The policy does not admit this algorithm or key size.", "この暗号アルゴリズムまたは鍵長はポリシーで認められていません。"},
		Text{"Ask for a signature with an admitted algorithm.", "認められたアルゴリズムで署名し直すよう依頼してください。"},
	},
	{
		AlgorithmExpired, Indeterminate, SubCryptoConstraintsFailureNoPOE,
		Text{"The policy relies on this algorithm or key size only for signatures made earlier.", "この暗号アルゴリズムまたは鍵長は、より以前に行われた署名についてのみポリシーで認められています。"},
		Text{
			"If you have a proof that the signature existed before, bring it; otherwise ask for a signature with an admitted algorithm.",
			"それ以前に署名が存在した証拠があれば併せて検証し、なければ認められたアルゴリズムで署名し直すよう依頼してください。",
		},
	},
	{
		NotYetValid, TotalFailed, SubNotYetValid,
		Text{"The certificate was not yet valid at that time.", "その時点で証明書の有効期間が始まっていません。"},
		Text{"Check the clock and the time asked about.", "時計と検証時刻を確認してください。"},
	},
	{
		Expired, Indeterminate, SubOutOfBoundsNoPOE,
		Text{"The certificate had expired at that time.", "その時点で証明書の有効期限が切れています。"},
		Text{
			"If you recorded when you received the signature, ask about that time; otherwise ask the customer to renew and to sign again.",
			"署名の受領日時を記録している場合はその日時で検証してください。記録がない場合は、証明書を更新して署名し直すようお客様に依頼してください。",
		},
	},
	{
		CACertificate, Indeterminate, SubChainConstraintsFailure,
		Text{"This is an authority's certificate, not a person's.", "個人の証明書ではなく認証局の証明書です。"},
		Text{"Read the holder's certificate from the card and send that.", "カードから利用者本人の証明書を読み出して送信してください。"},
	},
	{
		WrongPurpose, Indeterminate, SubChainConstraintsFailure,
		Text{
			"The certificate is for another purpose: one for authentication was used to sign, or the reverse.",
			"証明書の用途が異なります（利用者証明用で署名した、または署名用で認証した）。",
		},
		Text{
			"Ask the customer to use the right certificate: the signature PIN (6 to 16 characters) to sign, the four-digit PIN to log in.",
			"正しい証明書を使うよう依頼してください（署名は6～16文字の署名用暗証番号、ログインは4桁の利用者証明用暗証番号）。",
		},
	},
	{
		WrongPolicy, Indeterminate, SubChainConstraintsFailure,
		Text{"The certificate was issued under a certificate policy that is not accepted.", "受け入れていない証明書ポリシーで発行された証明書です。"},
		Text{"Check that production and test certificates are not mixed; otherwise refuse.", "本番用と試験用の証明書を取り違えていないか確認し、問題がなければ拒否してください。"},
	},
	{
		WrongIssuer, Indeterminate, SubChainConstraintsFailure,
		Text{"A trusted authority issued the certificate, but not the one for this purpose.", "信頼する認証局の証明書ですが、この用途の認証局が発行したものではありません。"},
		Text{"Refuse; if it happens again, report it to the authority.", "拒否してください。繰り返す場合は認証局に報告してください。"},
	},
	{
		WrongKeyUsage, Indeterminate, SubChainConstraintsFailure,
		Text{"The certificate's key usage does not fit the purpose.", "証明書の鍵用途が目的に合っていません。"},
		Text{"Refuse; if it happens again, report it to the authority.", "拒否してください。繰り返す場合は認証局に報告してください。"},
	},
	{
		WrongAttributes, Indeterminate, SubChainConstraintsFailure,
		Text{"The signature certificate does not carry the four attributes in the agreed form.", "署名用証明書の基本4情報が規定の形式ではありません。"},
		Text{"Refuse; if it happens again, report it to the authority.", "拒否してください。繰り返す場合は認証局に報告してください。"},
	},
	{
		DigestMismatch, TotalFailed, SubHashFailure,
		Text{"The signature was made with this certificate's key, but over other data.", "この証明書の鍵による署名ですが、署名対象のデータが異なります。"},
		Text{
			"Compare the document with what the customer signed, byte for byte; ask for a new signature if it changed.",
			"文書がお客様の署名した内容と完全に一致するか確認し、変更されていれば署名し直すよう依頼してください。",
		},
	},
	{
		SignatureWrong, TotalFailed, SubSigCryptoFailure,
		Text{"The signature is not by this certificate's key over this data.", "署名が、この証明書の鍵およびデータと一致しません。"},
		Text{
			"Check that certificate, digest, hash algorithm and signature belong together; otherwise refuse.",
			"証明書・ダイジェスト・ハッシュ方式・署名値の組み合わせを確認し、正しければ拒否してください。",
		},
	},
	{
		StatusNotEstablished, Indeterminate, SubTryLater,
		Text{"It could not be established whether the certificate is revoked.", "証明書の失効状態を確認できませんでした。"},
		Text{"Do not accept it yet; try again after the time stated.", "まだ受け入れず、示された時間の経過後に再試行してください。"},
	},
	{
		CertificateUnknown, Indeterminate, SubCertificateChainGeneralFailure,
		Text{"The authority says that it never issued this certificate.", "認証局は、この証明書を発行した記録がないと回答しました。"},
		Text{"Refuse and report it to the authority at once.", "拒否し、直ちに認証局へ報告してください。"},
	},
	{
		StatusAfterExpiry, Indeterminate, SubOutOfBoundsNoPOE,
		Text{"The certificate has expired since; its status of that time can no longer be established.", "証明書はその後期限切れとなり、当時の失効状態を確認できません。"},
		Text{"Use the evidence kept from the verification of that time.", "当時の検証で保存した証跡を使用してください。"},
	},
	{
		Suspended, Indeterminate, SubTryLater,
		Text{"The certificate is suspended: its holder may have lost the card or phone.", "証明書は一時停止中です（カードまたは端末の紛失などの届出があります）。"},
		Text{
			"Do not accept it. Ask the customer to have it released or replaced, then to sign again.",
			"受け入れないでください。一時停止の解除または再発行の後、署名し直すようお客様に依頼してください。",
		},
	},
	{
		RevokedUnspecified, Indeterminate, SubRevokedNoPOE,
		Text{"The certificate is revoked; no reason is published.", "証明書は失効しています（理由は公表されていません）。"},
		Text{"Do not accept it; ask the customer to use a new certificate.", "受け入れず、新しい証明書を使うようお客様に依頼してください。"},
	},
	{
		RevokedKeyCompromise, Indeterminate, SubRevokedNoPOE,
		Text{"The certificate is revoked: somebody else may have its key.", "証明書は失効しています（鍵が他人に渡ったおそれがあります）。"},
		Text{"Refuse; review what was accepted with this certificate lately.", "拒否し、この証明書で最近受け付けた取引を点検してください。"},
	},
	{
		RevokedCACompromise, Indeterminate, SubRevokedNoPOE,
		Text{"The certificate is revoked: the authority's key is compromised.", "証明書は失効しています（認証局の鍵が危殆化しました）。"},
		Text{"Refuse and follow the authority's announcements.", "拒否し、認証局の告知に従ってください。"},
	},
	{
		RevokedAttributesChanged, Indeterminate, SubRevokedNoPOE,
		Text{
			"The certificate is revoked: the holder's name, address, birth date or sex has changed.",
			"証明書は失効しています（氏名・住所・生年月日・性別のいずれかが変わりました）。",
		},
		Text{
			"Update the customer's record: fetch the new attributes if the customer consented, otherwise ask for a signature with the new certificate. " +
				"What was verified and recorded before the change stays good.",
			"顧客情報を更新してください。同意があれば最新の基本4情報を取得し、なければ新しい証明書での署名を依頼してください。変更前に検証・記録した署名の有効性は変わりません。",
		},
	},
	{
		RevokedSuperseded, Indeterminate, SubRevokedNoPOE,
		Text{"The certificate is revoked: a new one took its place.", "証明書は失効しています（新しい証明書に更新されました）。"},
		Text{"Ask the customer to use the new certificate.", "新しい証明書を使うようお客様に依頼してください。"},
	},
	{
		RevokedCeased, Indeterminate, SubRevokedNoPOE,
		Text{"The certificate is revoked: it is no longer in use.", "証明書は失効しています（使用されなくなりました）。"},
		Text{"Do not accept it; check with the customer.", "受け入れず、お客様に確認してください。"},
	},
}

// Codes lists every code, in the order of the checks.
func Codes() []Code {
	out := make([]Code, len(verdicts))
	for i, v := range verdicts {
		out[i] = v.code
	}
	return out
}

// conclude writes the verdict of a code into the result. When it is known that what was signed was signed at the time
// asked about, as at a log-in, being expired or revoked is final: EN 319 102-1 doubts only where there is no proof of
// existence before that.
func (r *Result) conclude(code Code, timeKnown bool) {
	v := verdicts[slices.IndexFunc(verdicts, func(v verdict) bool { return v.code == code })]
	r.Code, r.Indication, r.SubIndication, r.Message, r.Action = code, v.indication, v.sub, v.message, v.action
	switch {
	case timeKnown && v.sub == SubRevokedNoPOE:
		r.Indication, r.SubIndication = TotalFailed, SubRevoked
	case timeKnown && code == AlgorithmExpired:
		r.SubIndication = SubCryptoConstraintsFailure
	case timeKnown && code == Expired:
		r.Indication, r.SubIndication = TotalFailed, SubExpired
	}
}

package main

// A sentence is what the customer is told. The verifier's own messages are for the bank's staff.
type sentence struct {
	ja, en string
	again  bool // the same application may be sent again later
}

var (
	signAgain = sentence{ja: "申込書をもう一度開き、署名をやり直してください。", en: "Please open the application again and sign it once more."}
	newCard   = sentence{ja: "この電子証明書は使えなくなっています。お住まいの市区町村の窓口で新しい電子証明書の発行を受けてから、もう一度お申し込みください。", en: "This certificate can no longer be used. Please have a new one issued by your municipality and apply again."}
	ourFault  = sentence{ja: "当行のシステムの都合により受け付けられませんでした。ご迷惑をおかけします。時間をおいてお試しください。", en: "We could not take your application because of a fault of ours. We are sorry; please try again later.", again: true}
	soon      = sentence{ja: "ただいま電子証明書を確認できません。数分後にもう一度お試しください。入力し直す必要はありません。", en: "We cannot check your certificate at the moment. Please try again in a few minutes; you need not enter anything anew.", again: true}
	notTaken  = sentence{ja: "お申し込みを受け付けられませんでした。窓口へお問い合わせください。", en: "We cannot accept this application. Please contact our branch."}
)

// sentences are by a verdict's code or a problem's name. Everything else is refused without a reason.
var sentences = map[string]sentence{
	"digest-mismatch":       signAgain,
	"signature-wrong":       signAgain,
	"malformed-certificate": {ja: "カードを正しく読み取れませんでした。カードをもう一度かざしてください。", en: "Your card was not read properly. Please hold it to the reader again."},
	"wrong-purpose": {
		ja: "署名用の電子証明書をお使いください。英数字6～16文字の署名用パスワードを入力します（数字4桁の暗証番号ではありません）。",
		en: "Please use the signature certificate: its password has 6 to 16 letters and digits, not four digits.",
	},
	"expired": {ja: "電子証明書の有効期限が切れています。市区町村の窓口で更新してから、もう一度お申し込みください。", en: "Your certificate has expired. Please renew it at your municipality and apply again."},
	"revoked-attributes-changed": {
		ja: "ご住所やお名前の変更により、署名用電子証明書が失効しています。市区町村の窓口で新しい署名用電子証明書の発行を受けてから、もう一度お申し込みください。",
		en: "Your signature certificate ended when your address or name changed. Please have a new one issued by your municipality and apply again.",
	},
	"revoked-superseded":     {ja: "新しい電子証明書が発行されています。新しいカードでもう一度お申し込みください。", en: "A newer certificate was issued to you. Please apply again with the new card."},
	"revoked-unspecified":    newCard,
	"revoked-ceased":         newCard,
	"revoked-key-compromise": newCard,
	"suspended": {
		ja: "この電子証明書は一時停止中です。カードを紛失された方、またはお心当たりのない方は、個人番号カードコールセンターへご連絡ください。",
		en: "This certificate is suspended. If you have lost your card, or know nothing of it, please call the card's call centre.",
	},
	"status-not-established": soon,
	"deadline-exceeded":      soon,
	"rate-limited":           soon,
	"unavailable":            soon,
	"in-progress":            soon,
	"not-yet-valid":          ourFault, // most likely our clock
	"issuer-not-valid":       ourFault,
	"malformed":              ourFault,
	"my-number-present":      ourFault,
	"unauthorized":           ourFault,
	"forbidden":              ourFault,
	"unknown-tenant":         ourFault,
	"internal":               ourFault,
}

func sentenceFor(code string) sentence {
	if s, ok := sentences[code]; ok {
		return s
	}
	return notTaken
}

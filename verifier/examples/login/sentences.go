package main

// A sentence is what the customer is told. The verifier's own messages are for the bank's staff.
type sentence struct {
	ja, en string
	again  bool // nothing is wrong with the card
}

var (
	newCard  = sentence{ja: "このカードの電子証明書は使えなくなっています。新しいカードでログインするか、市区町村の窓口へお問い合わせください。", en: "This card's certificate can no longer be used. Please log in with your new card, or ask your municipality."}
	soon     = sentence{ja: "ただいまログインできません。数分後にもう一度お試しください。", en: "You cannot log in at the moment. Please try again in a few minutes.", again: true}
	readCard = sentence{ja: "カードを正しく読み取れませんでした。カードをもう一度かざしてください。", en: "Your card was not read properly. Please hold it to the reader again."}
	notIn    = sentence{ja: "ログインできませんでした。窓口へお問い合わせください。", en: "You could not be logged in. Please contact our branch."}
)

// sentences are by a verdict's code or a problem's name. Everything else is refused without a reason.
var sentences = map[string]sentence{
	"challenge-invalid":     {ja: "時間切れになったか、このページは一度使われています。もう一度お試しください。", en: "It took too long, or this page was used before. Please try again."},
	"malformed-certificate": readCard,
	"digest-mismatch":       readCard,
	"signature-wrong":       readCard,
	"wrong-purpose": {
		ja: "利用者証明用の電子証明書をお使いください。数字4桁の暗証番号を入力します（英数字の署名用パスワードではありません）。",
		en: "Please use the authentication certificate: its PIN has four digits, not the letters and digits of the signature password.",
	},
	"expired": {ja: "電子証明書の有効期限が切れています。市区町村の窓口で更新してください。", en: "Your certificate has expired. Please renew it at your municipality."},
	"suspended": {
		ja: "この電子証明書は一時停止中です。カードを紛失された方、またはお心当たりのない方は、個人番号カードコールセンターへご連絡ください。",
		en: "This certificate is suspended. If you have lost your card, or know nothing of it, please call the card's call centre.",
	},
	"revoked-superseded":         newCard,
	"revoked-unspecified":        newCard,
	"revoked-ceased":             newCard,
	"revoked-key-compromise":     newCard,
	"revoked-attributes-changed": newCard,
	"status-not-established":     soon,
	"deadline-exceeded":          soon,
	"rate-limited":               soon,
	"unavailable":                soon,
	"in-progress":                soon,
	"not-yet-valid":              soon, // most likely our clock
	"issuer-not-valid":           soon,
	"malformed":                  soon, // faults of our own
	"unauthorized":               soon,
	"forbidden":                  soon,
	"internal":                   soon,
}

func sentenceFor(code string) sentence {
	if s, ok := sentences[code]; ok {
		return s
	}
	return notIn
}

package jpki

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
)

// ProblemBase is what a problem's type URI begins with; the rest is its name, an anchor in docs/problems.md.
const ProblemBase = "https://github.com/openjpki/jpki/blob/main/docs/problems.md#"

// problems says how each problem appears over HTTP and to people. It is the only table of HTTP status codes.
var problems = map[Problem]struct {
	status int
	en, ja string
}{
	Malformed:                {http.StatusBadRequest, "The request is not well formed", "リクエストの形式が正しくありません"},
	TooLarge:                 {http.StatusRequestEntityTooLarge, "The request is too large", "リクエストが大きすぎます"},
	MyNumberPresent:          {http.StatusUnprocessableEntity, "The request contains a My Number", "リクエストに個人番号が含まれています"},
	BadRequestProof:          {http.StatusUnprocessableEntity, "The certification request is not signed by its own key", "証明書発行要求の署名がその鍵によるものではありません"},
	WeakKey:                  {http.StatusUnprocessableEntity, "The key is not admitted", "この鍵は認められません"},
	KeyReused:                {http.StatusConflict, "The key is already certified", "この鍵には既に証明書があります"},
	MissingIdempotency:       {http.StatusBadRequest, "An Idempotency-Key header is required", "Idempotency-Key ヘッダーが必要です"},
	IdempotencyReused:        {http.StatusUnprocessableEntity, "The Idempotency-Key was used for another request", "同じ Idempotency-Key が別のリクエストに使われています"},
	NoClientCertificate:      {http.StatusUnauthorized, "A client certificate is required", "クライアント証明書が必要です"},
	ClientCertificateExpired: {http.StatusUnauthorized, "The client certificate is outside its validity", "クライアント証明書が有効期間外です"},
	ClientCertificateInvalid: {http.StatusUnauthorized, "The client certificate is not trusted", "クライアント証明書が信頼できません"},
	UnknownStation:           {http.StatusForbidden, "The station is not enrolled", "登録されていない窓口端末です"},
	WrongMunicipality:        {http.StatusForbidden, "The station acts for another municipality", "この窓口端末は別の市区町村のものです"},
	Unauthorized:             {http.StatusUnauthorized, "A valid access token is required", "有効なアクセストークンが必要です"},
	Forbidden:                {http.StatusForbidden, "The caller may not do this", "この操作は許可されていません"},
	NotFound:                 {http.StatusNotFound, "There is no such thing here", "見つかりません"},
	UnknownHolder:            {http.StatusNotFound, "The holder is not in the register", "名義人が登録されていません"},
	UnknownToken:             {http.StatusNotFound, "The card or phone is not known", "カードまたは端末が登録されていません"},
	UnknownCertificate:       {http.StatusNotFound, "The certificate is not known", "証明書が見つかりません"},
	NotEligible:              {http.StatusUnprocessableEntity, "The holder may not have this certificate", "名義人はこの証明書の発行対象ではありません"},
	AlreadyCertified:         {http.StatusConflict, "A certificate of this kind is in force already", "同種の有効な証明書が既にあります"},
	NotRenewable:             {http.StatusConflict, "The certificate cannot be renewed now", "証明書は現在更新できません"},
	NoValidityLeft:           {http.StatusConflict, "The certificate would already have expired", "証明書の有効期間が残りません"},
	ForbiddenChange:          {http.StatusConflict, "The certificate's state does not allow this", "証明書の状態によりこの操作はできません"},
	EventConflict:            {http.StatusConflict, "The event identifier was used for another event", "同じ異動番号が別の異動に使われています"},
	Conflict:                 {http.StatusConflict, "Somebody else changed this at the same time", "同時に他の変更がありました"},
	ChallengeInvalid:         {http.StatusConflict, "The challenge is unknown, used, expired or bound elsewhere", "チャレンジが無効です（不明・使用済み・期限切れ・不一致）"},
	EvidenceNotKept:          {http.StatusConflict, "What this takes was not kept", "必要な証拠データが保存されていません"},
	UnknownTenant:            {http.StatusForbidden, "The caller does not act for this relying party", "この事業者を代行する登録がありません"},
	UnknownUser:              {http.StatusNotFound, "The relying party knows no such user", "この利用者は登録されていません"},
	ConsentRequired:          {http.StatusForbidden, "No consent in force covers this", "有効な同意がありません"},
	NotAvailableYet:          {http.StatusConflict, "There is nothing newer yet", "新しい情報はまだありません"},
	CursorExpired:            {http.StatusGone, "The position is too old", "指定された位置は保存期間を過ぎています"},
	InProgress:               {http.StatusConflict, "The same request is being worked on", "同じリクエストを処理中です"},
	RateLimited:              {http.StatusTooManyRequests, "Too many requests", "リクエストが多すぎます"},
	Unavailable:              {http.StatusServiceUnavailable, "The service cannot answer now", "現在応答できません"},
	DeadlineExceeded:         {http.StatusGatewayTimeout, "It took longer than allowed", "制限時間内に処理できませんでした"},
	MethodNotAllowed:         {http.StatusMethodNotAllowed, "The method is not allowed here", "このメソッドは使えません"},
	Internal:                 {http.StatusInternalServerError, "Something went wrong on our side", "内部エラーが発生しました"},
}

// HTTPStatus returns the status code a problem is answered with.
func (p Problem) HTTPStatus() int {
	if row, ok := problems[p]; ok {
		return row.status
	}
	return http.StatusInternalServerError
}

// Title returns the problem's sentence for people, in Japanese when lang begins with "ja", else in English.
func (p Problem) Title(lang string) string {
	row, ok := problems[p]
	if !ok {
		row = problems[Internal]
	}
	if strings.HasPrefix(lang, "ja") {
		return row.ja
	}
	return row.en
}

// ProblemDetails is the body of an error answer (RFC 9457, application/problem+json).
type ProblemDetails struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	RequestID string `json:"request_id,omitempty"`
}

// Problem returns the problem that the details' type URI names.
func (d ProblemDetails) Problem() Problem {
	if name, ok := strings.CutPrefix(d.Type, ProblemBase); ok {
		return Problem(name)
	}
	return Internal
}

// retryAfter says after how many seconds a caller may try again.
var retryAfter = map[Problem]int{InProgress: 1, RateLimited: 1, Unavailable: 1, Conflict: 0}

// DetailsOf returns the problem that err is about as an answer tells it, in the language r asks for. Of an error that names no
// problem it tells nothing but [Internal].
func DetailsOf(r *http.Request, err error) ProblemDetails {
	p := ProblemOf(err)
	d := ProblemDetails{Type: ProblemBase + string(p), Title: p.Title(r.Header.Get("Accept-Language")), Status: p.HTTPStatus(), RequestID: RequestID(r.Context())}
	if e, ok := errors.AsType[*Error](err); ok && p != Internal {
		d.Detail = e.Detail
	}
	return d
}

// WriteProblem answers a request with the problem that err is about, in the language r asks for. A Retry-After that is set
// already stays. An error that names
// no problem is answered as [Internal] and without detail. It returns the problem, for counting.
func WriteProblem(w http.ResponseWriter, r *http.Request, err error) Problem {
	p := ProblemOf(err)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if s, ok := retryAfter[p]; ok && h.Get("Retry-After") == "" {
		h.Set("Retry-After", strconv.Itoa(s))
	}
	switch {
	case p == Unauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case p.HTTPStatus() == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "TLS-Client-Certificate")
	}
	w.WriteHeader(p.HTTPStatus())
	_ = json.NewEncoder(w).Encode(DetailsOf(r, err))
	return p
}

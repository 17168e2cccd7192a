package main_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hook is a bank's receiver of Standard Webhooks: what verifies under the secret in a file goes into another, a line each.
func hook(t *testing.T, dir string) http.Handler {
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<16))
		secret, err := os.ReadFile(filepath.Join(dir, "secret"))
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(string(secret)), "whsec_"))
		h := hmac.New(sha256.New, key)
		fmt.Fprintf(h, "%s.%s.%s", r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body)
		if r.Header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)) {
			t.Error("a webhook's signature does not verify")
		}
		var m struct {
			Type string
			Data struct {
				Sequence int64
				User     string
			}
		}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Error(err)
		}
		f, err := os.OpenFile(filepath.Join(dir, "received"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = fmt.Fprintf(f, "%d %s %s\n", m.Data.Sequence, m.Type, m.Data.User)
			_ = f.Close()
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// TestAuthority runs an authority and a verifier as they are shipped, the former by the commands of docs/operate.md: a customer is
// identified and watched, consents, moves, has a new certificate and logs in; the bank hears of it, gets the new address, and the holder reads
// in the record who did what. The verifier is killed meanwhile, and at last the authority's database is lost and restored
// from a backup: the bank is told that changes may be missing, and hears of the next one.
func TestAuthority(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	for _, tool := range []string{"bash", "openssl", "curl", "jq", "psql"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, err)
		}
	}
	databases := []string{freshDatabase(t), freshDatabase(t), freshDatabase(t)}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operate.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := shell.FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 5 {
		t.Fatalf("the guide has %d blocks", len(blocks))
	}
	script := "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT\nrefused() { if \"$@\"; then echo \"not refused: $*\"; exit 1; fi; }\n" +
		blocks[0][1] + blocks[1][1] + blocks[2][1] + `
certify verifier-1 clientAuth
cat >> ca.yaml <<END
relying: {audience: "https://127.0.0.1:$CA_PORT", login: jpki-authentication, consent: sandbox-signature-2026}
END
jpki-ca -config ca.yaml -operator sato enrol verifier:verifier-1 verifier-1.pem
refused jpki-ca -config ca.yaml -operator sato tenant verifier-1 5835678256247 signature 青葉銀行 2> digit.err
refused jpki-ca -config ca.yaml -operator sato tenant counter-1 5835678256246 signature 青葉銀行 2> operator.err
jpki-ca -config ca.yaml -operator sato tenant verifier-1 5835678256246 signature,authentication 青葉銀行
jpki-ca -config ca.yaml -operator sato tenant verifier-1 8700110005901 signature 砂箱電話
jpki-ca -config ca.yaml -operator sato end-tenant 8700110005901
` + blocks[3][1] + blocks[4][1] + `
jq -r '.certificates[0].certificate' issued.json > card.pem
issue() { # NAME
  openssl req -new -newkey rsa:2048 -nodes -subj / -keyout $1.key -out $1.csr
  jq -n --rawfile csr $1.csr '{holder: "H-1", token: "T-1", requests: [{kind: "card-sign", request: $csr}]}' > $1.json
  call counter-1 $URL/station/v1/certificates -H "Idempotency-Key: $1" -d @$1.json | jq -r '.certificates[0].certificate' > $1.pem
}
issue first

# The verifier.
for key in events receipts former; do openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $key.key; done
openssl pkey -in former.key -pubout -out former.pub
(umask 077; openssl rand -hex 32 > master.key)
fingerprint() { openssl x509 -in $1 -noout -fingerprint -sha256 | cut -d= -f2; }
cat > verifier.yaml <<END
listen: 127.0.0.1:$VERIFIER_PORT
admin: 127.0.0.1:$VERIFIER_ADMIN_PORT
server: {certificate: server.pem, key: "file:server.key"}
database: "$DATABASE2"
master_key: master.key
anchors:
  - {issuer: sign-1, certificate: ceremony-sign/sign-1.pem, sha256: "$(fingerprint ceremony-sign/sign-1.pem)"}
  - {issuer: auth-1, certificate: ceremony-auth/auth-1.pem, sha256: "$(fingerprint ceremony-auth/auth-1.pem)"}
policies: sandbox
documents: {policy: sandbox-signature-2026}
sources:
  - crls: {folder: public/crl}
refresh: 1s
authority:
  url: https://127.0.0.1:$CA_PORT
  ca: infrastructure.pem
  certificate: verifier-1.pem
  key: file:verifier-1.key
  self: https://127.0.0.1:$VERIFIER_PORT
  events: file:events.key
  receipts: file:receipts.key
  former_receipts: [former.pub]
  private_receivers: true
END
jpki-verifier -config verifier.yaml migrate
jpki-verifier -config verifier.yaml -check
broken() { # EXPRESSION MESSAGE
  sed -E "$1" verifier.yaml > broken.yaml
  refused jpki-verifier -config broken.yaml -check 2> broken.err
  grep -q -- "$2" broken.err || { cat broken.err; exit 1; }
}
broken '/^documents:/d' 'consents are signed documents'
broken '/^  events:/d' 'events and receipts go together'
broken 's#^  self: https://127.0.0.1#  self: http://verifier.example#' 'authority.self is no https URL'
broken 's#^  receipts: .*#  receipts: file:first.key#' 'P-256'
broken 's#former.pub#former.key#' 'former_receipts'
sed '/private_receivers/d' verifier.yaml > public.yaml
jpki-verifier -config public.yaml -check
verify() { jpki-verifier -config verifier.yaml 2>> verifier.log & VERIFIER=$!; until curl -fsS http://127.0.0.1:$VERIFIER_ADMIN_PORT/readyz; do sleep 0.2; done; }
verify
jpki tenant -database "$DATABASE2" -master-key master.key add 5835678256246 -name aoba-bank
TOKEN=$(jpki tenant -database "$DATABASE2" -master-key master.key token 5835678256246 -scopes verify,watch,consent,holder)
V=https://127.0.0.1:$VERIFIER_PORT
bank() { curl -sS --fail-with-body --cacert infrastructure.pem -H "Authorization: Bearer $TOKEN" "$@"; }
test "$(curl -fsS --cacert infrastructure.pem $V/.well-known/consent-receipt-keys | jq '.keys | length')" = 2

# The customer opens an account and is watched.
echo 'I open an account.' > application.txt
openssl dgst -sha256 -sign first.key -out application.sig application.txt
openssl dgst -sha256 -binary -out application.dgst application.txt
openssl x509 -in first.pem -outform DER -out first.cer
jq -n --arg c $(base64 -w0 first.cer) --arg d $(base64 -w0 application.dgst) --arg s $(base64 -w0 application.sig) \
  '{certificate: $c, digest: $d, hash: "sha256", signature: $s, identify_user: true, purpose: "account"}' > request.json
until bank --json @request.json $V/v1/verifications > verdict.json && jq -e '.indication == "TOTAL-PASSED"' verdict.json; do sleep 0.2; done
USER_ID=$(jq -re .user.id verdict.json)
bank --json "{\"watches\":[{\"user\":\"$USER_ID\",\"purpose\":\"account\"}]}" $V/v1/watches | jq -e '.changed == 1'
bank --json "{\"url\":\"$HOOK/\"}" $V/v1/endpoints | jq -re .secret > secret

# The customer consents. In force from midnight on: the test does not wait for it.
bank --json '{"purpose":"address-upkeep","description":"keeping your address up to date","items":["name","address"],"lang":"en"}' -o text.json $V/v1/consent-texts
jq -j .text text.json > consent.txt
openssl cms -sign -binary -cades -in consent.txt -signer first.pem -inkey first.key -outform DER -out consent.p7s
jq --arg s $(base64 -w0 consent.p7s) '. + {signature: $s}' text.json > order.json
bank --json @order.json -o consent.json $V/v1/consents
jq -e --arg u $USER_ID '.state == "pending" and .user == $u' consent.json
jq '{user, purpose}' consent.json > ask.json
fetch() { curl -sS -o attributes.json -w '%{http_code}' --cacert infrastructure.pem -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: $1" --json @ask.json $V/v1/attributes; }
test $(fetch fetch-1) = 403
psql -q "$DATABASE" -c 'UPDATE relying_consent SET valid_from = received_at'
test $(fetch fetch-2) = 409
jpki backup key backup.key
jpki backup -key backup.key -out before.backup -database "$DATABASE"

# The customer moves while the verifier is dead, and gets a new certificate.
kill -9 $VERIFIER; wait $VERIFIER || true
call register $URL/registry/v1/events -d '{
  "id": "event-2", "holder": "H-1", "type": "address-changed", "effective_at": "'$(date -u +%FT%TZ)'", "municipality": "99101",
  "attributes": {"name": "見本　一郎", "sex": "1", "birth_date": "319900401", "address": "砂箱県青葉市"}}'
verify
heard() { # WHAT [TIMES]
  for i in $(seq 300); do test "$(grep -c " $1\$" received)" = "${2:-1}" && return; sleep 0.1; done
  cat received
  return 1
}
heard "jpki.user.attributes-changed $USER_ID"
issue second
heard "jpki.user.credential-renewed $USER_ID"
test $(fetch fetch-3) = 200
jq -e '.address == "砂箱県青葉市" and .birth_date == null' attributes.json

# The customer logs in, and reads the record.
bank --json '{"audience":"https://bank.example","binding":"session-1"}' -o challenge.json $V/v1/challenges
openssl x509 -in card.pem -outform DER -out card.cer
sign() { jq -r .message $1 | base64 -d > message; openssl dgst -sha256 -sign card.key -out message.sig message; }
sign challenge.json
jq --arg c $(base64 -w0 card.cer) --arg s $(base64 -w0 message.sig) \
  '{challenge_id: .challenge_id, audience: "https://bank.example", binding: "session-1", certificate: $c, signature: $s}' challenge.json |
  bank --json @- $V/v1/authentications | jq -e '.code == "ok"'
record() {
  bank --json '{"action":"record"}' -o login.json $V/v1/holder/log-ins
  sign login.json
  jq --arg c $(base64 -w0 card.cer) --arg s $(base64 -w0 message.sig) '{challenge, certificate: $c, signature: $s}' login.json | bank --json @- -o record.json $V/v1/holder/record
  jq -e '[.entries[].action] | contains(["verification", "log-in", "consent", "attributes"])' record.json
}
until record; do sleep 0.5; done
jq -e '[.entries[].tenant_name] | unique == ["青葉銀行"]' record.json
curl -fsS http://127.0.0.1:$VERIFIER_ADMIN_PORT/metrics > verifier.metrics
grep -E '^jpki_verifier_reports_total\{outcome="reported"\} [1-9]' verifier.metrics
grep -E '^jpki_verifier_deliveries_total\{outcome="delivered"\} [1-9]' verifier.metrics
grep -E '^jpki_verifier_reports_(waiting|refused) 0$' verifier.metrics | wc -l | grep 2
curl -fsS http://127.0.0.1:$ADMIN_PORT/metrics > ca.metrics

# The authority's database is lost, and restored from before the move.
kill -TERM %1; wait %1
refused grep -q resync received
mv checkpoints checkpoints.lost
jpki restore -key backup.key -operator sato -database "$DATABASE3" before.backup
jpki restore reconcile -operator sato -database "$DATABASE3" -crl public/crl
jpki restore lift -operator sato -database "$DATABASE3"
sed "s#^database: .*#database: \"$DATABASE3\"#" ca.yaml > restored.yaml
jpki-ca -config restored.yaml 2> restored.log &
until curl -fsS http://127.0.0.1:$ADMIN_PORT/readyz; do sleep 0.2; done
heard "jpki.resync "
issue third
heard "jpki.user.credential-renewed $USER_ID" 2
sleep 1
cut -d' ' -f1 received | sort -nu > sequences
seq $(wc -l < sequences) | cmp - sequences
bank "$V/v1/changes?after=0" > feed.json
jq -e --slurpfile s sequences '[.changes[].sequence] == $s and ([.changes[] | select(.class == "resync")] | length == 1 and all(has("user") | not))' feed.json
curl -fsS http://127.0.0.1:$VERIFIER_ADMIN_PORT/metrics | tee -a verifier.metrics | grep -E '^jpki_verifier_feed_total\{outcome="resynchronised"\} 1$'
curl -fsS http://127.0.0.1:$ADMIN_PORT/metrics >> ca.metrics

# Nothing about a person in any log or metric: name, address, date of birth, pseudonym, serial numbers, keys, tokens, what is kept secret.
kill -TERM %% $VERIFIER; wait
serial() { openssl x509 -in $1 -noout -serial | cut -d= -f2; }
hash() { openssl x509 -in $1 -outform DER | sha256sum | cut -d' ' -f1; }
{
  printf '%s\n' 見本 一郎 砂箱県 319900401 1990-04-01 "$USER_ID" "$TOKEN" 'I open an account' 'keeping your address'
  cat master.key secret
  for c in first second card; do serial $c.pem; serial $c.pem | sed 's/^0*//'; hash $c.pem; done
  jq -r .challenge_id challenge.json
  jq -r .id consent.json
} > personal
wc -l < personal | grep -qx 22
wc -c verifier.log ca.log restored.log verifier.metrics ca.metrics
for f in verifier.log ca.log restored.log verifier.metrics ca.metrics; do test -s $f; refused grep -i -F -f personal $f; done
echo THE-END
`
	dir := t.TempDir()
	receiver := httptest.NewServer(hook(t, dir))
	defer receiver.Close()
	bin := build(t, "jpki", "jpki-ca", "jpki-verifier")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOOK="+receiver.URL, "DATABASE="+databases[0], "DATABASE2="+databases[1], "DATABASE3="+databases[2], "BASH_XTRACEFD=2", "SHELLOPTS=xtrace", "LANG=C.UTF-8")
	for _, name := range []string{"CA_PORT", "ADMIN_PORT", "STATUS_PORT", "VERIFIER_PORT", "VERIFIER_ADMIN_PORT"} {
		cmd.Env = append(cmd.Env, name+"="+freePort(t))
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nTHE-END\n") {
		for _, name := range []string{"ca.log", "restored.log", "verifier.log", "verdict.json", "consent.json", "attributes.json", "record.json", "received", "feed.json", "first.pem"} {
			log, _ := os.ReadFile(filepath.Join(dir, name))
			t.Logf("%s:\n%s", name, log[max(0, len(log)-2000):])
		}
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-4000):])
	}
}

# What one does with this repository. `make` alone explains the targets.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory

GO       ?= go
ARGS     ?=
FUZZTIME ?= 10s
SOAK     ?= 10m
TIMES    ?= 50
CARDS    ?= 100

# nomsgpack keeps a codec nobody speaks here out of gin, and with it some megabytes out of the programs.
# The others keep databases out that the enrolment library brings for state of its own: ours is in ca/store.
GOTAGS   := nomsgpack,nobadger,nomysql,nobbolt,nopgx
TESTFLAGS := -tags $(GOTAGS) -timeout 20m
TOOL     := $(GO) tool -modfile=tools.mod

.DEFAULT_GOAL := help
.PHONY: help build run test test-short race cluster load soak soak-ca soak-cards fuzz bench-ca bench-crl bench-front bench-night bench-ocsp bench-verifier faults-ocsp golden generate fmt lint vulncheck clean bench-api lint-api bench-hsm bench-push upgrade soak-authority

help: ## explain the targets
	@echo "usage: make TARGET"; echo
	@sed -En 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14
	@echo; echo "  make run ARGS='-once'   passes flags to the sandbox"
	@echo "  make fuzz FUZZTIME=1m   fuzzes for longer"
	@echo "  make soak SOAK=2h       soaks for longer"

# jpki-signer alone loads vendors' libraries and so needs cgo; built without a C compiler, it has keys in files only.
build: ## build every program into bin/, static, without cgo but for jpki-signer
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -tags $(GOTAGS) -trimpath -o bin/ \
	  $$($(GO) list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' ./cmd/...)
	@if command -v $$($(GO) env CC) >/dev/null; then echo "CGO_ENABLED=1 $(GO) build -o bin/ ./cmd/jpki-signer"; CGO_ENABLED=1 $(GO) build -tags $(GOTAGS) -trimpath -o bin/ ./cmd/jpki-signer; \
	  else echo "no C compiler: bin/jpki-signer has keys in files only"; fi

run: build ## build, then run everything in one process and play the life of a card (ARGS=…)
	bin/jpki sandbox -dir var/sandbox -samples $(ARGS)

# -count=1: results depend on things go test cannot see, such as openssl and PostgreSQL.
test: ## run all tests, with PostgreSQL, openssl and the rest; installs what is missing
	@deploy/test/install.sh
	@$(GO) vet -tags $(GOTAGS) ./...
	@JPKI_TEST_REQUIRE=1 deploy/test/with-postgres.sh $(GO) test $(TESTFLAGS) -count=1 ./...

test-short: ## run the quick tests with nothing but Go
	@$(GO) test $(TESTFLAGS) -short ./...

race: ## run all tests under the race detector (needs a C compiler)
	@command -v $$($(GO) env CC) >/dev/null || { echo "the race detector needs a C compiler: apt-get install gcc libc6-dev"; exit 1; }
	@deploy/test/install.sh
	@CGO_ENABLED=1 JPKI_TEST_REQUIRE=1 deploy/test/with-postgres.sh $(GO) test $(TESTFLAGS) -race -count=1 ./...

# cluster-programs builds what a cluster runs, also a jpki-status whose clock and key can fail.
.PHONY: cluster-programs
cluster-programs: build
	@CGO_ENABLED=0 $(GO) build -tags faults,$(GOTAGS) -trimpath -o bin/jpki-status-faults ./cmd/jpki-status

cluster: cluster-programs ## run the whole production topology as processes on this machine until Enter or Ctrl-C (ARGS=-once: walk through a card's life and end)
	@deploy/test/install.sh
	@bin/cluster up $(ARGS)

load: cluster-programs ## play a campaign day on such a cluster and report, with plots in var/cluster (ARGS='-seconds 120', -scale 0.5, -night 10000000, -failover)
	@deploy/test/install.sh
	@bin/cluster load $(ARGS)

soak: cluster-programs ## break everything in such a cluster for SOAK, in the order of a seed, and check the promises meanwhile (SOAK=2h ARGS='-seed 7')
	@deploy/test/install.sh
	@bin/cluster soak -for $(SOAK) $(ARGS)

soak-ca: ## give the authority random commands and crashes, TIMES as many as usual
	@JPKI_SOAK=$(TIMES) JPKI_TEST_REQUIRE=1 deploy/test/with-postgres.sh $(GO) test -tags $(GOTAGS) -timeout 12h -count=1 -run 'TestModel|TestCrash' ./ca

soak-cards: ## personalise a hundred cards of today's, whose RSA-2048 keys they make themselves, in virtual readers (CARDS=500 for more)
	@deploy/test/install.sh
	@JPKI_CARDS=$(CARDS) JPKI_TEST_REQUIRE=1 $(GO) test -tags $(GOTAGS) -timeout 1h -count=1 -v -run TestPersonaliseTodaysCards ./cmd/jpki

FROM ?= $(shell git rev-list -1 HEAD~1 -- cmd/jpki-ca)
upgrade: ## take an authority of an earlier commit to this one under load, on one database (FROM=COMMIT)
	@JPKI_UPGRADE_FROM=$(FROM) JPKI_TEST_REQUIRE=1 deploy/test/with-postgres.sh $(GO) test $(TESTFLAGS) -count=1 -v -run TestUpgrade ./cmd/jpki-ca

fuzz: ## run each fuzz target for FUZZTIME, one after the other
	@deploy/test/fuzz.sh $(FUZZTIME) -tags $(GOTAGS)

bench-api: ## measure the verifier's API against the library it serves, per core, on SQLite and PostgreSQL (ARGS='-rounds N', -slice 1s, -profile DIR)
	@CGO_ENABLED=0 $(GO) build -tags $(GOTAGS) -trimpath -o bin/benchapi ./cmd/internal/benchapi
	@deploy/test/with-postgres.sh bin/benchapi $(ARGS)

bench-ca: ## measure durable issuance against its limits, step-ca and cfssl in one run (ARGS='-short', -peers=false, -memory N)
	@deploy/test/install.sh
	@$(GO) build -tags $(GOTAGS) -o bin/benchca ./cmd/internal/benchca
	@deploy/test/with-postgres.sh bin/benchca $(ARGS)

bench-crl: ## measure the publication of long CRLs against a limit, crypto/x509 and openssl (ARGS='-short', -peers, -rounds N)
	@$(GO) build -tags $(GOTAGS) -o bin/benchcrl ./cmd/internal/benchcrl
	@bin/benchcrl $(ARGS)

bench-front: ## measure HTTP fronts for OCSP against nginx answering from memory (Debian: nginx-light, wrk; ARGS='-rounds 3')
	@$(GO) build -tags $(GOTAGS) -o bin/benchocsp ./cmd/internal/benchocsp
	@bin/benchocsp fronts $(ARGS)

bench-hsm: ## measure signing through jpki-signer against SoftHSM's own C_Sign, and recovery (ARGS='-rounds 5', -only p-256)
	@deploy/test/install.sh
	@CGO_ENABLED=1 $(GO) build -tags $(GOTAGS) -trimpath -o bin/ ./cmd/jpki-signer ./cmd/internal/benchhsm
	@bin/benchhsm $(ARGS)

bench-night: ## measure the check of ten million customers against a snapshot and a CRL (ARGS='-lines N')
	@$(GO) build -tags $(GOTAGS) -o bin/benchnight ./cmd/internal/benchnight
	@bin/benchnight $(ARGS)

bench-ocsp: ## measure jpki-status against its limits, nginx, cfssl, openssl and Redis in one run (ARGS='-short', -full, -rounds N)
	@deploy/test/install-bench.sh
	@CGO_ENABLED=0 $(GO) build -tags $(GOTAGS) -trimpath -o bin/ ./cmd/jpki-status ./cmd/internal/benchocsp
	@bin/benchocsp $(ARGS)

bench-push: build ## measure how soon tenants are told of changes, a night's burst, and the memory of watches (ARGS='-rate N', -watches N, -burst N)
	@CGO_ENABLED=0 $(GO) build -tags $(GOTAGS) -trimpath -o bin/benchpush ./cmd/internal/benchpush
	@bin/benchpush $(ARGS)

bench-verifier: ## measure verifications against their bare signature checks and against pkcs7 in one run (ARGS='-short', -only CAdES, -rounds N)
	@$(GO) build -tags $(GOTAGS) -o bin/benchverifier ./cmd/internal/benchverifier
	@bin/benchverifier $(ARGS)

faults-ocsp: ## break Redis, PostgreSQL, relay, network, clocks and keys around three responders and see that none lies (ARGS='-only failover')
	@deploy/test/install.sh
	@CGO_ENABLED=0 $(GO) build -tags $(GOTAGS) -trimpath -o bin/ ./cmd/jpki-status ./cmd/internal/faultsocsp
	@CGO_ENABLED=0 $(GO) build -tags faults,$(GOTAGS) -trimpath -o bin/jpki-status-faults ./cmd/jpki-status
	@bin/faultsocsp $(ARGS)

golden: ## write the golden files anew; read the diff before committing it
	@dirs=$$(grep -rl --include='*_test.go' 'flag.Bool("update"' . | xargs -r -n1 dirname | sort -u || true); \
	  if [[ -z $$dirs ]]; then echo "no package has golden files"; else $(GO) test -tags $(GOTAGS) -count=1 $$dirs -run Golden -update; fi

generate: golden ## make anew everything that is generated and committed: the golden files

fmt: ## format the code
	@$(TOOL) gofumpt -w .

lint: ## format check, go vet, staticcheck and golangci-lint (first run builds them: minutes)
	@unformatted=$$($(TOOL) gofumpt -l .); \
	  if [[ -n $$unformatted ]]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	@$(GO) vet -tags $(GOTAGS) ./...
	@$(TOOL) staticcheck -tags $(GOTAGS) ./...
	@$(TOOL) golangci-lint run --build-tags $(GOTAGS) ./...

# The rule left out wants an error documented for pages that have none.
lint-api: ## check the verifier's OpenAPI document by Redocly's linter (needs node; fetches it)
	@REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true npx --yes @redocly/cli@2.77.0 lint --skip-rule=operation-4xx-response verifier/api/openapi.yaml

vulncheck: ## look for known vulnerabilities in what we link
	@deploy/test/vulncheck.sh $(TOOL) govulncheck -tags $(GOTAGS) ./...

.PHONY: sbom reproduce
sbom: build ## write what the programs are made of to bin/sbom.cdx.json (CycloneDX)
	@bin/sbom bin/jpki bin/jpki-ca bin/jpki-load bin/jpki-signer bin/jpki-status bin/jpki-verifier > bin/sbom.cdx.json
	@echo bin/sbom.cdx.json

reproduce: ## build every program twice, in two places, and compare the octets (minutes)
	@GOFLAGS=-tags=$(GOTAGS) deploy/test/reproduce.sh var/reproduce 0:./cmd/jpki 0:./cmd/jpki-ca 0:./cmd/jpki-load 0:./cmd/jpki-status 0:./cmd/jpki-verifier 1:./cmd/jpki-signer

clean: ## remove bin/ and var/ (the sandbox's data)
	rm -rf bin var

# Holdfast. Two commands do all the set-up: `make run` and `make test`. `make help` lists the rest.
GO       ?= go
BIN      := bin
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -X main.version=$(VERSION)
# Two test programs at a time and a limit each: the machines that run this have two cores.
TESTP    ?= 2
HEAVY    ?= 1
CACHE    := $(or $(HOLDFAST_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/holdfast)
# CONSUL=1 runs the demo with a Consul.
CONSUL   ?=
WITHCONSUL := $(filter-out 0 no false,$(CONSUL))
CONSULBIN := $(CACHE)/consul-1.19.2
ROUNDS   ?= 20
SEED     ?= 0
# Rounds of the one-node torture (kill -9 at any step) within each round of make torture.
NODEROUNDS ?= 20
# Rounds of partitions and stopped processes over network namespaces, likewise.
NETROUNDS ?= 10
RUNFLAGS ?= --agents 3 --example counter
GOFILES   = $(shell find . -name '*.go' -not -path './bin/*' -not -path './dist/*' -not -path './.git/*')

.DEFAULT_GOAL := help
.PHONY: help build run demo test check fmt vulns bench torture mutants consul dist dcos-repo clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build holdfast, dvdcli and the examples' programs into bin/
	@mkdir -p $(BIN); [ -x $(BIN)/holdfast ] || echo "building (the first time takes a minute or two)"
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/holdfast ./dvdcli
	@$(GO) build -trimpath -o $(BIN)/holdfast-records ./examples/records
	@$(GO) build -trimpath -o $(BIN)/holdfast-counter ./examples/counter

run: build ## a cluster of three agents on this machine with an example app, until Ctrl-C
	@$(BIN)/holdfast dev $(RUNFLAGS)

demo: build $(if $(WITHCONSUL),$(CONSULBIN)) ## the promises, watched: agent loss, move, scaling, kill -9; non-zero if a record is lost. CONSUL=1: with DNS
	$(BIN)/holdfast demo $(if $(WITHCONSUL),--consul $(CONSULBIN))

test: build ## every test: plain with the race detector, then root, mounts, servers, examples, and the demo
	$(GO) test -count=1 -race -p $(TESTP) -timeout 240s ./...
	HOLDFAST_HEAVY=$(HEAVY) HOLDFAST_BIN=$(CURDIR)/$(BIN) $(GO) test -count=1 -v -p 1 -timeout 900s -run '^TestHeavy' ./...
	$(BIN)/holdfast demo

check: ## gofmt, go vet, staticcheck, and govulncheck where it can run
	@bad=$$(gofmt -l $(GOFILES)); if [ -n "$$bad" ]; then echo "gofmt: run make fmt:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...
	@$(MAKE) --no-print-directory vulns

vulns: ## govulncheck, if it is installed (it cannot be built offline)
	@if command -v govulncheck >/dev/null 2>&1; then govulncheck ./...; else \
	  echo "SKIPPED govulncheck: not installed; it needs golang.org/x/telemetry and the vulnerability database, neither of which can be had offline."; \
	  echo "        With a network: go install golang.org/x/vuln/cmd/govulncheck@latest && make vulns"; fi

fmt: ## format every Go file
	gofmt -w $(GOFILES)

bench: build ## the figures: deploy of 100 apps, agent kill to first write, mount round trip
	HOLDFAST_BIN=$(CURDIR)/$(BIN) $(GO) test -run '^$$' -bench . -benchtime 1x -timeout 600s ./...

torture: build ## random histories, partitions, kills and the demo, ROUNDS times from SEED on (NODEROUNDS, NETROUNDS within each)
	@for i in $$(seq 1 $(ROUNDS)); do seed=$$(( $(SEED) + i )); echo "== round $$i of $(ROUNDS), HOLDFAST_SEED=$$seed"; \
	  HOLDFAST_SEED=$$seed HOLDFAST_ROUNDS=200 HOLDFAST_TORTURE_ROUNDS=$(NODEROUNDS) $(GO) test -count=1 -timeout 600s ./scheduler/... ./isolator/... ./framework/embedded/... || exit 1; \
	  HOLDFAST_HEAVY=1 HOLDFAST_BIN=$(CURDIR)/$(BIN) HOLDFAST_SEED=$$seed HOLDFAST_NETWORK_ROUNDS=$(NETROUNDS) $(GO) test -count=1 -timeout 900s -run '^TestHeavyNetworkTorture$$' ./cmd/holdfast || exit 1; \
	  $(BIN)/holdfast demo --quiet || exit 1; $(BIN)/holdfast demo --acts 30 --seed $$seed || exit 1; done

mutants: ## break each decision behind the twenty cases of docs/safety.md; the tests must notice (needs root; about four minutes)
	$(GO) run ./internal/mutants

consul: $(CONSULBIN) ## build the Consul that some tests run, once, into the cache folder (some minutes)

$(CONSULBIN):
	@mkdir -p $(CACHE); echo "building $(CONSULBIN) (some minutes)"
	@cd tools/consul && $(GO) build -trimpath -ldflags '-s -w' -o $(CONSULBIN).new.$$$$ github.com/hashicorp/consul && mv $(CONSULBIN).new.$$$$ $(CONSULBIN)

dist: ## tarballs, .deb and .rpm for amd64 and arm64, SBOMs and checksums into dist/; the same commit gives the same bytes
	@VERSION=$(VERSION) GO=$(GO) packaging/dist

dcos-repo: ## a DC/OS package repository in dist/dcos-repo, to be served at ASSETS=http://host:port (needs make dist)
	@test -n "$(ASSETS)" || { echo "give the URL at which the folder will be reached: make dcos-repo ASSETS=http://host:8000"; exit 2; }
	@$(GO) run ./packaging/dcos/repo --version $(VERSION) --assets $(ASSETS) --artifact dist/holdfast-$(VERSION)-linux-amd64.tar.gz --out dist/dcos-repo

clean: ## remove what build made
	rm -rf $(BIN) dist

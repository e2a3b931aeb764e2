# Every target works in a fresh clone; `make` alone lists them.

GO    ?= go
TOOL  := $(GO) tool -modfile=tools/go.mod
CLI   := bin/volute
PAGE  := examples/tickets/web

# Packages whose goroutines meet: tested with the race detector, the others
# without, so that nothing is tested twice.
RACE  := ./internal/loop/... ./internal/engine/... ./internal/transport/... ./internal/broker/... \
         ./internal/goridge/... ./internal/worker/... ./internal/backend/... ./internal/api/... ./app/... ./server/...

# What is written by hand: formatted and checked; generated code is not.
GOFILES = $(shell git ls-files --cached --others --exclude-standard '*.go' | grep -v '\.pb\.go$$')

.DEFAULT_GOAL := help
.PHONY: help run build test unit race e2e sdk lint bench figures micro proto web docs deps clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## start the example, a cinema, on http://127.0.0.1:8000 (elsewhere: RUN='-listen 127.0.0.1:8001')
	@mkdir -p .cache
	$(GO) run ./examples/tickets -db .cache/tickets.db $(RUN)

build: ## build bin/volute
	$(GO) build -o $(CLI) ./cmd/volute

test: deps unit race e2e sdk ## everything: vet, unit, race, end-to-end, the official JavaScript SDK

unit: ## vet, and the tests that need no race detector
	$(GO) vet ./...
	$(GO) test $$($(GO) list ./... | grep -vxF -e "$$($(GO) list $(RACE) ./test/... ./examples/... ./docs/...)")

# One package at a time: many start servers, brokers and browsers of their own.
race: ## the concurrent packages, under the race detector
	$(GO) test -race -p 1 -timeout 8m $(RACE)

e2e: deps ## the binary with its peers, the example in a browser, the documentation's commands
	$(GO) test -count=1 -p 1 -timeout 10m ./test/... ./examples/... ./docs/...

sdk: deps build ## the binary with the official `centrifuge` npm package
	cd test/sdk && npm test --silent

lint: ## formatting, vet, staticcheck, the table of rooms
	@out=$$($(TOOL) gofumpt -l $(GOFILES)); test -z "$$out" || { echo "not formatted (gofumpt -w):"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(GO) test -count=1 -run TestRooms .

bench: ## measure against other servers, side by side (a first look: BENCH=-quick)
	cd bench && $(GO) run -mod=mod ./cmd/bench $(BENCH)

figures: ## write docs/performance.md and the tables of docs/capacity.md anew, from bench/report
	cd bench && $(GO) run -mod=mod ./cmd/page
	cd bench && $(GO) run -mod=mod ./cmd/simulate -page ../docs/capacity.md -page ../docs/zh-CN/capacity.md

micro: ## benchmarks of the hot paths
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...

proto: ## regenerate the code in proto/
	cd proto && $(GO) generate ./...

web: ## build the example's page anew, after a change (what is built is committed)
	cd $(PAGE) && { test -d node_modules || npm ci --silent; } && npm run build --silent

docs: ## write the configuration references anew, after a change of the configuration's keys
	$(GO) run ./cmd/volute configdoc >docs/configuration.md
	$(GO) run ./cmd/volute configdoc --lang zh >docs/zh-CN/configuration.md

deps: ## install what the tests need and this machine lacks
	scripts/install-deps.sh

clean: ## remove what was built
	rm -rf bin .cache $(PAGE)/node_modules test/sdk/node_modules

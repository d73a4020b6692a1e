# Orlop. `make help` lists the targets; README.md tells the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:

PREFIX  ?= /usr/local
DESTDIR ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
BUILT   ?= $(shell date -u -d @$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)} +%Y-%m-%dT%H:%M:%SZ)
BIN     ?= bin
PROGRAMS := orlop orlopd orlop-runtime orlop-netd

export CGO_ENABLED := 0
GOBUILD := go build -trimpath -buildvcs=false
LDFLAGS := -s -w

.PHONY: help
help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: need
need:
	@scripts/need.sh build

.PHONY: build
build: need ## the programs, static, into bin/
	@mkdir -p $(BIN)
	version=github.com/orlop/orlop/internal/domain/version
	for p in $(PROGRAMS); do
		entry=
		if [ "$$p" = orlop-runtime ]; then entry="-E github.com/orlop/orlop/internal/runtime/quickstart.entry"; fi
		$(GOBUILD) -ldflags "$(LDFLAGS) $$entry -X $$version.Version=$(VERSION) -X $$version.Commit=$(COMMIT) -X $$version.Built=$(BUILT)" -o $(BIN)/$$p ./cmd/$$p
	done

.PHONY: test-tools
test-tools: need
	@mkdir -p $(BIN)
	$(GOBUILD) -ldflags "$(LDFLAGS)" -o $(BIN)/sandbox ./test/sandbox
	$(GOBUILD) -ldflags "$(LDFLAGS)" -o $(BIN)/hello-web ./examples/hello-web

.PHONY: install
install: build ## programs, units and links below $(DESTDIR)$(PREFIX)
	@packaging/install.sh install "$(BIN)" "$(DESTDIR)" "$(PREFIX)"

.PHONY: uninstall
uninstall: ## takes away what install put there; data stays
	@packaging/install.sh uninstall "$(BIN)" "$(DESTDIR)" "$(PREFIX)"

.PHONY: demo
demo: build test-tools ## a web server in a container, the daemon killed under it; needs root, no network
	@scripts/demo.sh

.PHONY: demo-full
demo-full: build test-tools ## the demo with redis and nginx from Debian's packages
	@scripts/demo.sh full

.PHONY: play
play: build test-tools ## a subshell with a private engine; gone at exit
	@scripts/play.sh

.PHONY: check
check: need ## unit tests, vet, lint, architecture; no root
	@scripts/check.sh

.PHONY: test
test: need ## everything; needs root; the last line counts
	@scripts/test.sh

.PHONY: lint
lint: need ## golangci-lint and shellcheck
	@scripts/lint.sh

.PHONY: bench
bench: build test-tools ## times of run and exec beside Debian's docker.io and podman
	@scripts/bench.sh

.PHONY: bench-runtime
bench-runtime: build test-tools ## times and CPU of orlop-runtime beside Debian's crun and runc
	@scripts/bench-runtimes.sh

.PHONY: bench-net
bench-net: build test-tools ## networks, names, published ports and throughput beside the same peers
	@scripts/bench.sh net

.PHONY: bench-restart
bench-restart: build test-tools ## a daemon that is killed among 500 containers on 50 networks, beside docker.io
	@scripts/bench.sh restart

.PHONY: vm-test
vm-test: build test-tools ## Debian's own kernel and systemd in qemu: pure cgroup v2, AppArmor
	@scripts/vm-test.sh

.PHONY: distros
distros: ## make demo in fresh roots of Debian 12, Debian 13 and Ubuntu 24.04
	@test/distros/run.sh

.PHONY: soak
soak: build test-tools ## long runs: 1,000 starts, daemon kills under load
	@scripts/soak.sh

.PHONY: fuzz
fuzz: need ## every fuzz target for FUZZTIME (default 60s) each
	@scripts/fuzz.sh

.PHONY: images
images: ## the images that tests and demos run, into the cache
	@test/images/make.sh all

.PHONY: sweep
sweep: ## removes what a killed test run left behind
	@scripts/sweep.sh

.PHONY: clean
clean: ## bin/ and the linter's cache
	rm -rf $(BIN) .lintcache

#!/usr/bin/env bash
# golangci-lint at a fixed version, built once into the cache, and shellcheck
# where it is installed.
. "$(dirname "$0")/lib.sh"
cd "$top"
version=v2.12.0
lint=$cache/tools/golangci-lint
if ! "$lint" version 2>/dev/null | grep -q "${version#v}"; then
	say "building golangci-lint $version (once)"
	mkdir -p "$cache/tools"
	(cd "$cache" && GOFLAGS='' GOBIN=$cache/tools CGO_ENABLED=0 go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version)
fi
# The linter keeps its findings by a file's content but with the file's path: a
# cache that two checkouts share shows one the paths of the other, and where
# those are gone it cannot read their nolint comments. So each has its own.
export GOLANGCI_LINT_CACHE=$top/.lintcache
"$lint" run ./...
if command -v shellcheck >/dev/null; then shellcheck -x -S warning scripts/*.sh test/*/*.sh packaging/*.sh .ci/run; fi

#!/usr/bin/env bash
# What needs neither root nor network and takes at most three minutes: unit
# tests (those that need root skip themselves), vet, formatting, architecture,
# lint when the linter is there.
. "$(dirname "$0")/lib.sh"
cd "$top"
unformatted=$(gofmt -l cmd internal test examples bench 2>/dev/null || :)
[ -z "$unformatted" ] || die "not gofmt'ed: $unformatted"
go vet ./...
for os in darwin windows; do GOOS=$os go build -o /dev/null ./cmd/orlop; done
# The tests that want root skip; they say so.
go test -count=1 ./internal/...
if [ -x "$cache/tools/golangci-lint" ]; then "$top/scripts/lint.sh"; else say "lint skipped: run make lint once to fetch the linter"; fi

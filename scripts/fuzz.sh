#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME (default 60s) each.
. "$(dirname "$0")/lib.sh"
cd "$top"
time=${FUZZTIME:-60s}
found=0
while IFS=: read -r file _ line; do
	name=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/' <<<"$line")
	found=$((found + 1))
	say "fuzzing $name in $(dirname "$file") for $time"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$(dirname "$file")"
done < <(grep -rnE '^func Fuzz[A-Za-z0-9_]*\(' --include='*_test.go' internal test cmd)
[ $found -gt 0 ] || die "no fuzz targets found"
printf 'fuzz: %d targets, %s each, no finding\n' "$found" "$time"

#!/usr/bin/env bash
# Runs every fuzz target of the module, or those whose name contains $1, for
# FUZZTIME (default 60s) each, FUZZ_JOBS (default: half the processors) side by
# side with one worker each. Every finding is shown and counted; the last line
# says how it went.
. "$(dirname "$0")/lib.sh"
cd "$top"
time=${FUZZTIME:-60s}
jobs=${FUZZ_JOBS:-$((($(nproc) + 1) / 2))}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
trap 'exit 130' INT TERM
[ -n "${TMPDIR:-}" ] || [ ! -w /dev/shm ] || export TMPDIR=/dev/shm
mapfile -t targets < <(grep -rnoE '^func Fuzz[A-Za-z0-9_]*\(' --include='*_test.go' internal test cmd |
	sed -E 's|^(.*)/[^/]*:[0-9]+:func (Fuzz[A-Za-z0-9_]*)\($|\1 \2|' | grep -F -- "${1:-Fuzz}" | sort)
[ ${#targets[@]} -gt 0 ] || die "no fuzz targets found"

# fuzz FOLDER TARGET: a log with its last figures, or with what was found.
fuzz() {
	local log=$logs/$2.log
	say "fuzzing $2 in $1 for $time"
	if nice go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 5x -parallel 1 "./$1" >"$log" 2>&1; then
		printf '%-24s %s\n' "$2" "$(grep '^fuzz: elapsed' "$log" | tail -n 1)"
	else
		mv "$log" "$log.found"
	fi
}
for t in "${targets[@]}"; do
	while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
	# shellcheck disable=SC2086
	fuzz $t &
done
wait
found=0
for log in "$logs"/*.found; do
	[ -e "$log" ] || continue
	found=$((found + 1))
	name=$(basename "$log" .log.found)
	printf '\n%s FOUND SOMETHING:\n' "$name"
	grep -v '^fuzz: elapsed' "$log"
done
[ $found -eq 0 ] || die "$found of ${#targets[@]} targets found something; the inputs lie in testdata/fuzz of their packages"
printf 'fuzz: %d targets, %s each, no finding\n' "${#targets[@]}" "$time"

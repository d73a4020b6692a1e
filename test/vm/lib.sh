# shellcheck shell=bash
# What jobs inside the test machine share: counting, and programs of ours.
export PATH=/usr/local/bin:/host/bin:$PATH HOME=/root ORLOP_BIN=/host/bin ORLOP_IMAGES=/host/images ORLOP_CACHE=/root/cache ORLOP_PEERS=/host/peers
export ORLOP_TEST_PATIENCE=10 # emulation
# The share keeps no page of a file that nobody has open: a program started from
# it is read anew each time, which takes ten times as long as the program.
for folder in bin tests peers; do
	[ -d /host/$folder ] || continue
	cp -a /host/$folder /var/host-$folder && mount --bind /var/host-$folder /host/$folder
done
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); printf 'ok   %s\n' "$1"; }
bad() { failed=$((failed + 1)); printf 'FAIL %s\n' "$1"; shift; printf '     %s\n' "$@"; }
# check WHAT COMMAND…: passes when the command succeeds.
check() {
	local what=$1 out
	shift
	if out=$("$@" 2>&1); then ok "$what"; else bad "$what" "$* gave: $out"; fi
}
# match WHAT PATTERN COMMAND…: passes when the output matches.
match() {
	local what=$1 pattern=$2 out
	shift 2
	out=$("$@" 2>&1)
	if grep -qE -- "$pattern" <<<"$out"; then ok "$what"; else bad "$what" "$* gave: $out"; fi
}
until_ok() { local i; for i in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; "$@"; }
summary() { printf '%d passed, %d failed, %d skipped\n' $passed $failed $skipped; }

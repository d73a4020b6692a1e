#!/usr/bin/env bash
# Removes what a killed run of the tests may have left: control groups of test
# engines whose test is gone, and their folders. Namespaces, mounts, links and
# rules die with their processes and need no sweeping.
. "$(dirname "$0")/lib.sh"
shopt -s nullglob
alive() { [ -n "$1" ] && [ -d "/proc/$1" ]; }
for group in /sys/fs/cgroup/*/orlop-test-* /sys/fs/cgroup/orlop-test-*; do
	[ -d "$group" ] || continue
	pid=${group##*/orlop-test-}
	alive "${pid%%-*}" && continue
	find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || say "not removed: $group"
done
for dir in "${TMPDIR:-/tmp}"/orlop-test-* "${TMPDIR:-/tmp}"/orlop-demo-*; do
	[ -d "$dir" ] || continue
	[ -n "$(find "$dir" -maxdepth 0 -mmin +60)" ] && rm -rf --one-file-system "$dir"
done
exit 0

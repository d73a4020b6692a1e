#!/usr/bin/env bash
# Times of orlop-runtime beside Debian's crun and runc in the same run, in turns,
# with the bundle that Docker makes. BENCH_N rounds (50); BENCH_NAMES says which.
. "$(dirname "$0")/lib.sh"
ORLOP_TARGET=bench-runtime "$top/scripts/need.sh" root
"$top/scripts/peers.sh" runtimes >/dev/null
[ -x "$cache/deb/busybox-static/bin/busybox" ] || unpack_deb deb/busybox-static busybox-static
cd "$top"
go build -trimpath -o bin/runtimes ./bench/runtimes
group=orlop-bench-runtimes-$$
exec bin/sandbox -cgroup "$group" bin/runtimes -cgroup "$group" -bin bin -cache "$cache" -n "${BENCH_N:-50}" -names "${BENCH_NAMES:-orlop,crun,runc}"

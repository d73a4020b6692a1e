#!/usr/bin/env bash
# Times of run and exec beside Debian's docker.io and podman in the same run.
# BENCH_N runs each (30); BENCH_ENGINES says which.
. "$(dirname "$0")/lib.sh"
ORLOP_TARGET=bench "$top/scripts/need.sh" root
apt_install strace
"$top/scripts/peers.sh" docker podman >/dev/null
"$top/test/images/make.sh" busybox >/dev/null
cd "$top"
go build -trimpath -o bin/bench ./bench
exec bin/bench -bin bin -cache "$cache" -n "${BENCH_N:-30}" -engines "${BENCH_ENGINES:-orlop,docker,podman}"

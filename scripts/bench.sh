#!/usr/bin/env bash
# Times of run and exec beside Debian's docker.io and podman in the same run.
# With "net": networks, loads of a second (BENCH_ROUNDS, 7), published ports
# (BENCH_PORTS, 1000) and many containers (BENCH_MANY, 500). With "restart": a daemon that is killed among BENCH_MANY
# containers on 50 networks (orlop and docker). BENCH_N runs each (30); BENCH_ENGINES says which.
. "$(dirname "$0")/lib.sh"
ORLOP_TARGET=bench "$top/scripts/need.sh" root
apt_install strace
"$top/scripts/peers.sh" docker podman >/dev/null
"$top/test/images/make.sh" busybox >/dev/null
cd "$top"
go build -trimpath -o bin/bench ./bench
what=()
if [ "${1:-}" = net ]; then what=(-net -rounds "${BENCH_ROUNDS:-7}" -ports "${BENCH_PORTS:-1000}" -many "${BENCH_MANY:-500}"); fi
if [ "${1:-}" = restart ]; then what=(-restart "${BENCH_MANY:-500}") BENCH_ENGINES=${BENCH_ENGINES:-orlop,docker}; fi
exec bin/bench "${what[@]}" -bin bin -cache "$cache" -n "${BENCH_N:-30}" -engines "${BENCH_ENGINES:-orlop,docker,podman}"

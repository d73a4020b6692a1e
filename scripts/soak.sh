#!/usr/bin/env bash
# Long runs: 1,000 containers one after the other, an engine left without its
# daemon for a minute, and 10,000 cycles each of the runtime's verbs and of whole
# containers with kill -9 of everything at random moments.
. "$(dirname "$0")/lib.sh"
ORLOP_TARGET=soak "$top/scripts/need.sh" root
apt_install nftables iproute2 iptables curl procps util-linux skopeo dbus-daemon
"$top/test/images/make.sh" all >/dev/null
"$top/scripts/peers.sh" registry docker firewalls >/dev/null
cd "$top"
export ORLOP_BIN=$top/bin HAVOC_RUNS=${HAVOC_RUNS:-1000} HAVOC_AWAY=${HAVOC_AWAY:-60s} HAVOC_CYCLES=${HAVOC_CYCLES:-10000}
# Who reaches whom, compared with docker.io for every kind of network it has, and
# beside every firewall that is known.
NETTEST_DOCKER=all NETTEST_BESIDE=all go test -count=1 -timeout 30m -run 'TestReachabilityBesideDocker|TestReachabilityMatrixBesideOtherFirewalls' ./internal/netdriver/nettest/
exec go test -count=1 -v -timeout 4h ./test/havoc/

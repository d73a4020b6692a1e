#!/usr/bin/env bash
# Everything that tests without hours of time: unit tests, tests on the real
# kernel, the script suites with both clients. Needs root. The last line says
# how many tests ran, passed and were skipped and why, and the seconds.
. "$(dirname "$0")/lib.sh"
ORLOP_TARGET=test "$top/scripts/need.sh" root race
cd "$top"
"$top/scripts/sweep.sh"
trap 'exit 130' INT TERM
apt_install nftables iproute2 iptables curl procps util-linux skopeo python3-docker python3-requests xz-utils gcc libc6-dev libseccomp-dev dbus-daemon nodejs
"$top/scripts/clients.sh"
export PATH=$PATH:$cache/tools/bin
unpack_deb deb/apparmor apparmor
export ORLOP_TEST_APPARMOR_PARSER=$cache/deb/apparmor/sbin/apparmor_parser
"$top/test/images/make.sh" all >/dev/null
"$top/scripts/peers.sh" registry runtimes docker podman dnsmasq firewalls >/dev/null
make -s build test-tools
export ORLOP_BIN=$top/bin
mkdir -p "$cache/tools"
summary=$cache/tools/summary
CGO_ENABLED=0 go build -o "$summary" ./test/summary
# Packages without kernel work run under the race detector, the rest without:
# a process that is cloned by hand cannot carry the detector's threads.
race=$(go list ./internal/domain/... ./internal/engine/... ./internal/httpapi/... ./internal/logfile/... ./internal/cli/... 2>/dev/null)
plain=$(go list ./... | grep -vxF -f <(printf '%s\n' "$race"))
{
	# shellcheck disable=SC2086
	CGO_ENABLED=1 go test -json -race -timeout 20m $race 2>&1 || :
	# shellcheck disable=SC2086
	go test -json -count=1 -p 2 -timeout 20m $plain 2>&1 || :
} | "$summary"

#!/usr/bin/env bash
# Puts what runs inside the test machine beside its job: prepare.sh SHARE
. "$(dirname "$0")/../../scripts/lib.sh"
share=$1
cd "$top"
mkdir -p "$share/tests" "$share/packaging"
cp -r packaging/. "$share/packaging"
cp test/vm/lib.sh test/vm/job-networks.sh "$share/"
# The suites as programs: there is no Go inside.
for pkg in internal/netdriver/nettest internal/linux/cgroup internal/linux/lsm internal/linux/mount internal/linux/process internal/runtime/lifecycle internal/monitor/daemonside test/escape test/conform test/scripts; do
	go list "./$pkg" >/dev/null 2>&1 || continue
	go test -c -trimpath -ldflags '-s -w' -o "$share/tests/$(tr / _ <<<"$pkg").test" "./$pkg"
	if [ -d "$pkg/testdata" ]; then mkdir -p "$share/src/$pkg" && cp -r "$pkg/testdata" "$share/src/$pkg/"; fi
	mkdir -p "$share/src/$pkg"
done
cp go.mod "$share/src/"
# What test/escape attacks beside our programs: those without their defenses.
mkdir -p "$share/bin/undefended"
for p in orlopd orlop-runtime; do go build -tags undefended -trimpath -ldflags '-s -w' -o "$share/bin/undefended/$p" "./cmd/$p"; done
go build -trimpath -ldflags '-s -w' -o "$share/bin/undefended/probe" ./test/escape/probe
ln -sf ../orlop ../orlop-netd "$share/bin/undefended/"
"$top/test/images/make.sh" all >/dev/null
cp "$cache/images/debian.tar" "$cache/images/redis.tar" "$share/images/"
"$top/scripts/peers.sh" registry runtimes dnsmasq >/dev/null
mkdir -p "$share/peers" && cp -r "$cache/peers/registry" "$cache/peers/runtimes" "$cache/peers/dnsmasq" "$share/peers/"
docker=$(command -v docker || :)
if [ -n "$docker" ]; then cp -L "$docker" "$share/bin/docker"; fi
if [ -d "$cache/deb/busybox-static" ]; then mkdir -p "$share/cache/deb" && cp -r "$cache/deb/busybox-static" "$share/cache/deb/"; fi

#!/usr/bin/env bash
# Puts client programs that tests drive and that are not on this machine into
# the cache's tools/bin: Docker's client (Debian's, unpacked) and npm (from its
# own registry: Debian's package draws in hundreds of others).
. "$(dirname "$0")/lib.sh"
bin=$cache/tools/bin
mkdir -p "$bin"
if ! command -v docker >/dev/null; then
	peer=$("$top/scripts/peers.sh" docker)
	ln -sf "$peer/usr/bin/docker" "$bin/docker"
fi
npm=10.9.2
if ! command -v npm >/dev/null; then
	home=$cache/tools/npm-$npm
	if [ ! -d "$home" ]; then
		work=$(mktemp -d "$cache/.npm.XXXXXX")
		trap 'rm -rf "$work"' EXIT
		curl -fsSL --retry 3 "https://registry.npmjs.org/npm/-/npm-$npm.tgz" | tar -xz -C "$work"
		mv -T "$work/package" "$home"
	fi
	printf '#!/bin/sh\nexec node %q "$@"\n' "$home/bin/npm-cli.js" >"$bin/npm"
	chmod 755 "$bin/npm"
fi

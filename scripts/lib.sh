# shellcheck shell=bash
# Shared by the scripts of this folder; sourced, never run.
# Everything made once per machine lies in the cache, outside the repository.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${ORLOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/orlop}
mkdir -p "$cache"
# Static programs, tests of the runtime included: they run inside containers that have no loader.
export CGO_ENABLED=${CGO_ENABLED:-0}

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
say() { printf '%s\n' "$*" >&2; }

# sudo_ COMMAND…: as root, asking for it only when we are not.
sudo_() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# apt_install PACKAGE…: installs what is missing, listing it first. Only tools
# and client libraries come this way; engines are unpacked by unpack_deb.
apt_install() {
	local p missing=()
	for p in "$@"; do
		dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing from Debian's archive: ${missing[*]}"
	command -v apt-get >/dev/null || die "apt-get not found; install by hand: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	# A policy that answers 101 keeps packages from starting services.
	local policy=/usr/sbin/policy-rc.d made=
	if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' | sudo_ tee $policy >/dev/null; sudo_ chmod 755 $policy; made=1; fi
	sudo_ apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
		{ sudo_ apt-get -qq update && sudo_ apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" >/dev/null; } || { [ -z "$made" ] || sudo_ rm -f $policy; return 1; }
	[ -z "$made" ] || sudo_ rm -f $policy
}

# unpack_deb FOLDER PACKAGE…: the packages' files below the cache, not installed.
unpack_deb() {
	local folder=$cache/$1 p tmp
	shift
	[ "$(cat "$folder/.complete" 2>/dev/null)" != "$*" ] || return 0
	tmp=$(mktemp -d "$cache/.deb.XXXXXX")
	chmod 755 "$tmp"
	(
		cd "$tmp"
		mkdir root
		apt-get -qq download "$@" 2>/dev/null || { sudo_ apt-get -qq update && apt-get -qq download "$@"; }
		for p in *.deb; do dpkg-deb -x "$p" root; done
	)
	printf '%s\n' "$*" >"$tmp/root/.complete"
	rm -rf "$folder"
	mkdir -p "$(dirname "$folder")"
	mv -T "$tmp/root" "$folder"
	rm -rf "$tmp"
}

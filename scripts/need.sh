#!/usr/bin/env bash
# Says in one message what this machine lacks. Usage: need.sh build|root|…
set -euo pipefail
cd "$(dirname "$0")/.."
want=$(awk '$1=="go"{print $2; exit}' go.mod)
missing=() notes=()
command -v git >/dev/null || missing+=(git)
command -v curl >/dev/null || missing+=(curl)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
if command -v go >/dev/null; then
	have=$(go env GOVERSION 2>/dev/null | sed 's/^go//')
	if [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n1)" != "$want" ]; then
		notes+=("Go $want or newer (found $have): unpack the tar of https://go.dev/dl/ to /usr/local and put /usr/local/go/bin first in PATH")
	fi
else
	notes+=("Go $want or newer: unpack the tar of https://go.dev/dl/ to /usr/local and put /usr/local/go/bin in PATH")
fi
for what in "$@"; do
	case $what in
	root) [ "$(id -u)" = 0 ] || notes+=("root: containers need it; run it again as: sudo env PATH=\"\$PATH\" make ${ORLOP_TARGET:-}") ;;
	race) command -v gcc >/dev/null || missing+=(gcc libc6-dev) ;;
	esac
done
[ ${#missing[@]} -gt 0 ] || [ ${#notes[@]} -gt 0 ] || exit 0
{
	echo "Orlop needs a few things that are not here:"
	if [ ${#missing[@]} -gt 0 ]; then
		sudo=
		[ "$(id -u)" = 0 ] || sudo="sudo "
		echo "  ${sudo}apt-get update && ${sudo}apt-get install -y ${missing[*]}"
	fi
	for n in ${notes[@]+"${notes[@]}"}; do echo "  $n"; done
} >&2
exit 1

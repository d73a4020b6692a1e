#!/usr/bin/env bash
# A subshell in which `orlop` and `docker` talk to an engine of its own. It lives
# in namespaces that die with the shell: exit, and nothing is left.
. "$(dirname "$0")/lib.sh"
bin=$top/bin
if [ -z "${ORLOP_PLAY_DIR:-}" ]; then
	ORLOP_TARGET=play "$top/scripts/need.sh" root
	"$top/test/images/make.sh" busybox >/dev/null
	dir=$(mktemp -d "${TMPDIR:-/tmp}/orlop-demo-XXXXXX")
	chmod 755 "$dir"
	trap 'rm -rf --one-file-system "$dir"' EXIT
	status=0
	ORLOP_PLAY_DIR=$dir ORLOP_CACHE=$cache "$bin/sandbox" -tied -cgroup "$(basename "$dir")" bash "$0" || status=$?
	exit $status
fi
dir=$ORLOP_PLAY_DIR
mkdir -p "$dir/bin"
command -v docker >/dev/null || ln -sf "$bin/orlop" "$dir/bin/docker"
export PATH=$dir/bin:$bin:$PATH ORLOP_HOST=unix://$dir/orlop.sock DOCKER_HOST=unix://$dir/orlop.sock DOCKER_CONFIG=$dir/client
printf '{}\n' >"$dir/daemon.json"
"$bin/orlopd" -H "$ORLOP_HOST" --data-root "$dir/data" --exec-root "$dir/run" --pidfile "$dir/orlopd.pid" --config-file "$dir/daemon.json" \
	--cgroup-parent "/$(basename "$dir")" >"$dir/orlopd.log" 2>&1 &
for _ in $(seq 200); do curl -fs --unix-socket "$dir/orlop.sock" http://localhost/_ping >/dev/null 2>&1 && break; sleep 0.05; done
orlop load -q -i "$cache/images/busybox.tar" >/dev/null || { cat "$dir/orlopd.log" >&2; exit 1; }
cat <<TXT
A private engine answers at $ORLOP_HOST.
  orlop run --rm -it busybox        docker ps        tail $dir/orlopd.log
This shell has a loopback network only. Leave it with "exit"; everything goes with it.
TXT
PS1='(orlop) \w\$ ' bash --norc -i || :
kill %1 2>/dev/null || :
wait 2>/dev/null || :

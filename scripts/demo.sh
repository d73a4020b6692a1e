#!/usr/bin/env bash
# The demo: a web server in a container, its daemon killed under it. Everything
# happens in namespaces and a folder of its own that are gone at the end; the
# host's Docker, network and firewall are not touched, and no network is needed
# (`demo.sh full` makes redis and nginx from Debian's archive first).
. "$(dirname "$0")/lib.sh"
mode=${1:-small}
bin=$top/bin

if [ -z "${ORLOP_DEMO_DIR:-}" ]; then
	ORLOP_TARGET=demo "$top/scripts/need.sh" root
	if [ "$mode" = full ]; then "$top/test/images/make.sh" all >/dev/null; fi
	dir=$(mktemp -d "${TMPDIR:-/tmp}/orlop-demo-XXXXXX")
	chmod 755 "$dir"
	trap 'rm -rf --one-file-system "$dir"' EXIT
	status=0
	ORLOP_DEMO_DIR=$dir ORLOP_CACHE=$cache "$bin/sandbox" -tied -cgroup "$(basename "$dir")" bash "$0" "$mode" || status=$?
	exit $status
fi

dir=$ORLOP_DEMO_DIR
group=/$(basename "$dir")
export PATH=$bin:$PATH ORLOP_HOST=unix://$dir/orlop.sock DOCKER_CONFIG=$dir/client
export DOCKER_HOST=$ORLOP_HOST
cd "$dir"

title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
# run COMMAND: prints the line as it would be typed, then runs it.
run() { printf '\033[32m$ %s\033[0m\n' "$*"; eval "$*"; }

start_daemon() {
	printf '\033[32m$ orlopd -H %s --data-root %s/data --exec-root %s/run &\033[0m\n' "$ORLOP_HOST" "$dir" "$dir"
	printf '{}\n' >"$dir/daemon.json"
"$bin/orlopd" -H "$ORLOP_HOST" --data-root "$dir/data" --exec-root "$dir/run" --pidfile "$dir/orlopd.pid" --config-file "$dir/daemon.json" \
		--cgroup-parent "$group" >>"$dir/orlopd.log" 2>&1 &
	daemon=$!
	for _ in $(seq 200); do
		if curl -fs --unix-socket "$dir/orlop.sock" http://localhost/_ping >/dev/null 2>&1; then return; fi
		kill -0 "$daemon" 2>/dev/null || { cat "$dir/orlopd.log" >&2; die "the daemon did not start"; }
		sleep 0.05
	done
	cat "$dir/orlopd.log" >&2
	die "the daemon does not answer"
}

# caller URL FILE: asks URL until FILE.stop exists and counts failures in FILE.
caller() {
	local ok=0 failed=0
	while [ ! -e "$2.stop" ]; do
		if curl -fs --max-time 2 -o /dev/null "$1"; then ok=$((ok + 1)); else failed=$((failed + 1)); fi
	done
	printf '%d answered, %d failed\n' "$ok" "$failed" >"$2"
}

finish() {
	local status=$?
	if [ $status -ne 0 ] && [ -s "$dir/orlopd.log" ]; then
		printf '\nThe demo failed. The end of the log of the daemon:\n' >&2
		tail -n 40 "$dir/orlopd.log" >&2
	fi
	exit $status
}
trap finish EXIT

title "A private engine"
start_daemon
run "orlop version --format 'client {{.Client.Version}}, server {{.Server.Version}}, API {{.Server.APIVersion}}'"

title "An image from one static program of our own"
run "tar -C '$bin' -c hello-web | orlop import --change 'ENTRYPOINT [\"/hello-web\"]' --change 'EXPOSE 8080' - hello-web:demo"
run "orlop images"

title "Run it behind a published port"
run "orlop run -d --name web -p 8080:8080 hello-web:demo"
run "orlop ps"
for _ in $(seq 200); do curl -fs -o /dev/null http://127.0.0.1:8080/ && break; sleep 0.02; done
run "curl -fs http://127.0.0.1:8080/hello"
run "curl -fs 'http://[::1]:8080/hello'"
run "orlop logs web"

title "Kill the daemon with -9 while a client calls the port"
caller http://127.0.0.1:8080/loop "$dir/calls4" &
four=$!
caller 'http://[::1]:8080/loop' "$dir/calls6" &
six=$!
sleep 0.3
run "kill -9 $daemon   # the daemon"
wait "$daemon" 2>/dev/null || :
sleep 1
run "curl -fs http://127.0.0.1:8080/while-no-daemon-runs"
start_daemon
run "orlop ps"
sleep 0.3
touch "$dir/calls4.stop" "$dir/calls6.stop"
wait $four $six
printf 'calls to 127.0.0.1 over the kill and the restart: %s\n' "$(cat "$dir/calls4")"
printf 'calls to [::1] over the kill and the restart: %s\n' "$(cat "$dir/calls6")"
grep -q ' 0 failed' "$dir/calls4" || die "requests to 127.0.0.1 failed while the daemon was away"
grep -q ' 0 failed' "$dir/calls6" || die "requests to [::1] failed while the daemon was away"
run "orlop logs --tail 2 web"

title "How fast is a start?"
run "time orlop run --rm --entrypoint /hello-web hello-web:demo -no-such-address 2>/dev/null || true"

if [ "$mode" = full ]; then
	title "redis, from Debian's package"
	run "orlop load -q -i '$cache/images/redis.tar'"
	run "orlop run --name my-redis1 -d redis"
	for _ in $(seq 400); do orlop exec my-redis1 redis-cli ping 2>/dev/null | grep -q PONG && break; sleep 0.05; done
	run "orlop exec my-redis1 redis-cli set greeting 'ahoy'"
	run "orlop exec my-redis1 redis-cli get greeting"
	title "nginx, from Debian's package"
	run "orlop load -q -i '$cache/images/nginx.tar'"
	run "orlop run -d --name my-nginx -p 80:80 nginx"
	for _ in $(seq 400); do curl -fs -o /dev/null http://127.0.0.1/ && break; sleep 0.05; done
	run "curl -fs http://127.0.0.1/ | grep title"
	run "orlop stop my-redis1 my-nginx"
	run "orlop rm my-redis1 my-nginx"
fi

title "Clean up"
run "orlop stop web"
run "orlop rm web"
run "orlop rmi hello-web:demo"
run "orlop ps -a"
kill "$daemon"
wait "$daemon" || :
title "Done: nothing of it is left on this machine"

#!/bin/bash
# Runs inside the test machine as a service of its systemd; /host is shared with
# the host. First what only this kernel shows, then suites. The last line counts.
# shellcheck source=test/vm/lib.sh
. /host/lib.sh
export ORLOP_HOST=unix:///run/orlop/orlop.sock DOCKER_HOST=unix:///run/orlop/orlop.sock

mkdir -p /root/cache && cp -r /host/cache/. /root/cache/ 2>/dev/null
printf 'kernel %s, cgroup %s, apparmor %s\n' "$(uname -r)" "$(stat -fc %T /sys/fs/cgroup)" "$(cat /sys/module/apparmor/parameters/enabled)"

# What only this kernel shows.
checks() {
	# As a user installs it: units, socket activation, the systemd cgroup driver.
	check "install" bash /host/packaging/install.sh install /host/bin "" /usr/local
	check "service starts" systemctl start orlop.socket orlop.service
	match "ready" running bash -c 'systemctl is-active orlop.service >/dev/null && echo running'
	match "cgroup driver is systemd on v2" '^systemd 2$' orlop info -f '{{.CgroupDriver}} {{.CgroupVersion}}'
	match "AppArmor is among the security options" apparmor orlop info -f '{{.SecurityOptions}}'
	check "load" orlop load -q -i /host/images/busybox.tar
	match "a container runs" '^ahoy' orlop run --rm busybox echo ahoy
	match "confined by our AppArmor profile" '^orlop-default \(enforce\)' orlop run --rm busybox cat /proc/self/attr/current
	match "AppArmor denies what the profile denies" 'Permission denied|Read-only|denied' orlop run --rm --cap-add SYS_ADMIN busybox mount -t tmpfs none /tmp
	# Each act is forbidden by the profile and by nothing else: it is allowed without.
	act() {
		local what=$1
		shift
		match "AppArmor forbids to $what" 'Permission denied|permission denied|Operation not permitted' orlop run --rm "$@"
		check "which is possible without AppArmor" orlop run --rm --security-opt apparmor=unconfined "$@"
	}
	act "mount" --cap-add SYS_ADMIN --security-opt seccomp=unconfined busybox mount -t tmpfs none /tmp
	act "remount" --cap-add SYS_ADMIN --security-opt seccomp=unconfined busybox mount -o remount,rw /sys
	act "write /proc/sys/kernel" --security-opt systempaths=unconfined busybox sh -c 'p=$(cat /proc/sys/kernel/core_pattern) && echo "$p" >/proc/sys/kernel/core_pattern'
	act "write /proc/sys/vm" --security-opt systempaths=unconfined busybox sh -c 'p=$(cat /proc/sys/vm/swappiness) && echo "$p" >/proc/sys/vm/swappiness'
	act "write /proc/sysrq-trigger" --security-opt systempaths=unconfined busybox sh -c ': >/proc/sysrq-trigger'
	act "read /proc/kcore" --cap-add SYS_RAWIO --security-opt systempaths=unconfined busybox head -c 1 /proc/kcore
	act "write below /sys" -v /sys:/sys busybox sh -c 'p=$(sed "s/.*\[\(.*\)\].*/\1/" /sys/kernel/mm/transparent_hugepage/enabled) && echo "$p" >/sys/kernel/mm/transparent_hugepage/enabled'
	act "read /sys/kernel/security" -v /sys:/sys busybox cat /sys/kernel/security/lsm
	mv /usr/sbin/apparmor_parser /usr/sbin/apparmor_parser.away
	/host/bin/orlopd -H unix:///tmp/aa.sock --data-root /tmp/aa/data --exec-root /tmp/aa/run --pidfile /tmp/aa/pid --bridge none >/tmp/aa.log 2>&1 &
	aa=$!
	check "a second daemon, without apparmor_parser" until_ok curl -fs --unix-socket /tmp/aa.sock http://x/_ping
	match "uses the profile that is loaded" 'name=apparmor,profile=default' orlop -H unix:///tmp/aa.sock info -f '{{.SecurityOptions}}'
	kill $aa
	wait $aa
	mv /usr/sbin/apparmor_parser.away /usr/sbin/apparmor_parser
	match "unconfined when asked" '^unconfined' orlop run --rm --security-opt apparmor=unconfined busybox cat /proc/self/attr/current
	match "a scope of its own" 'orlop-[0-9a-f]+-[0-9a-f]{64}\.scope' bash -c 'orlop run -d --name scoped busybox sleep 1000 >/dev/null; cat /proc/$(orlop inspect -f "{{.State.Pid}}" scoped)/cgroup; orlop rm -f scoped >/dev/null'
	match "a private cgroup namespace" '^0::/$' orlop run --rm busybox cat /proc/self/cgroup
	match "memory limit" '^33554432$' orlop run --rm -m 32m busybox cat /sys/fs/cgroup/memory.max
	match "cpu limit" '^50000 100000$' orlop run --rm --cpus 0.5 busybox cat /sys/fs/cgroup/cpu.max
	match "pids limit" '^7$' orlop run --rm --pids-limit 7 busybox cat /sys/fs/cgroup/pids.max
	match "a container out of memory is said to be" '^true 137$' bash -c 'orlop run --name oom -m 16m busybox sh -c "tail /dev/zero" >/dev/null 2>&1; orlop inspect -f "{{.State.OOMKilled}} {{.State.ExitCode}}" oom; orlop rm oom >/dev/null'
	match "device rules by eBPF" 'Operation not permitted' orlop run --rm --cap-add MKNOD busybox sh -c 'mknod /tmp/d b 254 0 && cat /tmp/d'
	check "pause" bash -c 'orlop run -d --name pp busybox sleep 1000 && orlop pause pp && orlop unpause pp && orlop exec pp true && orlop rm -f pp'
	check "a published port" bash -c 'orlop run -d --name web -p 8080:80 busybox httpd -f -p 80'
	check "reaches it" until_ok curl -s -o /dev/null http://127.0.0.1:8080/
	check "the service restarts" systemctl restart orlop.service
	match "and its container goes on" '^running' orlop inspect -f '{{.State.Status}}' web
	check "behind its port" curl -s -o /dev/null http://127.0.0.1:8080/
	check "kill -9 of the daemon" bash -c 'systemctl kill --kill-whom=main -s KILL orlop.service'
	check "the port answers meanwhile" curl -s -o /dev/null http://127.0.0.1:8080/
	check "systemd starts it again" until_ok orlop exec web true
	check "stop and remove" bash -c 'orlop stop -t 1 web && orlop rm web'
	if [ -x /host/bin/docker ]; then match "the official client" '^ahoy' docker run --rm busybox echo ahoy; fi

	# The same with the cgroupfs driver, under the name dockerd.
	systemctl stop orlop.service orlop.socket
	/host/bin/orlopd -H unix:///tmp/fs.sock --data-root /tmp/fs/data --exec-root /tmp/fs/run --pidfile /tmp/fs/pid --exec-opt native.cgroupdriver=cgroupfs >/tmp/fs.log 2>&1 &
	export ORLOP_HOST=unix:///tmp/fs.sock
	check "cgroupfs: daemon" until_ok curl -fs --unix-socket /tmp/fs.sock http://x/_ping
	check "cgroupfs: load" orlop load -q -i /host/images/busybox.tar
	match "cgroupfs: driver" '^cgroupfs 2$' orlop info -f '{{.CgroupDriver}} {{.CgroupVersion}}'
	match "cgroupfs: memory limit" '^33554432$' orlop run --rm -m 32m busybox cat /sys/fs/cgroup/memory.max
	match "cgroupfs: exec" '^0::/$' bash -c 'orlop run -d --name xx busybox sleep 1000 >/dev/null; orlop exec xx cat /proc/self/cgroup; orlop rm -f xx >/dev/null'
	kill %1
	wait %1
}

# suite NAME LABEL FLAG…: runs one of the programs of /host/tests and counts.
suite() {
	local name=$1 label=$2 started=$SECONDS dir out p f s
	shift 2
	dir=/host/src/$(tr _ / <<<"$name")
	[ -d "$dir" ] || dir=/tmp
	out=/host/suite.out # so that it can be followed from outside
	# Lines of binary data, megabytes long, are some suites' subject.
	(cd "$dir" && "/host/tests/$name.test" -test.v -test.timeout "${ORLOP_VM_SUITE:-90m}" "$@" 2>&1) | stdbuf -oL tr -d '\0' | stdbuf -oL cut -b 1-500 >$out
	p=$(grep -acE '^\s*--- PASS' $out) f=$(grep -acE '^\s*--- FAIL' $out) s=$(grep -acE '^\s*--- SKIP' $out)
	if grep -aqE '^(panic:|fatal error:)' $out; then f=$((f + 1)); fi
	if [ $((p + f + s)) = 0 ]; then f=1; fi
	printf '%-40s %d passed, %d failed, %d skipped, %d s\n' "suite $label" "$p" "$f" "$s" $((SECONDS - started))
	if [ "$f" -gt 0 ]; then
		grep -aE '^\s*--- FAIL' $out
		grep -aE -B12 -A3 '^\s*(FAIL: |panic:|fatal error:|[a-z_]+_test\.go:[0-9]+:)' $out | tail -n 120
		grep -aE 'level=(WARN|ERROR)' $out | cut -c 1-300 | tail -n 40
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# ORLOP_VM_ONLY of the host: a pattern of suites (or checks, networks), and nothing else.
only=$(cat /host/only 2>/dev/null)
# shellcheck disable=SC2053
if [[ -z $only || checks == $only ]]; then checks; fi
for t in /host/tests/*.test; do
	name=$(basename "$t" .test)
	# Too long for emulation as a whole: job-networks.sh runs what only this kernel shows.
	[ "$name" != internal_netdriver_nettest ] || continue
	# shellcheck disable=SC2053
	[[ -z $only || $name == $only ]] || continue
	# Those that run containers use both cgroup drivers.
	case $name in
	test_scripts)
		suite "$name" "$name, orlop, cgroupfs" -test.run '^TestWithOrlop$'
		ORLOP_TEST_SYSTEMD=1 suite "$name" "$name, orlop, systemd" -test.run '^TestWithOrlop$'
		ORLOP_TEST_SYSTEMD=1 suite "$name" "$name, docker, systemd" -test.run '^TestWithTheOfficialClient$'
		;;
	test_conform)
		suite "$name" "$name, cgroupfs" -runtime /host/bin/orlop-runtime -test.run '^TestConformance$'
		suite "$name" "$name, systemd" -runtime /host/bin/orlop-runtime -systemd -test.run '^TestConformance$'
		;;
	test_escape)
		suite "$name" "$name, cgroupfs"
		ORLOP_TEST_SYSTEMD=1 suite "$name" "$name, systemd"
		;;
	*) suite "$name" "$name" ;;
	esac
done
# shellcheck disable=SC2053
if [[ -z $only || networks == $only ]]; then
	whole=yes
	# shellcheck source=test/vm/job-networks.sh
	. /host/job-networks.sh
fi
summary

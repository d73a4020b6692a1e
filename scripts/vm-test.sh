#!/usr/bin/env bash
# Boots Debian 12's own kernel and systemd in qemu by plain emulation and runs
# inside what the kernel of the host may lack: pure cgroup v2, the systemd cgroup
# driver, AppArmor, loadable modules, and the suites with both cgroup drivers, in
# at most ORLOP_VM_MINUTES (150). The disk is a throw-away copy; the host is not
# touched.
# Usage: vm-test.sh [JOB]   JOB is a script for inside, default test/vm/job.sh;
# ORLOP_VM_ONLY is a pattern of suites (test_*, @(checks|internal_*), networks) to run and nothing else.
. "$(dirname "$0")/lib.sh"
job=${1:-$top/test/vm/job.sh}
minutes=${ORLOP_VM_MINUTES:-150}
vm=$("$top/test/vm/image.sh")
"$top/test/images/make.sh" busybox >/dev/null
apt_install qemu-system-x86
share=$(mktemp -d "${TMPDIR:-/tmp}/orlop-vm-XXXXXX")
trap 'rm -rf "$share"' EXIT
chmod 755 "$share"
cp "$job" "$share/job.sh"
printf '%s' "${ORLOP_VM_ONLY:-}" >"$share/only"
cp -r "$top/bin" "$share/bin"
mkdir -p "$share/images"
cp "$cache/images/busybox.tar" "$share/images/"
if [ -x "$top/test/vm/prepare.sh" ]; then "$top/test/vm/prepare.sh" "$share"; fi
log=$share/console.log
touch "$log"
started=$(date +%s)
timeout $((minutes * 60)) qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -nographic -no-reboot -nodefaults \
	-serial "file:$log" -kernel "$vm/vmlinuz" -initrd "$vm/initrd.img" \
	-append "root=/dev/vda rw console=ttyS0 quiet loglevel=3 systemd.show_status=false rd.systemd.show_status=false apparmor=1 security=apparmor systemd.unified_cgroup_hierarchy=1 mitigations=off" \
	-drive "file=$vm/disk.ext4,format=raw,if=virtio,snapshot=on" \
	-fsdev "local,id=host,path=$share,security_model=none" -device virtio-9p-pci,fsdev=host,mount_tag=host \
	-object rng-random,filename=/dev/urandom,id=rng0 -device virtio-rng-pci,rng=rng0 </dev/null &
machine=$!
tail -n +1 -f "$log" --pid=$machine | stdbuf -oL tr -d '\r' || :
wait $machine || die "the machine did not end within $minutes minutes; the end of its console: $(tail -n 20 "$log")"
result=$(tr -d '\r' <"$log" | grep -aE '^[a-z -]*[0-9]+ passed, [0-9]+ failed' | tail -n 1 || :)
[ -n "$result" ] || die "no result on the console"
printf 'vm-test: %s (%d s)\n' "$result" $(($(date +%s) - started))
case " $result" in
*" 0 passed, 0 failed"*) die "nothing ran: ORLOP_VM_ONLY=${ORLOP_VM_ONLY:-}" ;;
*" 0 failed"*) ;;
*) exit 1 ;;
esac

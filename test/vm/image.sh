#!/usr/bin/env bash
# Makes the disk image and takes out the kernel of the test machine, once, into
# the cache: Debian 12 with its own kernel 6.1, systemd, AppArmor and nothing of
# ours. Needs root and Debian's archive. Prints the folder.
. "$(dirname "$0")/../../scripts/lib.sh"
out=$cache/vm
mkdir -p "$out"
exec 9>"$out/.lock"
flock 9
recipe=$(sha256sum <"$0" | cut -c1-12)
if [ "$(cat "$out/recipe" 2>/dev/null)" != "$recipe" ]; then
	[ "$(id -u)" = 0 ] || die "root is needed to make the disk image"
	apt_install mmdebstrap qemu-system-x86 e2fsprogs
	say "making the disk image of the test machine (Debian 12 with its kernel and systemd)"
	work=$(mktemp -d "$cache/.vm.XXXXXX")
	trap 'rm -rf --one-file-system "$work"' EXIT
	# shellcheck disable=SC2016
	mmdebstrap --quiet --variant=minbase --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--include=linux-image-amd64,systemd,systemd-sysv,dbus,apparmor,kmod,iproute2,nftables,procps,curl,ca-certificates,util-linux,e2fsprogs,skopeo,redis-tools \
		--customize-hook='printf "orlop-vm\n" >"$1/etc/hostname"' \
		--customize-hook='printf "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 orlop-vm\n" >"$1/etc/hosts"' \
		--customize-hook='printf "/dev/vda / ext4 rw,noatime 0 1\n" >"$1/etc/fstab"' \
		--customize-hook='chroot "$1" passwd -d root' \
		--customize-hook='printf "9p\n9pnet_virtio\noverlay\nvirtio_net\nveth\nbridge\nbr_netfilter\nnf_tables\n" >"$1/etc/modules-load.d/orlop.conf"' \
		--customize-hook='chroot "$1" systemctl mask systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer fstrim.timer e2scrub_all.timer systemd-networkd-wait-online.service getty@tty1.service serial-getty@ttyS0.service' \
		--customize-hook='cat >"$1/etc/systemd/system/orlop-test.service" <<"UNIT"
[Unit]
Description=What the host wants run
After=multi-user.target
[Service]
Type=simple
ExecStart=/bin/bash -c "mkdir -p /host && mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,access=any host /host && bash /host/job.sh >/dev/ttyS0 2>&1; echo \"job ended: $?\" >/dev/ttyS0; systemctl poweroff --force"
StandardOutput=null
[Install]
WantedBy=multi-user.target
UNIT' \
		--customize-hook='sed -i "s/^After=multi-user.target/After=basic.target systemd-modules-load.service/" "$1/etc/systemd/system/orlop-test.service"; chroot "$1" systemctl enable orlop-test.service' \
		bookworm "$work/root.tar" >&2
	mkdir "$work/root"
	tar -C "$work/root" -xf "$work/root.tar"
	cp "$work"/root/boot/vmlinuz-* "$out/vmlinuz"
	cp "$work"/root/boot/initrd.img-* "$out/initrd.img"
	rm -f "$out/disk.ext4"
	mke2fs -q -t ext4 -O ^metadata_csum -d "$work/root" "$out/disk.ext4" 4G >&2
	printf '%s\n' "$recipe" >"$out/recipe"
fi
printf '%s\n' "$out"

#!/usr/bin/env bash
# Makes the images that tests and demos run, once per machine, into the cache:
#   busybox.tar  one static program of Debian's busybox-static
#   debian.tar   Debian 12, minbase
#   redis.tar    redis-server on it, in a layer of its own
#   nginx.tar    nginx on it, in a layer of its own
# Needs root (a Debian root is made by mmdebstrap) and Debian's archive.
# Usage: make.sh [busybox|all]; prints the folder with the tars.
. "$(dirname "$0")/../../scripts/lib.sh"
what=${1:-all}
suite=bookworm
out=$cache/images
mkdir -p "$out"
exec 9>"$out/.lock"
flock 9
# The recipe's own text is part of the name of the stamp: a changed recipe makes new images.
recipe=$(cat "$0" "$top"/test/images/mkimage/*.go | sha256sum | cut -c1-12)
fresh() { [ -e "$out/$1.tar" ] && [ "$(cat "$out/$1.recipe" 2>/dev/null)" = "$recipe" ]; }
mark() { printf '%s\n' "$recipe" >"$out/$1.recipe"; }
mkimage=$cache/tools/mkimage-$recipe
if [ ! -x "$mkimage" ]; then
	mkdir -p "$cache/tools"
	(cd "$top" && CGO_ENABLED=0 go build -o "$mkimage" ./test/images/mkimage)
fi

if ! fresh busybox; then
	say "making image busybox"
	unpack_deb deb/busybox-static busybox-static
	work=$(mktemp -d "$cache/.busybox.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	mkdir -p "$work"/{bin,dev,etc,home,proc,root,sys,tmp,usr/bin,usr/sbin,sbin,var/spool/mail,var/www}
	chmod 755 "$work"
	chmod 1777 "$work/tmp"
	chmod 700 "$work/root"
	cp "$cache/deb/busybox-static/bin/busybox" "$work/bin/busybox"
	for applet in $("$work/bin/busybox" --list); do [ "$applet" = busybox ] || ln "$work/bin/busybox" "$work/bin/$applet"; done
	printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nbin:x:2:2:bin:/bin:/bin/false\nsys:x:3:3:sys:/dev:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\noperator:x:37:37:Operator:/var:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$work/etc/passwd"
	printf 'root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nmail:x:8:\nwww-data:x:33:\noperator:x:37:\nusers:x:100:\nnogroup:x:65534:\n' >"$work/etc/group"
	printf 'root:*:10933:0:99999:7:::\n' >"$work/etc/shadow"
	chmod 600 "$work/etc/shadow"
	find "$work" -exec touch -h -d @0 {} +
	"$mkimage" -o "$out/busybox.tar" -t busybox:latest -layer "$work" -cmd '["sh"]' -env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	rm -rf "$work"
	trap - EXIT
	mark busybox
fi
if [ "$what" = busybox ]; then printf '%s\n' "$out"; exit 0; fi

[ "$(id -u)" = 0 ] || die "root is needed to make the Debian images (sudo make images)"
if ! fresh debian || [ ! -e "$out/debian-root.tar" ]; then
	say "making image debian ($suite)"
	apt_install mmdebstrap
	mmdebstrap --quiet --variant=minbase --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$out/debian-root.new.tar" >&2
	mv "$out/debian-root.new.tar" "$out/debian-root.tar"
	"$mkimage" -o "$out/debian.tar" -t debian:$suite,debian:latest -layer "$out/debian-root.tar" -cmd '["bash"]' -env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	mark debian
	rm -f "$out"/{redis,nginx}.recipe
fi

# on_debian NAME PACKAGES ARGS…: the packages installed over the base in a chroot
# whose changes an overlay collects, so the layer holds only them.
on_debian() {
	local name=$1 packages=$2
	shift 2
	fresh "$name" && return 0
	say "making image $name"
	# shellcheck disable=SC2016
	unshare --mount --propagation private bash -euc '
		out=$1 mkimage=$2 name=$3 packages=$4; shift 4
		work=$(mktemp -d "$out/.work.XXXXXX"); trap "cd /; umount -R $work/top 2>/dev/null || :; umount $work/fs; rmdir $work/fs; rmdir $work" EXIT
		mkdir "$work/fs"; mount -t tmpfs -o mode=755 image "$work/fs"
		cd "$work/fs"; mkdir base up work
		tar -xf "$out/debian-root.tar" -C base
		mkdir "$work/top"; mount -t overlay -o "lowerdir=$PWD/base,upperdir=$PWD/up,workdir=$PWD/work" overlay "$work/top"
		mount -t proc proc "$work/top/proc"
		printf "#!/bin/sh\nexit 101\n" >"$work/top/usr/sbin/policy-rc.d"; chmod 755 "$work/top/usr/sbin/policy-rc.d"
		cp /etc/resolv.conf "$work/top/etc/resolv.conf.host"; cp "$work/top/etc/resolv.conf" "$work/fs/resolv.conf" 2>/dev/null || :
		cp /etc/resolv.conf "$work/top/etc/resolv.conf"
		export DEBIAN_FRONTEND=noninteractive LC_ALL=C
		chroot "$work/top" apt-get -qq update
		chroot "$work/top" apt-get -qq install -y --no-install-recommends $packages >/dev/null
		chroot "$work/top" apt-get clean
		rm -rf "$work/top/usr/sbin/policy-rc.d" "$work/top/etc/resolv.conf.host" "$work"/top/var/lib/apt/lists/* "$work"/top/var/log/*.log "$work"/top/var/log/apt/* "$work"/top/tmp/*
		if [ -e "$work/fs/resolv.conf" ]; then cp "$work/fs/resolv.conf" "$work/top/etc/resolv.conf"; else rm -f "$work/top/etc/resolv.conf"; fi
		[ "$name" != redis ] || { sed -i "s/^bind .*/bind * -::*/; s/^daemonize yes/daemonize no/; s/^protected-mode yes/protected-mode no/; s#^logfile .*#logfile \"\"#; s#^dir .*#dir /data#; s#^supervised .*#supervised no#" "$work/top/etc/redis/redis.conf"; mkdir -p "$work/top/data"; chroot "$work/top" chown redis:redis /data; chroot "$work/top" chown -R redis:redis /etc/redis; }
		umount "$work/top/proc"
		"$mkimage" -o "$out/$name.tar" -t "$name:latest" -layer "$out/debian-root.tar" -diff "$PWD/base:$work/top" "$@"
		umount "$work/top"; rmdir "$work/top"; cd /
	' on_debian "$out" "$mkimage" "$name" "$packages" "$@"
	mark "$name"
}
path=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
on_debian redis "redis-server redis-tools" -cmd '["redis-server","/etc/redis/redis.conf"]' -expose 6379/tcp -user redis -workdir /data -env $path -volume /data
on_debian nginx nginx-light -cmd '["nginx","-g","daemon off; error_log /dev/stderr info;"]' -expose 80/tcp -env $path -stopsignal SIGQUIT
printf '%s\n' "$out"

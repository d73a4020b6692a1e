#!/usr/bin/env bash
# Unpacks the engines and runtimes that tests and benchmarks compare with from
# Debian's packages into the cache. Nothing is installed on the host.
# Usage: peers.sh NAME…   with NAME of: registry runtimes docker podman dnsmasq firewalls
# Prints the folder of each.
. "$(dirname "$0")/lib.sh"
exec 9>"$cache/.peers.lock"
flock 9
for name in "$@"; do
	case $name in
	registry) unpack_deb peers/registry docker-registry ;;
	runtimes) unpack_deb peers/runtimes runc crun libyajl2 libseccomp2 libcap2 ;;
	docker) unpack_deb peers/docker docker.io containerd runc tini iptables libnftnl11 libip4tc2 libip6tc2 libxtables12 libmnl0 libnfnetlink0 libnetfilter-conntrack3 libdevmapper1.02.1 libseccomp2 libsystemd0 ;;
	podman) unpack_deb peers/podman podman conmon runc crun libyajl2 netavark aardvark-dns golang-github-containers-common golang-github-containers-image containernetworking-plugins libgpgme11 libassuan0 libdevmapper1.02.1 libsubid4 libseccomp2 iptables libnftnl11 libip4tc2 libip6tc2 libxtables12 libmnl0 libnfnetlink0 libnetfilter-conntrack3 ;;
	dnsmasq) unpack_deb peers/dnsmasq dnsmasq-base libdbus-1-3 libgmp10 libhogweed6 libidn2-0 libjansson4 libmnl0 libnetfilter-conntrack3 libnettle8 libnfnetlink0 libnftables1 libnftnl11 libunistring2 libxtables12 ;;
	firewalls)
		# ufw and firewalld need their Python, a bus and their own files: a small
		# Debian root, which tests enter by chroot over an overlay.
		packages=iptables,nftables,ufw,firewalld,dbus
		if [ "$(cat "$cache/peers/firewalls/.complete" 2>/dev/null)" != "$packages" ]; then
			apt_install mmdebstrap
			mkdir -p "$cache/peers"
			rm -rf --one-file-system "$cache/peers/.firewalls"
			sudo_ mmdebstrap --quiet --variant=essential --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
				--dpkgopt='path-exclude=/usr/share/locale/*' --include="$packages" bookworm "$cache/peers/.firewalls" >&2
			printf '%s\n' "$packages" | sudo_ tee "$cache/peers/.firewalls/.complete" >/dev/null
			rm -rf --one-file-system "$cache/peers/firewalls"
			mv -T "$cache/peers/.firewalls" "$cache/peers/firewalls"
		fi
		;;
	*) die "unknown peer $name" ;;
	esac
	printf '%s\n' "$cache/peers/$name"
done

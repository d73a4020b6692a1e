#!/usr/bin/env bash
# Runs `make demo` as a newcomer would, in fresh roots of other distributions:
# (ORLOP_DISTRO_TARGET names other targets of make, e.g. test).
# run.sh [NAME…] with NAME of debian-12 debian-13 ubuntu-24.04 (default: all).
# Each root gets only what the README says to install, and this machine's Go.
# Needs root and the distributions' archives; prints a line per root.
. "$(dirname "$0")/../../scripts/lib.sh"
[ "$(id -u)" = 0 ] || die "root is needed"
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(debian-12 debian-13 ubuntu-24.04)
apt_install mmdebstrap debian-archive-keyring
goroot=$(go env GOROOT)
passed=0 failed=0
for name in "${names[@]}"; do
	# Debian has no key ring of Ubuntu's; a root that is thrown away takes the archive on trust.
	case $name in
	debian-12) suite=bookworm mirror=http://deb.debian.org/debian components=main keys=/usr/share/keyrings/debian-archive-keyring.gpg ;;
	debian-13) suite=trixie mirror=http://deb.debian.org/debian components=main keys=/usr/share/keyrings/debian-archive-keyring.gpg ;;
	ubuntu-24.04) suite=noble mirror='deb [trusted=yes] http://archive.ubuntu.com/ubuntu noble main universe' components=main,universe keys=/usr/share/keyrings/debian-archive-keyring.gpg ;;
	*) die "unknown distribution $name" ;;
	esac
	log=$cache/distro-$name.log
	root=$(mktemp -d "$cache/.distro.XXXXXX")
	status=0
	{
		mmdebstrap --quiet --variant=minbase --components="$components" --keyring="$keys" --include=git,make,ca-certificates,curl "$suite" "$root" "$mirror" &&
			git clone -q "$top" "$root/root/orlop" &&
			unshare --mount --pid --fork --kill-child --propagation private bash -euc '
				root=$1 goroot=$2
				# The root has to be a mount: what runs inside changes its propagation.
				mount --bind "$root" "$root"
				mkdir -p "$root/usr/local/go"
				mount --bind "$goroot" "$root/usr/local/go"
				mount -t proc proc "$root/proc"
				# Modules are downloaded once for all roots.
				mkdir -p "$root/root/go/pkg/mod" "$3"
				mount --bind "$3" "$root/root/go/pkg/mod"
				# A machine behind a proxy of its own trusts its certificates.
				mount --bind /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
				mount --rbind /sys "$root/sys"
				mount --rbind /dev "$root/dev"
				cp /etc/resolv.conf "$root/etc/resolv.conf"
				exec chroot "$root" env -i HOME=/root TERM=dumb PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
					GOPROXY="$(go env GOPROXY)" GOFLAGS="${GOFLAGS:-}" bash -c "cd /root/orlop && make $4"
			' in_root "$root" "$goroot" "$cache/distro-modules" "${ORLOP_DISTRO_TARGET:-demo}"
	} >"$log" 2>&1 || status=$?
	rm -rf --one-file-system "$root"
	if [ $status = 0 ]; then
		passed=$((passed + 1))
		say "ok   $name"
	else
		failed=$((failed + 1))
		say "FAIL $name (exit $status); the end of $log:"
		tail -n 15 "$log" >&2
	fi
done
printf 'distros: %d passed, %d failed\n' $passed $failed
[ $failed = 0 ]

#!/usr/bin/env bash
# Runs Debian's podman (unpacked, not installed) with roots below DIR:
# peer-podman.sh DIR ARGS…; its containers are in the control group PODMAN_CGROUP.
dir=$1
shift
peer=${PODMAN_PEER:?}
# runc, because Debian's crun refuses a host with cgroup v1 and v2 side by side.
if [ ! -e "$dir/podman.conf" ]; then
	mkdir -p "$dir/pbin" "$dir/net"
	for t in iptables ip6tables; do ln -sf "$peer/usr/sbin/xtables-nft-multi" "$dir/pbin/$t"; done
	printf '{"default":[{"type":"insecureAcceptAnything"}]}\n' >"$dir/policy.json"
	cat >"$dir/podman.conf" <<TXT
[engine]
conmon_path = ["$peer/usr/bin/conmon"]
runtime = "runc"
helper_binaries_dir = ["$peer/usr/lib/podman"]
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.runtimes]
runc = ["$peer/usr/sbin/runc"]
[network]
network_backend = "netavark"
network_config_dir = "$dir/net"
TXT
	printf 'unqualified-search-registries = []\n' >"$dir/registries.conf"
	# conmon hands its runtime a clean environment, so the loader has to know the
	# folder: a cache of its own, in this sandbox's mounts only.
	printf '%s\ninclude /etc/ld.so.conf\n' "$peer/usr/lib/x86_64-linux-gnu" >"$dir/ld.so.conf"
	ldconfig -X -C "$dir/ld.so.cache" -f "$dir/ld.so.conf"
	mount --bind "$dir/ld.so.cache" /etc/ld.so.cache
fi
export CONTAINERS_CONF=$dir/podman.conf CONTAINERS_REGISTRIES_CONF=$dir/registries.conf
export LD_LIBRARY_PATH=$peer/usr/lib/x86_64-linux-gnu XTABLES_LIBDIR=$peer/usr/lib/x86_64-linux-gnu/xtables
export PATH=$dir/pbin:$peer/usr/sbin:$peer/usr/bin:$PATH
args=() n=0
for a in "$@"; do
	args+=("$a")
	n=$((n + 1))
	case $a in
	load) args+=(--signature-policy "$dir/policy.json") ;;
	# Its default, /libpod_parent, would stay on the host.
	run | create) [ -z "${PODMAN_CGROUP:-}" ] || args+=(--cgroup-parent "$PODMAN_CGROUP") ;;
	*) continue ;;
	esac
	args+=("${@:n+1}")
	break
done
exec podman --root "$dir/proot" --runroot "$dir/prun" --tmpdir "$dir/ptmp" "${args[@]}"

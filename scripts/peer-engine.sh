#!/usr/bin/env bash
# Starts Debian's dockerd (unpacked, not installed) in the present namespaces,
# which should be a sandbox's: peer-engine.sh DIR [dockerd flags]. The socket is
# DIR/docker.sock. Runs in the foreground; ends with its sandbox.
. "$(dirname "$0")/lib.sh"
dir=$1
shift
peer=$("$top/scripts/peers.sh" docker)
mkdir -p "$dir/bin"
for t in iptables ip6tables; do
	ln -sf "$peer/usr/sbin/xtables-nft-multi" "$dir/bin/$t"
	ln -sf "$peer/usr/sbin/xtables-nft-multi" "$dir/bin/$t-save"
	ln -sf "$peer/usr/sbin/xtables-nft-multi" "$dir/bin/$t-restore"
done
# The Debian packages put the extensions of iptables where the loader of
# extensions looks only when told.
export XTABLES_LIBDIR=$peer/usr/lib/x86_64-linux-gnu/xtables
export LD_LIBRARY_PATH=$peer/usr/lib/x86_64-linux-gnu:$peer/lib/x86_64-linux-gnu
export PATH=$dir/bin:$peer/usr/sbin:$peer/usr/bin:$PATH DOCKER_RAMDISK=
mkdir -p /run/docker
exec dockerd -H "unix://$dir/docker.sock" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/docker.pid" "$@"

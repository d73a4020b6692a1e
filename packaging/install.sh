#!/usr/bin/env bash
# Puts the programs, the units and the group in place, or takes them away.
# Usage: install.sh install|uninstall BIN DESTDIR PREFIX
set -euo pipefail
verb=$1 bin=$2 destdir=$3 prefix=$4
here=$(cd "$(dirname "$0")" && pwd)
programs=(orlop orlopd orlop-runtime orlop-netd)
units=(orlop.service orlop.socket orlop-shutdown.service)
unitdir=$destdir/usr/lib/systemd/system
case $verb in
install)
	mkdir -p "$destdir$prefix/bin" "$unitdir"
	for p in "${programs[@]}"; do install -m 0755 "$bin/$p" "$destdir$prefix/bin/$p"; done
	for u in "${units[@]}"; do
		sed "s#@PREFIX@#$prefix#g" "$here/systemd/$u" >"$unitdir/$u.new"
		chmod 0644 "$unitdir/$u.new"
		mv "$unitdir/$u.new" "$unitdir/$u"
	done
	if [ -z "$destdir" ]; then
		getent group orlop >/dev/null || groupadd --system orlop
		if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
		echo "Installed. Start it with: systemctl enable --now orlop.socket orlop.service orlop-shutdown.service"
		echo "Users in group orlop may use it (that is as good as root): usermod -aG orlop NAME"
	fi
	;;
uninstall)
	if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then systemctl disable --now "${units[@]}" 2>/dev/null || :; fi
	for p in "${programs[@]}"; do rm -f "$destdir$prefix/bin/$p"; done
	for u in "${units[@]}"; do rm -f "$unitdir/$u"; done
	if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	echo "Uninstalled. Images, containers and volumes stay in /var/lib/orlop."
	;;
*)
	echo "usage: install.sh install|uninstall BIN DESTDIR PREFIX" >&2
	exit 2
	;;
esac

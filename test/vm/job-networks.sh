#!/bin/bash
# Runs inside the test machine: kinds of networks that the kernel of a build
# machine may lack (ipvlan, 802.1q, dummy, SCTP), by real packets between network
# namespaces and then with containers, as a user types it. Two minutes of
# emulation. A part of job.sh; alone: scripts/vm-test.sh "$PWD/test/vm/job-networks.sh"
# shellcheck source=test/vm/lib.sh
[ -n "${passed-}" ] || . /host/lib.sh
for module in macvlan ipvlan 8021q dummy sctp br_netfilter nf_tables nft_fib_inet nft_masq nft_nat nf_conntrack; do
	modprobe "$module" || printf 'no module %s\n' "$module"
done
printf 'kernel %s\n' "$(uname -r)"

# packets PATTERN: tests of the networks package; here none may be skipped.
packets() {
	local out p f s
	out=$(cd /tmp && /host/tests/internal_netdriver_nettest.test -test.v -test.timeout 10m -test.run "$1" 2>&1)
	p=$(grep -cE '^\s*--- PASS' <<<"$out") f=$(grep -cE '^\s*--- FAIL' <<<"$out") s=$(grep -cE '^\s*--- SKIP' <<<"$out")
	if grep -qE '^(panic:|fatal error:)' <<<"$out"; then f=$((f + 1)); fi
	if [ $((p + f)) = 0 ]; then f=1; fi
	grep -E '^( {4})?--- ' <<<"$out"
	if [ "$((f + s))" -gt 0 ]; then grep -vE '^\s*(=== |--- PASS|time=)' <<<"$out" | tail -n 60; fi
	passed=$((passed + p)) failed=$((failed + f + s))
}
for pattern in ShareTheWire InterfaceOfItsOwn ParentsThat DockersWords SCTP; do packets "$pattern"; done

# With containers. The machine has no network card: a cable leads to a second
# machine, which is a namespace. 192.0.2.0/24 is on it, and 203.0.113.0/24 as
# VLAN 10.
work=/tmp/networks
mkdir -p $work
ip netns add outside
ip link add ext0 type veth peer name eth0 netns outside
ip addr add 192.0.2.1/24 dev ext0
ip link set ext0 up
out() { ip netns exec outside "$@"; }
out ip link set lo up
out ip addr add 192.0.2.9/24 dev eth0
out ip link set eth0 up
out ip link add link eth0 name eth0.10 type vlan id 10
out ip addr add 203.0.113.9/24 dev eth0.10
out ip link set eth0.10 up
out ip route add 198.51.100.0/24 via 192.0.2.1

/host/bin/orlopd -H unix://$work/orlop.sock --data-root $work/data --exec-root $work/run --pidfile $work/pid --exec-opt native.cgroupdriver=cgroupfs >$work/log 2>&1 &
daemon=$!
export ORLOP_HOST=unix://$work/orlop.sock
check "daemon" until_ok curl -fs --unix-socket $work/orlop.sock http://x/_ping
check "load" orlop load -q -i /host/images/busybox.tar

address() { orlop inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }
# interface CONTAINER: what the kernel says about its interface.
interface() { nsenter -t "$(orlop inspect -f '{{.State.Pid}}' "$1")" -n ip -d link show dev eth0; }
gone() { ! ip link show "$1"; }

on_wire=(--subnet 192.0.2.0/24 --ip-range 192.0.2.64/26 --gateway 192.0.2.9)
for mode in l2 l3 l3s; do
	subnet=("${on_wire[@]}")
	[ $mode = l2 ] || subnet=(--subnet 198.51.100.0/24)
	check "ipvlan $mode: create" orlop network create -d ipvlan -o parent=ext0 -o ipvlan_mode=$mode "${subnet[@]}" wire
	check "ipvlan $mode: a server" orlop run -d --name web --network wire busybox httpd -f -p 80
	check "ipvlan $mode: a neighbor" orlop run -d --name mate --network wire busybox sleep 1000
	match "ipvlan $mode: the kernel's interface" "ipvlan +mode $mode( |\$)" interface web
	check "ipvlan $mode: the neighbor reaches it" until_ok orlop exec mate ping -c1 -W5 "$(address web)"
	check "ipvlan $mode: outside reaches it" until_ok out curl -s -o /dev/null -m 20 "http://$(address web)/"
	if [ $mode = l2 ]; then check "ipvlan $mode: it reaches outside" orlop exec web ping -c1 -W5 192.0.2.9; fi
	check "ipvlan $mode: remove" orlop rm -f web mate
	check "ipvlan $mode: remove the network" orlop network rm wire
done
check "the parent is still there" ip link show ext0

for driver in macvlan ipvlan; do
	check "802.1q, $driver: create" orlop network create -d $driver -o parent=ext0.10 --subnet 203.0.113.0/24 --gateway 203.0.113.9 tagged
	match "802.1q, $driver: a sub-interface was made" '802\.1Q id 10' ip -d link show ext0.10
	check "802.1q, $driver: a server" orlop run -d --name web --network tagged busybox httpd -f -p 80
	match "802.1q, $driver: the kernel's interface" "$driver " interface web
	check "802.1q, $driver: it reaches outside, tagged" until_ok orlop exec web ping -c1 -W5 203.0.113.9
	check "802.1q, $driver: outside reaches it" until_ok out curl -s -o /dev/null -m 20 "http://$(address web)/"
	kill -9 $daemon
	wait $daemon 2>/dev/null
	/host/bin/orlopd -H unix://$work/orlop.sock --data-root $work/data --exec-root $work/run --pidfile $work/pid --exec-opt native.cgroupdriver=cgroupfs >>$work/log 2>&1 &
	daemon=$!
	check "802.1q, $driver: the daemon's next life" until_ok curl -fs --unix-socket $work/orlop.sock http://x/_ping
	check "802.1q, $driver: outside still reaches it" until_ok out curl -s -o /dev/null -m 20 "http://$(address web)/"
	check "802.1q, $driver: remove" orlop rm -f web
	check "802.1q, $driver: remove the network" orlop network rm tagged
	check "802.1q, $driver: the sub-interface was removed" gone ext0.10
done

# SCTP: busybox has no server for it, Debian's perl is one.
cat >$work/serve.pl <<'PERL'
use Socket;
socket(my $s, PF_INET, SOCK_STREAM, 132) or die "socket: $!";
bind($s, sockaddr_in(9000, INADDR_ANY)) or die "bind: $!";
listen($s, 8) or die "listen: $!";
while (1) {
	my $from = accept(my $c, $s) or next;
	my ($port, $ip) = sockaddr_in($from);
	syswrite($c, "ahoy " . inet_ntoa($ip) . "\n");
	close($c);
}
PERL
cat >$work/ask.pl <<'PERL'
use Socket;
alarm(20);
socket(my $s, PF_INET, SOCK_STREAM, 132) or die "socket: $!";
connect($s, sockaddr_in($ARGV[1], inet_aton($ARGV[0]))) or die "connect: $!";
sysread($s, my $b, 100) or die "read: $!";
print $b;
PERL
asks() { perl $work/ask.pl "$@"; }
check "SCTP: a server" orlop run -d --name web -p 9001:9000/sctp -v /:/vm busybox chroot /vm perl $work/serve.pl
match "SCTP: the port is shown" '^9000/sctp -> 0\.0\.0\.0:9001$' orlop port web
check "SCTP: the server is ready" until_ok asks "$(address web)" 9000
match "SCTP: outside, by the published port, by its own address" '^ahoy 192\.0\.2\.9$' out perl $work/ask.pl 192.0.2.1 9001
match "SCTP: the host" '^ahoy 192\.0\.2\.1$' asks 192.0.2.1 9001
match "SCTP: the host, loopback" '^ahoy ' asks 127.0.0.1 9001
match "SCTP: another container" '^ahoy ' orlop run --rm -v /:/vm busybox chroot /vm perl $work/ask.pl 192.0.2.1 9001
match "SCTP: a taken port is refused" 'port is already allocated' orlop run --rm -p 9001:9000/sctp busybox true
check "SCTP: the same port by TCP is another one" orlop run --rm -p 9001:9000/tcp busybox true
check "SCTP: remove" orlop rm -f web
check "SCTP: the port is free" orlop run --rm -p 9001:9000/sctp busybox true
kill $daemon
wait $daemon
ip netns del outside
if [ $failed -gt 0 ]; then tail -n 60 $work/log; fi
[ -n "${whole-}" ] || summary

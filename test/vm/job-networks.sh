#!/bin/bash
# Runs inside the test machine: kinds of networks that the kernel of a build
# machine may lack (ipvlan, 802.1q, dummy, SCTP), by real packets between network
# namespaces. The last line counts. Usage: scripts/vm-test.sh test/vm/job-networks.sh
passed=0 failed=0 skipped=0
for module in macvlan ipvlan 8021q dummy sctp br_netfilter nf_tables nft_fib_inet nft_masq nft_nat nf_conntrack; do
	modprobe "$module" || printf 'no module %s\n' "$module"
done
printf 'kernel %s\n' "$(uname -r)"
run() {
	local out p f s
	out=$(cd /tmp && /host/tests/internal_netdriver_nettest.test -test.v -test.timeout 10m -test.run "$1" 2>&1)
	p=$(grep -cE '^\s*--- PASS' <<<"$out") f=$(grep -cE '^\s*--- FAIL' <<<"$out") s=$(grep -cE '^\s*--- SKIP' <<<"$out")
	if grep -qE '^(panic:|fatal error:)' <<<"$out"; then f=$((f + 1)); fi
	grep -E '^( {4})?--- ' <<<"$out"
	if [ "$f" -gt 0 ]; then grep -vE '^\s*(=== |--- PASS|time=)' <<<"$out" | tail -n 60; fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}
run 'ShareTheWire|InterfaceOfItsOwn|ParentsThat|DockersWords|SCTP'
printf '%d passed, %d failed, %d skipped\n' $passed $failed $skipped

package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/network"
)

// legacyTable is the iptables that lives beside nftables in the kernel
// (iptables-legacy): its filter table is read with getsockopt(2), as
// iptables-legacy does, and never changed.
type legacyTable struct {
	ipv6           bool
	names, program string
	family, level  int
	info, entries  int // IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES
	// entryLen is the length of struct ipt_entry, targetAt where its
	// target_offset is.
	entryLen, targetAt int
}

var legacyTables = []legacyTable{
	{false, "/proc/net/ip_tables_names", "iptables-legacy", unix.AF_INET, unix.SOL_IP, 64, 65, 112, 88},
	{true, "/proc/net/ip6_tables_names", "ip6tables-legacy", unix.AF_INET6, unix.SOL_IPV6, 64, 65, 168, 140},
}

// legacyWarnings tell of FORWARD chains of iptables-legacy that drop by policy.
func legacyWarnings(mark uint32, bridges []network.BridgeRules, filtered bool) []string {
	var out []string
	for _, t := range legacyTables {
		concerned := slices.ContainsFunc(bridges, func(b network.BridgeRules) bool {
			return slices.ContainsFunc(passages(b), func(p passage) bool {
				return p.IPv6 == t.ipv6 && (filtered || p.what != "between containers")
			})
		})
		if !concerned {
			continue
		}
		drops, err := t.drops(mark)
		switch {
		case err != nil:
			out = append(out, fmt.Sprintf("WARNING: the filter table of %s cannot be read (%v); it may drop packets of containers", t.program, err))
		case drops:
			out = append(out, fmt.Sprintf("WARNING: chain FORWARD of %s drops packets of containers; to let pass what the engine allows: %s -I FORWARD -m mark --mark %#x/%#x -j ACCEPT",
				t.program, t.program, mark, mark))
		}
	}
	return out
}

// hookForward is NF_INET_FORWARD.
const hookForward = 2

// drops reports whether FORWARD drops by policy and does not begin with a rule
// that accepts the mark.
func (t legacyTable) drops(mark uint32) (bool, error) {
	names, err := os.ReadFile(t.names)
	if errors.Is(err, os.ErrNotExist) || err == nil && !slices.Contains(strings.Fields(string(names)), "filter") {
		return false, nil // reading the table would make it
	}
	if err != nil {
		return false, err
	}
	fd, err := unix.Socket(t.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	// struct ipt_getinfo: name[32], valid_hooks, hook_entry[5], underflow[5],
	// num_entries, size.
	info := make([]byte, 32+4*(1+5+5+2))
	copy(info, "filter")
	if err := getsockopt(fd, t.level, t.info, info); err != nil {
		return false, err
	}
	word := func(i int) int { return int(binary.NativeEndian.Uint32(info[32+4*i:])) }
	first, policy, size := word(1+hookForward), word(1+5+hookForward), word(1+5+5+1)
	// struct ipt_get_entries: name[32], size, padding to 8, entries.
	const header = 40
	table := make([]byte, header+size)
	copy(table, "filter")
	binary.NativeEndian.PutUint32(table[32:], uint32(size))
	if err := getsockopt(fd, t.level, t.entries, table); err != nil {
		return false, err
	}
	entries := table[header:]
	verdict, _ := t.standard(entries, policy)
	const accept = -2 // -NF_ACCEPT - 1
	if verdict == accept {
		return false, nil
	}
	return !t.accepts(entries, first, mark), nil
}

// standard is the verdict of the entry at an offset, if its target is one.
func (t legacyTable) standard(entries []byte, at int) (int32, bool) {
	if at < 0 || at+t.entryLen > len(entries) {
		return 0, false
	}
	target := at + int(binary.NativeEndian.Uint16(entries[at+t.targetAt:]))
	// struct xt_entry_target: size, name[29], revision; then the verdict.
	const head = 32
	if target+head+4 > len(entries) || entries[target+2] != 0 {
		return 0, false
	}
	return int32(binary.NativeEndian.Uint32(entries[target+head:])), true
}

// accepts reports whether the entry at an offset has one match, of the mark,
// and accepts.
func (t legacyTable) accepts(entries []byte, at int, mark uint32) bool {
	verdict, ok := t.standard(entries, at)
	const accept = -2
	if !ok || verdict != accept {
		return false
	}
	m := entries[at+t.entryLen : at+int(binary.NativeEndian.Uint16(entries[at+t.targetAt:]))]
	// struct xt_entry_match: size, name[29], revision; then xt_mark_mtinfo1.
	if len(m) < 32+9 || strings.TrimRight(string(m[2:31]), "\x00") != "mark" || m[31] != 1 || int(binary.NativeEndian.Uint16(m)) != len(m) {
		return false
	}
	want, mask := binary.NativeEndian.Uint32(m[32:]), binary.NativeEndian.Uint32(m[36:])
	return mark&mask == want && m[40] == 0
}

func getsockopt(fd, level, name int, buf []byte) error {
	length := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

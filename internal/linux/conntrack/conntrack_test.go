package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/netns"
)

// entry is a flow as the kernel would make it when a client writes to dst and
// src answers.
type entry struct {
	proto            uint8
	client, dst, src string
	answered         bool
}

func (e entry) make(t *testing.T) {
	t.Helper()
	if err := e.set(unix.NLM_F_CREATE | unix.NLM_F_EXCL); err != nil {
		t.Fatalf("make %+v: %v", e, err)
	}
}

// set makes an entry, or changes the one there is.
func (e entry) set(flags int) error {
	client, dst, src := netip.MustParseAddrPort(e.client), netip.MustParseAddrPort(e.dst), netip.MustParseAddrPort(e.src)
	family, from, to := uint8(unix.AF_INET), nl.CTA_IP_V4_SRC, nl.CTA_IP_V4_DST
	if dst.Addr().Is6() {
		family, from, to = unix.AF_INET6, nl.CTA_IP_V6_SRC, nl.CTA_IP_V6_DST
	}
	req := request(family, nl.IPCTNL_MSG_CT_NEW, flags|unix.NLM_F_ACK)
	tuple := func(kind int, a, b netip.AddrPort) {
		out := nl.NewRtAttr(unix.NLA_F_NESTED|kind, nil)
		ip := out.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil)
		ip.AddRtAttr(from, a.Addr().AsSlice())
		ip.AddRtAttr(to, b.Addr().AsSlice())
		proto := out.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil)
		proto.AddRtAttr(nl.CTA_PROTO_NUM, []byte{e.proto})
		proto.AddRtAttr(nl.CTA_PROTO_SRC_PORT, binary.BigEndian.AppendUint16(nil, a.Port()))
		proto.AddRtAttr(nl.CTA_PROTO_DST_PORT, binary.BigEndian.AppendUint16(nil, b.Port()))
		req.AddData(out)
	}
	tuple(nl.CTA_TUPLE_ORIG, client, dst)
	tuple(nl.CTA_TUPLE_REPLY, src, client)
	const confirmed = 1 << 3
	status := uint32(confirmed)
	if e.answered {
		status |= statusSeenReply
	}
	req.AddData(nl.NewRtAttr(nl.CTA_STATUS, binary.BigEndian.AppendUint32(nil, status)))
	req.AddData(nl.NewRtAttr(nl.CTA_TIMEOUT, binary.BigEndian.AppendUint32(nil, 120)))
	_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	return err
}

// inside runs fn in a network namespace without any flows.
func inside(t *testing.T, fn func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ns, err := netns.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var lacking error
	err = ns.Do(func() error {
		if _, err := list(unix.AF_INET); errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
			lacking = err
			return nil
		}
		fn()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if lacking != nil {
		t.Skipf("needs nf_conntrack_netlink: %v", lacking)
	}
}

// left tells which clients still have a flow.
func left(t *testing.T) string {
	t.Helper()
	var out []string
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		flows, err := list(family)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range flows {
			attrs, err := nl.ParseRouteAttr(f.entry)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range attrs {
				if a.Attr.Type&nl.NLA_TYPE_MASK == nl.CTA_TUPLE_ORIG {
					client, _, _, err := parseTuple(a.Value)
					if err != nil {
						t.Fatal(err)
					}
					out = append(out, client.String())
				}
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func ports(list ...string) (out []netip.AddrPort) {
	for _, s := range list {
		out = append(out, netip.MustParseAddrPort(s))
	}
	return out
}

func TestForgetTakesFlowsOfTheBindingsOnly(t *testing.T) {
	inside(t, func() {
		for _, e := range []entry{
			{unix.IPPROTO_UDP, "192.0.2.9:1001", "192.0.2.1:53", "172.17.0.2:53", true},   // published
			{unix.IPPROTO_UDP, "192.0.2.9:1002", "192.0.2.1:53", "192.0.2.1:53", false},   // before it was
			{unix.IPPROTO_UDP, "192.0.2.9:1003", "172.17.0.2:53", "172.17.0.2:53", false}, // directly
			{unix.IPPROTO_UDP, "192.0.2.9:1004", "192.0.2.1:54", "172.17.0.2:54", true},
			{unix.IPPROTO_UDP, "192.0.2.9:1005", "172.17.0.3:53", "172.17.0.3:5353", true}, // 53 of every address
			{unix.IPPROTO_UDP, "[2001:db8::9]:1006", "[2001:db8::1]:53", "[fd00::2]:53", true},
			{unix.IPPROTO_TCP, "192.0.2.9:1007", "192.0.2.1:53", "172.17.0.2:53", true},
		} {
			e.make(t)
		}
		if got, want := left(t), "192.0.2.9:1001 192.0.2.9:1002 192.0.2.9:1003 192.0.2.9:1004 192.0.2.9:1005 [2001:db8::9]:1006"; got != want {
			t.Fatalf("made %s, want %s", got, want)
		}
		if err := ForgetUDP(ports("0.0.0.0:53"), ports("172.17.0.2:53")); err != nil {
			t.Fatal(err)
		}
		if got, want := left(t), "192.0.2.9:1004 [2001:db8::9]:1006"; got != want {
			t.Errorf("left %s, want %s", got, want)
		}
		// What list does not tell is there all the same.
		if all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET); err != nil || len(all) != 2 {
			t.Errorf("%d flows by IPv4 are left (%v), want one of UDP and one of TCP: %v", len(all), err, all)
		}
		if err := ForgetUDP(ports("[2001:db8::1]:53"), nil); err != nil {
			t.Fatal(err)
		}
		if got, want := left(t), "192.0.2.9:1004"; got != want {
			t.Errorf("left %s, want %s", got, want)
		}
	})
}

func TestMoveWaitsForAnswersThatAreUnderWay(t *testing.T) {
	const client, public, before, now = "192.0.2.9:", "192.0.2.1:53", "172.17.0.2:53", "172.17.0.3:53"
	inside(t, func() {
		move := func(patience time.Duration) {
			t.Helper()
			if err := MoveUDP(ports("0.0.0.0:53"), ports(before), ports(now), patience); err != nil {
				t.Fatal(err)
			}
		}
		entry{unix.IPPROTO_UDP, client + "1001", public, before, true}.make(t)
		entry{unix.IPPROTO_UDP, client + "1002", public, public, false}.make(t) // leads nowhere
		entry{unix.IPPROTO_UDP, client + "1003", public, now, false}.make(t)
		entry{unix.IPPROTO_UDP, client + "1004", public, now, true}.make(t)
		const theirs = client + "1003 " + client + "1004"
		move(time.Hour) // nothing of this is waited for
		if got := left(t); got != theirs {
			t.Errorf("left %s, want %s", got, theirs)
		}
		// A question that nobody answers is not waited for without end.
		entry{unix.IPPROTO_UDP, client + "1005", public, before, false}.make(t)
		move(0)
		if got := left(t); got != theirs {
			t.Errorf("left %s, want %s", got, theirs)
		}
		// One that is answered meanwhile goes then.
		asked := entry{unix.IPPROTO_UDP, client + "1006", public, before, false}
		asked.make(t)
		here, err := netns.Current()
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		answer := make(chan error, 1)
		go func() {
			answer <- here.Do(func() error {
				asked.answered = true
				return asked.set(0)
			})
		}()
		move(time.Hour)
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		if got := left(t); got != theirs {
			t.Errorf("left %s, want %s", got, theirs)
		}
	})
}

package netdev

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNewNamespace moves the calling goroutine's thread into a network namespace of
// its own and returns that and another one.
func inNewNamespace(t *testing.T) (here, other *os.File) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	for _, f := range []**os.File{&other, &here} {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
		var err error
		if *f, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = (*f).Close() })
	}
	return here, other
}

func veth(t *testing.T, name string) {
	t.Helper()
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.9.8.7/24", "fd00::7/64"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(l, addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
}

func TestMoveKeepsPermanentGlobalAddresses(t *testing.T) {
	_, other := inNewNamespace(t)
	veth(t, "dev0")
	if _, err := Move("dev0", "inside", other); err != nil {
		t.Fatal(err)
	}
	if _, err := netlink.LinkByName("dev0"); err == nil {
		t.Error("the device is still here")
	}
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName("inside")
	if err != nil {
		t.Fatal(err)
	}
	if l.Attrs().Flags&1 == 0 {
		t.Error("the device is down")
	}
	list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range list {
		if a.Scope == int(netlink.SCOPE_UNIVERSE) {
			got = append(got, a.IPNet.String())
		}
	}
	slices.Sort(got)
	if want := []string{"10.9.8.7/24", "fd00::7/64"}; !slices.Equal(got, want) {
		t.Errorf("addresses %v, want %v", got, want)
	}
}

func TestMoveToAPatternOfAName(t *testing.T) {
	_, other := inNewNamespace(t)
	veth(t, "dev0")
	if _, err := Move("dev0", "eth%d", other); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if _, err := netlink.LinkByName("eth0"); err != nil {
		t.Error(err)
	}
}

func TestMoveOfADeviceThatIsNotThere(t *testing.T) {
	_, other := inNewNamespace(t)
	if _, err := Move("nowhere0", "x", other); !errors.Is(err, unix.ENODEV) {
		t.Errorf("error %v", err)
	}
}

func TestMoveOntoATakenNameLeavesTheDevice(t *testing.T) {
	_, other := inNewNamespace(t)
	veth(t, "dev0")
	if _, err := Move("dev0", "lo", other); !errors.Is(err, unix.EEXIST) {
		t.Errorf("error %v", err)
	}
	l, err := netlink.LinkByName("dev0")
	if err != nil {
		t.Fatal(err)
	}
	if l.Attrs().Flags&1 == 0 {
		t.Error("the device is down")
	}
}

// Package nettest runs tests of networks with real packets, in network
// namespaces of their own: the test program starts itself again inside new
// network, mount and process namespaces, so the host's interfaces, rules and
// settings are never touched and nothing is left behind, however the test ends.
//
// Entry points: Main in a package's TestMain, Need in a test, NewWorld for a
// second machine outside.
package nettest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/linux/rtnl"
)

const inside = "ORLOP_NETTEST_INSIDE"

// Main runs the tests inside private namespaces. Where they cannot be made
// (not root), the tests run where they are and Need skips those that would
// touch the kernel.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare namespaces:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case errors.Is(err, unix.EPERM):
		os.Exit(m.Run())
	}
	fmt.Fprintln(os.Stderr, "start the tests in namespaces of their own:", err)
	os.Exit(1)
}

// prepare makes the new namespaces usable: /proc of the new process namespace,
// loopback up.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	c, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.SetUp(1)
}

// Need skips a test that cannot run here.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("no permission to make a network namespace (CAP_SYS_ADMIN)")
	}
}

// World is the machine that the test runs on ("the host") and one outside,
// with a cable between them.
type World struct {
	// HostNS is the host's namespace; nil is the test's own.
	HostNS, Outside *netns.NS
	// Host and Host6 are the host's addresses on the cable, Peer and Peer6
	// those of the machine outside, whose default route is the host.
	Host, Peer, Host6, Peer6 netip.Addr
}

// NewWorld lays the cable; the test's end takes it away.
func NewWorld(t testing.TB) *World {
	t.Helper()
	return NewWorldOf(t, nil)
}

// NewWorldOf is NewWorld with the host in another namespace, which may be gone
// at the test's end.
func NewWorldOf(t testing.TB, hostNS *netns.NS) *World {
	t.Helper()
	Need(t)
	w := &World{
		HostNS: hostNS,
		Host:   netip.MustParseAddr("192.0.2.1"), Peer: netip.MustParseAddr("192.0.2.9"),
		Host6: netip.MustParseAddr("2001:db8:2::1"), Peer6: netip.MustParseAddr("2001:db8:2::9"),
	}
	var host *rtnl.Conn
	err := Inside(hostNS, func() (err error) {
		host, err = rtnl.Open()
		return err
	})
	must(t, err)
	defer host.Close()
	w.Outside, err = netns.New(func(ns *netns.NS) error {
		mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
		if err := host.AddVeth(rtnl.Veth{Name: "ext0", MTU: 1500, Peer: "eth0", PeerMAC: mac, PeerNS: ns.Fd()}); err != nil {
			return err
		}
		in, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer in.Close()
		l, err := in.Link("eth0")
		if err != nil {
			return err
		}
		return errors.Join(in.SetUp(1), in.AddAddr(l.Index, netip.PrefixFrom(w.Peer, 24)), in.AddAddr(l.Index, netip.PrefixFrom(w.Peer6, 64)),
			in.SetUp(l.Index), in.AddDefaultRoute(false, l.Index, w.Host), in.AddDefaultRoute(true, l.Index, w.Host6))
	})
	must(t, err)
	l, err := host.Link("ext0")
	must(t, err)
	must(t, errors.Join(host.AddAddr(l.Index, netip.PrefixFrom(w.Host, 24)), host.AddAddr(l.Index, netip.PrefixFrom(w.Host6, 64))))
	t.Cleanup(func() {
		w.Outside.Close()
		if hostNS != nil {
			return // the cable goes with its ends
		}
		c, err := rtnl.Open()
		must(t, err)
		defer c.Close()
		if err := c.Delete("ext0"); err != nil && !rtnl.IsGone(err) {
			t.Error(err)
		}
	})
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Inside runs fn in a namespace; nil is the host.
func Inside(ns *netns.NS, fn func() error) error {
	if ns == nil {
		return fn()
	}
	return ns.Do(fn)
}

// Serve answers on a TCP and a UDP port in a namespace, with its own name and
// the client's address, until the test ends or stop is called.
func Serve(t testing.TB, ns *netns.NS, name string, port uint16) (stop func()) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	must(t, Inside(ns, func() (err error) {
		var lc net.ListenConfig
		if l, err = lc.Listen(t.Context(), "tcp", fmt.Sprintf(":%d", port)); err == nil {
			p, err = lc.ListenPacket(t.Context(), "udp", fmt.Sprintf(":%d", port))
		}
		return err
	}))
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "%s %s\n", name, client(c.RemoteAddr()))
				_, _ = io.Copy(c, c) // until the client leaves, however it does
			}()
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 2048)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			fmt.Fprint(writerTo{p, from}, name, " ", client(from), " ", string(buf[:n]), "\n")
		}
	}()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			l.Close()
			p.Close()
			<-done
			<-done
		}
	}
	t.Cleanup(stop)
	return stop
}

type writerTo struct {
	p  net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.p.WriteTo(b, w.to) }

func client(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// Answer is what a server of Serve said.
type Answer struct {
	Server, Client string
}

// patience of Ask; a packet that was dropped is only known by the silence.
const patience = 700 * time.Millisecond

// Ask connects from a namespace (nil: the host) and returns who answered.
func Ask(ns *netns.NS, proto, addr string) (Answer, error) {
	return ask(ns, proto, addr, 10*time.Second, nil)
}

// Prompt is Ask by TCP where no packet may get lost: who asks by ARP or sends a
// SYN in vain does it again after a second. The kernel's own measure is taken,
// because on a busy machine a thread waits for its turn as long.
func Prompt(ns *netns.NS, addr string) (Answer, error) {
	return ask(ns, "tcp", addr, 10*time.Second, func(c net.Conn) error {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		var info *unix.TCPInfo
		var failed error
		err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
		if err := errors.Join(err, failed); err != nil {
			return err
		}
		// Rtt is that of the SYN: this end has sent nothing else.
		if took := time.Duration(info.Rtt) * time.Microsecond; took > 900*time.Millisecond || info.Total_retrans > 0 {
			return fmt.Errorf("the handshake took %s, %d packets were sent again", took, info.Total_retrans)
		}
		return nil
	})
}

// Silent is Ask for connections that are expected to fail.
func Silent(ns *netns.NS, proto, addr string) (Answer, error) {
	return ask(ns, proto, addr, patience, nil)
}

// ask looks at the connection once there is an answer; look may be nil.
func ask(ns *netns.NS, proto, addr string, wait time.Duration, look func(net.Conn) error) (Answer, error) {
	var c net.Conn
	err := Inside(ns, func() (err error) {
		c, err = (&net.Dialer{Timeout: wait}).DialContext(context.Background(), proto, addr)
		return err
	})
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return Answer{}, err
	}
	if proto == "udp" {
		defer insist(c)()
	}
	buf := make([]byte, 256)
	n, err := c.Read(buf)
	if err != nil {
		return Answer{}, err
	}
	if look != nil {
		if err := look(c); err != nil {
			return Answer{}, err
		}
	}
	f := strings.Fields(string(buf[:n]))
	if len(f) < 2 {
		return Answer{}, fmt.Errorf("strange answer %q", buf[:n])
	}
	return Answer{Server: f[0], Client: f[1]}, nil
}

// insist sends a datagram again and again until stop is called: one may get lost,
// as the kernel sends TCP's again.
func insist(c net.Conn) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			_, _ = c.Write([]byte("hello")) // an error is Read's too
			select {
			case <-quit:
				return
			case <-time.After(patience / 2):
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}

// Patient is Ask where it is not known whether somebody answers: it waits longer
// than Silent, because many ask at the same time.
func Patient(ns *netns.NS, proto, addr string) (Answer, error) {
	return ask(ns, proto, addr, 3*time.Second, nil)
}

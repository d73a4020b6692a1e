package nettest_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

// sctpSocket makes an SCTP socket in a namespace that waits no longer than so
// long for anything.
func sctpSocket(ns *netns.NS, wait time.Duration) (fd int, err error) {
	err = nettest.Inside(ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		return err
	})
	if err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(int64(wait))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// needSCTP skips a test where the kernel has no SCTP.
func needSCTP(t *testing.T) {
	t.Helper()
	nettest.Need(t)
	fd, err := sctpSocket(nil, time.Second)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		t.Skip("the kernel has no SCTP")
	}
	must(t, err)
	unix.Close(fd)
}

// bindSCTP takes a port on every address of a namespace.
func bindSCTP(t *testing.T, ns *netns.NS, port int) int {
	t.Helper()
	// It is also how soon a server learns that it shall end.
	fd, err := sctpSocket(ns, 100*time.Millisecond)
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Port: port}))
	return fd
}

// serveSCTP answers with its own name and the client's address, until the test
// ends or stop is called.
func serveSCTP(t *testing.T, ns *netns.NS, name string, port int) (stop func()) {
	t.Helper()
	fd := bindSCTP(t, ns, port)
	must(t, unix.Listen(fd, 16))
	var ending atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer unix.Close(fd)
		for !ending.Load() {
			c, from, err := unix.Accept(fd)
			if err != nil {
				continue // nobody came in this moment
			}
			if four, ok := from.(*unix.SockaddrInet4); ok {
				_, _ = unix.Write(c, fmt.Appendf(nil, "%s %s", name, netip.AddrFrom4(four.Addr)))
			}
			unix.Close(c)
		}
	}()
	stop = func() {
		ending.Store(true)
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// askSCTP connects from a namespace and returns what the server says.
func askSCTP(ns *netns.NS, to string, wait time.Duration) (string, error) {
	fd, err := sctpSocket(ns, wait)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	at := netip.MustParseAddrPort(to)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		return "", fmt.Errorf("connect to %s: %w", to, err)
	}
	buf := make([]byte, 256)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return "", fmt.Errorf("read from %s: %w", to, err)
	}
	return string(buf[:n]), nil
}

func TestSCTPPortsArePublished(t *testing.T) {
	for _, nf := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables "+nf, func(t *testing.T) {
			needSCTP(t)
			if !bridgeNF(t, nf) {
				t.Skip("the kernel has no br_netfilter")
			}
			w := nettest.NewWorld(t)
			e := start(t, nil, nil)
			web, client := e.run("web", ":8080:80/sctp"), e.run("client")
			stop := serveSCTP(t, web.ns, "web", 80)
			own, published := web.ip.String()+":80", w.Host.String()+":8080"
			gateway := web.Attachment.Endpoints[0].Gateway4.String()
			for _, p := range []path{
				{"outside", w.Outside, published, w.Peer.String()},
				{"the host", nil, published, w.Host.String()},
				{"the host, loopback", nil, "127.0.0.1:8080", gateway},
				{"another container, published", client.ns, published, gateway},
				{"another container", client.ns, own, client.ip.String()},
			} {
				if got, err := askSCTP(p.ns, p.to, 10*time.Second); got != "web "+p.client {
					t.Errorf("%s: %q, %v; want web %s", p.from, got, err, p.client)
				}
			}
			if got, err := askSCTP(w.Outside, own, 2*time.Second); err == nil {
				t.Errorf("outside, the container's own address: %q", got)
			}

			// The port is taken, for other programs as for other containers; one that
			// somebody else has is refused before anything changes.
			fd, err := sctpSocket(nil, time.Second)
			must(t, err)
			if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 8080}); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("bind a published port: %v", err)
			}
			unix.Close(fd)
			if _, err := e.tryRun("second", ":8080:80/sctp"); err == nil || !strings.Contains(err.Error(), "Bind for 0.0.0.0:8080 failed: port is already allocated") {
				t.Errorf("a port of another container: %v", err)
			}
			taken := bindSCTP(t, nil, 8081)
			if _, err := e.tryRun("late", ":8081:80/sctp"); err == nil || !strings.Contains(err.Error(), "address already in use") {
				t.Errorf("a port of another program: %v", err)
			}
			unix.Close(taken)
			// The same number of another protocol is another port.
			other := e.run("other", ":8080:80/tcp", ":8080:80/udp")
			nettest.Serve(t, other.ns, "other", 80)
			check(t, "other", []path{{"outside", w.Outside, published, w.Peer.String()}})

			stop()
			e.close(web)
			if got, err := askSCTP(w.Outside, published, 2*time.Second); err == nil {
				t.Errorf("a port of a container that is gone: %q", got)
			}
			e.close(client)
			e.close(other)
			for _, b := range []*box{web, client, other} {
				b.Release()
			}
			e.finish()
		})
	}
}

package havoc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/testkit"
)

// inContainer is a container of the test: its namespace and its addresses on
// a network.
type inContainer struct {
	ns     *netns.NS
	v4, v6 netip.Addr
}

func inside(t *testing.T, e *testkit.Engine, name, network string) inContainer {
	t.Helper()
	out := e.Run("inspect", "-f", fmt.Sprintf("{{.State.Pid}} {{with index .NetworkSettings.Networks %q}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}", network), name)
	f := strings.Fields(out)
	if len(f) != 3 {
		t.Fatalf("inspect %s: %q", name, out)
	}
	pid, err := strconv.Atoi(f[0])
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netnsOf(e, pid)
	if err != nil {
		t.Fatal(err)
	}
	c := inContainer{ns, netip.MustParseAddr(f[1]), netip.MustParseAddr(f[2])}
	t.Cleanup(func() { c.ns.Close() })
	return c
}

// greet serves TCP on port 80 of a container: its greeting, and then every line back.
func greet(t *testing.T, c inContainer, greeting string) {
	t.Helper()
	var l net.Listener
	err := c.ns.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(context.Background(), "tcp", ":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				fmt.Fprintln(conn, greeting)
				for r := bufio.NewReader(conn); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					fmt.Fprint(conn, line)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
}

// step bounds one look-up and one connection. What is refused fails at once; on
// a busy machine only a call that is lost for good lasts as long.
func step() time.Duration { return testkit.Patience(time.Minute) }

// dial connects from a namespace and expects the greeting.
func dial(ns *netns.NS, addr netip.Addr, port uint16, greeting string) (net.Conn, *bufio.Reader, error) {
	var conn net.Conn
	err := ns.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: step()}).DialContext(context.Background(), "tcp", netip.AddrPortFrom(addr, port).String())
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReader(conn)
	err = conn.SetDeadline(time.Now().Add(step()))
	if err == nil {
		var line string
		if line, err = r.ReadString('\n'); err == nil && line != greeting+"\n" {
			err = fmt.Errorf("greeted with %q", line)
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, r, nil
}

func connects(ns *netns.NS, addr netip.Addr, port uint16, greeting string) error {
	conn, _, err := dial(ns, addr, port, greeting)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", addr, err)
	}
	return conn.Close()
}

// lookUp asks the container's resolver and returns the first answer.
func lookUp(ns *netns.NS, name string, kind uint16) (string, error) {
	var conn net.Conn
	err := ns.Do(func() (err error) {
		conn, err = new(net.Dialer).DialContext(context.Background(), "udp", "127.0.0.11:53")
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	client := dns.Client{Timeout: step()}
	r, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind), &dns.Conn{Conn: conn})
	if err != nil {
		return "", fmt.Errorf("look up %s: %w", name, err)
	}
	if len(r.Answer) == 0 {
		return "", fmt.Errorf("look up %s: %s, no answer", name, dns.RcodeToString[r.Rcode])
	}
	switch rr := r.Answer[0].(type) {
	case *dns.A:
		return rr.A.String(), nil
	case *dns.AAAA:
		return rr.AAAA.String(), nil
	case *dns.PTR:
		return rr.Ptr, nil
	}
	return "", fmt.Errorf("look up %s: %v", name, r.Answer[0])
}

// finds expects one answer.
func finds(ns *netns.NS, name string, kind uint16, want string) error {
	got, err := lookUp(ns, name, kind)
	if err == nil && got != want {
		err = fmt.Errorf("look up %s: %s, want %s", name, got, want)
	}
	return err
}

// TestUserNetworksGoOnWithoutADaemon asks and connects without pause, each way
// by a goroutine of its own, while the daemon is killed and away for a while
// (HAVOC_AWAY).
func TestUserNetworksGoOnWithoutADaemon(t *testing.T) {
	t.Parallel()
	e := testkit.PrepareEngine(t)
	kept := resolver(t, e)
	e.Start()
	e.Load("busybox")
	e.Run("network", "create", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64", "team")
	e.Run("network", "create", "--ipv6", "--subnet", "10.78.0.0/24", "--subnet", "fd00:78::/64", "elsewhere")
	e.Run("run", "-d", "--name", "web", "--network", "team", "--network-alias", "www", "-p", "8080:80", "busybox", "sleep", "100000")
	e.Run("run", "-d", "--name", "client", "--network", "team", "busybox", "sleep", "100000")
	e.Run("run", "-d", "--name", "far", "--network", "elsewhere", "busybox", "sleep", "100000")
	web, client, far := inside(t, e, "web", "team"), inside(t, e, "client", "team"), inside(t, e, "far", "elsewhere")
	host, err := netns.OfPid(e.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	greet(t, web, "ahoy")

	// An open connection to [::1], which netd carries.
	open, lines, err := dial(host, netip.IPv6Loopback(), 8080, "ahoy")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	reverse := func(a netip.Addr) string {
		name, err := dns.ReverseAddr(a.String())
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	gateway4, gateway6 := netip.MustParseAddr("10.78.0.1"), netip.MustParseAddr("fd00:78::1")
	byName := func(kind uint16) func() error {
		return func() error {
			a, err := lookUp(client.ns, "web", kind)
			if err != nil {
				return err
			}
			return connects(client.ns, netip.MustParseAddr(a), 80, "ahoy")
		}
	}
	ways := map[string]func() error{
		"name":                          func() error { return finds(client.ns, "web", dns.TypeA, web.v4.String()) },
		"name, IPv6":                    func() error { return finds(client.ns, "web", dns.TypeAAAA, web.v6.String()) },
		"alias":                         func() error { return finds(client.ns, "www", dns.TypeA, web.v4.String()) },
		"reverse":                       func() error { return finds(client.ns, reverse(web.v4), dns.TypePTR, "web.team.") },
		"reverse, IPv6":                 func() error { return finds(client.ns, reverse(web.v6), dns.TypePTR, "web.team.") },
		"upstream":                      func() error { return finds(client.ns, "outside.test", dns.TypeA, "10.1.2.3") },
		"upstream, kept":                func() error { return finds(client.ns, "kept.test", dns.TypeA, "10.1.2.3") },
		"connect by name":               byName(dns.TypeA),
		"connect by name, IPv6":         byName(dns.TypeAAAA),
		"published, 127.0.0.1":          func() error { return connects(host, netip.MustParseAddr("127.0.0.1"), 8080, "ahoy") },
		"published, [::1]":              func() error { return connects(host, netip.IPv6Loopback(), 8080, "ahoy") },
		"published, other network":      func() error { return connects(far.ns, gateway4, 8080, "ahoy") },
		"published, other network IPv6": func() error { return connects(far.ns, gateway6, 8080, "ahoy") },
		"open [::1] connection": func() error {
			if err := open.SetDeadline(time.Now().Add(step())); err != nil {
				return err
			}
			if _, err := fmt.Fprintln(open, "still there"); err != nil {
				return err
			}
			_, err := lines.ReadString('\n')
			return err
		},
	}
	for name, way := range ways {
		if err := way(); err != nil {
			t.Fatalf("with the daemon: %s: %v", name, err)
		}
	}
	asked := kept()

	type result struct {
		good, bad int
		first     error
	}
	results := map[string]*result{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e.Kill()
	var wg sync.WaitGroup
	for name, way := range ways {
		r := &result{}
		results[name] = r
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := way(); err != nil {
					if r.bad++; r.first == nil {
						r.first = err
					}
					continue
				}
				r.good++
			}
		})
	}
	gone := time.NewTimer(away(t))
	defer gone.Stop()
	<-gone.C
	e.Start()
	e.Run("exec", "web", "true")
	cancel()
	wg.Wait()
	names := make([]string, 0, len(ways))
	for name := range ways {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		r := results[name]
		t.Logf("%-30s %7d succeeded, %d failed, %s without a daemon", name, r.good, r.bad, away(t))
		if r.bad > 0 || r.good == 0 {
			t.Errorf("%s: %d failed while the daemon was away, the first: %v", name, r.bad, r.first)
		}
	}
	if n := kept() - asked; n > 0 {
		t.Errorf("%d questions upstream for a name whose answer is kept", n)
	}
}

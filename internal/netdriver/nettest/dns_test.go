package nettest_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

// upstream counts the questions that reached serveDNS by UDP. One that is asked
// again, because the answer was late, is the same question.
type upstream struct {
	udp atomic.Int64
}

// serveDNS is the host's resolver on 127.0.0.1:53: every name has an address,
// big.… has many, slow.… no answer the first time, none.… does not exist.
func serveDNS(t *testing.T) *upstream {
	t.Helper()
	up := &upstream{}
	var slow sync.Map // names that were asked for once
	type question struct {
		id   uint16
		name string
	}
	var counted sync.Map
	handle := func(w dns.ResponseWriter, q *dns.Msg) {
		tcp := w.RemoteAddr().Network() == "tcp"
		name := q.Question[0].Name
		if !tcp {
			if _, again := counted.LoadOrStore(question{q.Id, name}, true); !again {
				up.udp.Add(1)
			}
		}
		if _, again := slow.LoadOrStore(name, true); strings.HasPrefix(name, "slow.") && !again {
			return
		}
		r := new(dns.Msg).SetReply(q)
		rr := func(i int) dns.RR {
			return &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(203, 0, 113, byte(i))}
		}
		switch {
		case strings.HasPrefix(name, "none."):
			r.Rcode = dns.RcodeNameError
			r.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "test.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 30}, Ns: "a.", Mbox: "b.", Minttl: 30}}
		case strings.HasPrefix(name, "big."):
			for i := range 100 {
				r.Answer = append(r.Answer, rr(i))
			}
		case q.Question[0].Qtype == dns.TypeA:
			r.Answer = []dns.RR{rr(1)}
		}
		if !tcp {
			r.Truncate(512)
		}
		_ = w.WriteMsg(r)
	}
	p, err := net.ListenPacket("udp", "127.0.0.1:53")
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:53")
	must(t, err)
	for _, s := range []*dns.Server{{PacketConn: p, Handler: dns.HandlerFunc(handle)}, {Listener: l, Handler: dns.HandlerFunc(handle)}} {
		done := make(chan error, 1)
		go func() { done <- s.ActivateAndServe() }()
		t.Cleanup(func() {
			p.Close()
			l.Close()
			<-done
		})
	}
	return up
}

// query asks the resolver of a sandbox.
func query(ns *netns.NS, proto string, q *dns.Msg) (*dns.Msg, error) {
	var conn net.Conn
	err := ns.Do(func() (err error) {
		conn, err = net.Dial(proto, "127.0.0.11:53")
		return err
	})
	if err != nil {
		return nil, err
	}
	c := &dns.Client{Net: proto, Timeout: 8 * time.Second}
	r, _, err := c.ExchangeWithConn(q, &dns.Conn{Conn: conn, UDPSize: 4096})
	conn.Close()
	return r, err
}

func lookup(b *box, proto, name string) ([]string, error) {
	return lookupIn(b.ns, proto, name, dns.TypeA)
}

func lookupIn(ns *netns.NS, proto, name string, kind uint16) ([]string, error) {
	r, err := query(ns, proto, new(dns.Msg).SetQuestion(dns.Fqdn(name), kind))
	if err != nil {
		return nil, err
	}
	if r.Rcode != dns.RcodeSuccess {
		return nil, fmt.Errorf("look up %s: %s", name, dns.RcodeToString[r.Rcode])
	}
	var out []string
	for _, rr := range r.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		case *dns.PTR:
			out = append(out, rr.Ptr)
		}
	}
	slices.Sort(out)
	return out, nil
}

func lookupPid(pid int, name string) ([]string, error) {
	ns, err := netns.OfPid(pid)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return lookupIn(ns, "udp", name, dns.TypeA)
}

// process runs a program inside a sandbox, as a container's init does.
func process(t *testing.T, b *box) *os.Process {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "300")
	must(t, b.ns.Do(cmd.Start)) // a child is in its parent thread's namespace
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process
}

func TestNamesAreFoundBehindAContainersOwnFirewall(t *testing.T) {
	nettest.Need(t)
	e := start(t, nil, func(c *networks.Config) {
		c.Store.(*memory).recs["net1"] = userNetwork("net1", "mynet", "br-test", "10.77.0.0/24")
	})
	defer e.finish()
	b, err := e.open(networks.SandboxRequest{ContainerID: newID(), Name: "alice", Mode: "mynet"})
	must(t, err)
	defer e.close(b)
	found := func(t *testing.T) {
		t.Helper()
		for _, proto := range []string{"udp", "tcp"} {
			eventually(t, "alice is found by "+proto, func() bool {
				got, err := lookup(b, proto, "alice")
				return err == nil && slices.Equal(got, []string{b.ip.String()})
			})
		}
	}
	found(t)
	table := func(args ...string) string {
		t.Helper()
		var out []byte
		must(t, b.ns.Do(func() (err error) {
			out, err = exec.CommandContext(t.Context(), "nft", args...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("nft %s: %w: %s", args, err, out)
			}
			return err
		}))
		return string(out)
	}
	if rules := table("list", "ruleset"); strings.Contains(rules, "type nat") || strings.Contains(rules, " ct ") {
		t.Errorf("connections of the container are tracked for:\n%s", rules)
	}
	t.Run("it lets out questions and what belongs to them", func(t *testing.T) {
		table("add table ip guard { chain out { type filter hook output priority 0 ; policy drop ; ct state established accept ; ip daddr 127.0.0.11 udp dport 53 accept ; ip daddr 127.0.0.11 tcp dport 53 accept ; } ; }")
		table("add table ip guard { chain in { type filter hook input priority 0 ; policy drop ; iif lo accept ; } ; }")
		found(t)
		table("delete table ip guard")
	})
	t.Run("rules of an earlier release are replaced", func(t *testing.T) {
		table("delete table ip orlop-resolver")
		table("add table ip orlop-resolver { chain output { type nat hook output priority -100 ; ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:1 ; ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:1 ; } ; }")
		must(t, syscall.Kill(hello(t, e).Pid, syscall.SIGKILL))
		found(t)
		if rules := table("list", "ruleset"); strings.Contains(rules, "type nat") {
			t.Errorf("the rules are\n%s", rules)
		}
	})
}

func TestHostsLoopbackResolverIsAskedForContainers(t *testing.T) {
	nettest.Need(t)
	up := serveDNS(t)
	e := start(t, nil, func(c *networks.Config) {
		c.Host = machine{c.Host.(machine).Host, "nameserver 127.0.0.1\nsearch example.test\n"}
	})
	defer e.finish()
	b := e.run("web")
	defer e.close(b)
	if got := string(b.ResolvConf); !strings.Contains(got, "nameserver 127.0.0.11\nsearch example.test\n") {
		t.Errorf("resolv.conf:\n%s", got)
	}
	for _, proto := range []string{"udp", "tcp"} {
		if got, err := lookup(b, proto, proto+".example.test"); err != nil || fmt.Sprint(got) != "[203.0.113.1]" {
			t.Errorf("by %s: %v %v", proto, got, err)
		}
	}

	// The second time the answer comes from the cache, with its time running.
	before := up.udp.Load()
	if _, err := lookup(b, "udp", "UDP.example.test"); err != nil {
		t.Error(err)
	}
	if n := up.udp.Load() - before; n != 0 {
		t.Errorf("%d questions upstream for a cached name", n)
	}
	for range 2 {
		r, err := query(b.ns, "udp", new(dns.Msg).SetQuestion("none.example.test.", dns.TypeA))
		must(t, err)
		if r.Rcode != dns.RcodeNameError || len(r.Ns) != 1 {
			t.Errorf("a name that does not exist: %v", r)
		}
	}
	if n := up.udp.Load() - before; n != 1 {
		t.Errorf("%d questions upstream for a name that does not exist, want 1", n)
	}

	// A long answer is cut for UDP and complete by TCP, and by UDP for clients
	// that take more.
	r, err := query(b.ns, "udp", new(dns.Msg).SetQuestion("big.example.test.", dns.TypeA))
	must(t, err)
	r.Compress = true // as it was sent
	if !r.Truncated || r.Len() > 512 {
		t.Errorf("a long answer by UDP: truncated %v, %d bytes", r.Truncated, r.Len())
	}
	if got, err := lookup(b, "tcp", "big.example.test"); err != nil || len(got) != 100 {
		t.Errorf("a long answer by TCP: %d records, %v", len(got), err)
	}
	q := new(dns.Msg).SetQuestion("big.example.test.", dns.TypeA)
	q.SetEdns0(4096, false)
	if r, err := query(b.ns, "udp", q); err != nil || r.Truncated || len(r.Answer) != 100 {
		t.Errorf("a long answer by UDP to a client that takes 4096 bytes: %v", err)
	}
	if got, err := lookup(b, "udp", "slow.example.test"); err != nil || len(got) != 1 {
		t.Errorf("a question that got lost: %v %v", got, err)
	}
}

func TestContainerCanServePort53Itself(t *testing.T) {
	e := names(t)
	defer e.finish()
	b := e.run("dns")
	defer e.close(b)
	nettest.Serve(t, b.ns, "own", 53)
	if got, err := lookup(b, "udp", "a.example.test"); err != nil || len(got) != 1 {
		t.Errorf("127.0.0.11: %v %v", got, err)
	}
	if got, err := nettest.Ask(nil, "udp", b.ip.String()+":53"); err != nil || got.Server != "own" {
		t.Errorf("the container's own server: %v %v", got, err)
	}
}

func TestNamesOfContainersOnAUserNetwork(t *testing.T) {
	nettest.Need(t)
	serveDNS(t)
	e := start(t, nil, func(c *networks.Config) {
		c.Host = machine{c.Host.(machine).Host, "nameserver 127.0.0.1\n"}
		m := c.Store.(*memory)
		m.recs["net1"] = userNetwork("net1", "mynet", "br-test", "10.77.0.0/24")
	})
	defer e.finish()
	open := func(name string, aliases ...string) *box {
		b, err := e.open(networks.SandboxRequest{
			ContainerID: newID(), Name: name, Mode: "mynet",
			Endpoints: map[string]*networktypes.EndpointSettings{"mynet": {Aliases: aliases}},
		})
		must(t, err)
		t.Cleanup(func() { e.svc.Close(t.Context(), b.Attachment.ContainerID) })
		return b
	}
	a, b := open("alice", "team"), open("bob", "team")
	stranger := e.run("stranger")
	defer e.close(stranger)
	for name, want := range map[string]string{
		"alice": "[10.77.0.2]", "BOB": "[10.77.0.3]", "bob.mynet": "[10.77.0.3]", "team": "[10.77.0.2 10.77.0.3]",
		a.Attachment.ContainerID[:12]: "[10.77.0.2]", "elsewhere.example.test": "[203.0.113.1]",
	} {
		if got, err := lookup(b, "udp", name); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v %v, want %s", name, got, err, want)
		}
	}
	if got, err := lookupIn(b.ns, "udp", "2.0.77.10.in-addr.arpa", dns.TypePTR); err != nil || fmt.Sprint(got) != "[alice.mynet.]" {
		t.Errorf("reverse: %v %v", got, err)
	}
	if got, err := lookupIn(b.ns, "udp", "alice", dns.TypeAAAA); err != nil || len(got) != 0 {
		t.Errorf("an address the name does not have: %v %v", got, err)
	}
	if got, err := lookup(stranger, "udp", "alice"); err != nil || fmt.Sprint(got) != "[203.0.113.1]" {
		t.Errorf("a container of another network sees %v %v", got, err)
	}
	must(t, e.svc.Close(t.Context(), a.Attachment.ContainerID))
	if got, err := lookup(b, "udp", "team"); err != nil || fmt.Sprint(got) != "[10.77.0.3]" {
		t.Errorf("after one of two has ended: %v %v", got, err)
	}
	// Networks do not reach each other.
	nettest.Serve(t, b.ns, "bob", 80)
	refuse(t, "a container of another network", stranger.ns, b.ip.String()+":80")
}

// userNetwork is the record of a network that a user made.
func userNetwork(id, name, device, subnet string) network.Record {
	p := netip.MustParsePrefix(subnet)
	return network.Record{
		Schema: network.RecordSchema, ID: id, Name: name, Driver: network.DriverBridge, Device: device, EnableIPv4: true,
		IPAM: networktypes.IPAM{Driver: "default", Config: []networktypes.IPAMConfig{{Subnet: p, Gateway: p.Addr().Next()}}},
	}
}

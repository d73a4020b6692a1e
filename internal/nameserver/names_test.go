package nameserver

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/orlop/orlop/internal/nameserver/table"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestNamesFollowTheirSandboxes(t *testing.T) {
	n := newNames()
	rec := func(id, network, ip string, names ...string) table.Sandbox {
		return table.Sandbox{ID: id, Names: []table.Name{{Network: network, Names: names, Reverse: names[0] + ".net", Addrs: []netip.Addr{addr(ip)}}}}
	}
	n.set(rec("a", "n1", "10.0.0.2", "web", "Team"))
	n.set(rec("b", "n1", "10.0.0.3", "db", "team"))
	n.set(rec("c", "n2", "10.1.0.2", "web"))
	look := func(name string, networks ...string) string {
		got, known := n.addrs(networks, name)
		slices.SortFunc(got, netip.Addr.Compare)
		return fmt.Sprint(known, got)
	}
	for _, c := range []struct{ got, want string }{
		{look("WEB.", "n1"), "true [10.0.0.2]"},
		{look("web", "n2", "n1"), "true [10.1.0.2]"}, // the first network that knows it
		{look("team", "n1"), "true [10.0.0.2 10.0.0.3]"},
		{look("db", "n2"), "false []"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
	n.set(rec("a", "n1", "10.0.0.9", "api"))
	if got := look("web", "n1"); got != "false []" {
		t.Errorf("a name that was given up: %s", got)
	}
	if _, ok := n.name([]string{"n1"}, addr("10.0.0.2")); ok {
		t.Error("an address that was given up has a name")
	}
	if got, _ := n.name([]string{"n1"}, addr("10.0.0.9")); got != "api.net" {
		t.Errorf("reverse: %s", got)
	}
	for _, id := range []string{"a", "b", "c", "c"} {
		n.remove(id)
	}
	if len(n.byName)+len(n.byAddr)+len(n.records) != 0 {
		t.Errorf("left: %v %v %v", n.byName, n.byAddr, n.records)
	}
}

func TestReverseNames(t *testing.T) {
	for name, want := range map[string]string{
		"2.0.17.172.in-addr.arpa.": "172.17.0.2",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.IP6.ARPA.": "2001:db8::1",
		"17.172.in-addr.arpa.":     "",
		"2.0.17.999.in-addr.arpa.": "",
		"x.0.0.0.ip6.arpa.":        "",
		"example.org.":             "",
	} {
		got, ok := parseReverse(name)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %v %v, want %q", name, got, ok, want)
		}
	}
}

func TestCacheBelievesAnswersAsLongAsTheySay(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newCache(func() time.Time { return now })
	query := new(dns.Msg).SetQuestion("Example.org.", dns.TypeA)
	up := []table.Upstream{{Addr: netip.MustParseAddrPort("192.0.2.1:53")}}
	key := cacheKey(query, up)
	resp := new(dns.Msg).SetReply(query)
	for _, ttl := range []uint32{300, 60} {
		resp.Answer = append(resp.Answer, &dns.A{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: []byte{1, 2, 3, 4}})
	}
	c.put(key, resp)
	now = now.Add(50 * time.Second)
	other := new(dns.Msg).SetQuestion("example.ORG.", dns.TypeA)
	got := c.get(cacheKey(other, up), other)
	if got == nil || got.Id != other.Id || got.Question[0].Name != "example.ORG." || got.Answer[0].Header().Ttl != 250 || got.Answer[1].Header().Ttl != 10 {
		t.Fatalf("after 50 s: %v", got)
	}
	if resp.Answer[0].Header().Ttl != 300 {
		t.Error("the cached answer itself was changed")
	}
	if c.get(cacheKey(other, []table.Upstream{{Addr: netip.MustParseAddrPort("192.0.2.2:53")}}), other) != nil {
		t.Error("an answer of another server")
	}
	now = now.Add(11 * time.Second)
	if c.get(key, query) != nil || c.len() != 0 {
		t.Error("an answer that is too old")
	}

	soa := &dns.SOA{Hdr: dns.RR_Header{Name: "org.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 900}, Minttl: 20}
	for what, c := range map[string]struct {
		resp dns.Msg
		want time.Duration
	}{
		"no such name":           {dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError}, Ns: []dns.RR{soa}}, 20 * time.Second},
		"no such record":         {dns.Msg{Ns: []dns.RR{soa}}, 20 * time.Second},
		"negative without a SOA": {dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError}}, 0},
		"a failure":              {dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeServerFailure}, Ns: []dns.RR{soa}}, 0},
		"a cut answer":           {dns.Msg{MsgHdr: dns.MsgHdr{Truncated: true}, Answer: resp.Answer}, 0},
		"a very long life":       {dns.Msg{Answer: []dns.RR{&dns.A{Hdr: dns.RR_Header{Rrtype: dns.TypeA, Ttl: 1 << 30}}}}, maxTTL},
	} {
		if got := lifetime(&c.resp); got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}

	for i := range maxCached + 50 {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.org.", i), dns.TypeA)
		r := new(dns.Msg).SetReply(q)
		r.Answer = resp.Answer
		c.put(cacheKey(q, up), r)
	}
	if c.len() > maxCached {
		t.Errorf("%d answers kept", c.len())
	}
}

func TestStrangeQueriesAreAnsweredOrIgnored(t *testing.T) {
	s, err := New(Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer s.reactor.close()
	sb := &sandbox{rec: table.Sandbox{DNS: &table.DNS{Networks: []string{"n"}}}, udp: -1, tcp: -1, pidfd: -1}
	for what, c := range map[string]struct {
		change func(*dns.Msg)
		rcode  int
	}{
		"not a query":        {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"two questions":      {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeNotImplemented},
		"nobody to be asked": {func(*dns.Msg) {}, dns.RcodeRefused},
		"another class":      {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
	} {
		q := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
		c.change(q)
		resp, forward := s.local(sb, q)
		if forward || resp.Rcode != c.rcode || !resp.Response || resp.Id != q.Id {
			t.Errorf("%s: %v, forward %v", what, resp, forward)
		}
	}
}

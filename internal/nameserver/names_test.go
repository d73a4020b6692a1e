package nameserver

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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
	var links []table.Link
	look := func(name string, networks ...string) string {
		got, known := n.addrs(nil, networks, links, []byte(name))
		slices.SortFunc(got, netip.Addr.Compare)
		return fmt.Sprint(known, got)
	}
	for _, c := range []struct{ got, want string }{
		{look("web", "n1"), "true [10.0.0.2]"},
		{look("web", "n2", "n1"), "true [10.1.0.2]"}, // the first network that knows it
		{look("team", "n1"), "true [10.0.0.2 10.0.0.3]"},
		{look("db", "n2"), "false []"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
	links = []table.Link{{Network: "n1", Alias: "store", Name: "db"}, {Network: "n2", Alias: "db", Name: "web"}, {Network: "n1", Alias: "gone", Name: "nobody"}}
	for _, c := range []struct{ got, want string }{
		{look("store", "n1"), "true [10.0.0.3]"},
		{look("store", "n2"), "false []"},
		{look("db", "n2"), "true [10.1.0.2]"}, // a link goes before a name
		{look("gone", "n1"), "false []"},
	} {
		if c.got != c.want {
			t.Errorf("by a link: got %s, want %s", c.got, c.want)
		}
	}
	links = nil
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
		got, ok := parseReverse([]byte(strings.ToLower(strings.TrimSuffix(name, "."))))
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %v %v, want %q", name, got, ok, want)
		}
	}
}

// pack is a message of the library, which is the oracle of these tests.
func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func parsed(t testing.TB, m *dns.Msg) *query {
	t.Helper()
	q := &query{}
	if err := q.parse(pack(t, m)); err != nil {
		t.Fatal(err)
	}
	return q
}

func unpacked(t testing.TB, raw []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		t.Fatalf("% x: %v", raw, err)
	}
	return m
}

func aRecord(name string, ttl uint32) dns.RR {
	return &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: []byte{1, 2, 3, 4}}
}

func TestCacheBelievesAnswersAsLongAsTheySay(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newCache(func() time.Time { return now })
	ask := new(dns.Msg).SetQuestion("Example.org.", dns.TypeA)
	q := parsed(t, ask)
	key := q.cacheKey(nil, "a")
	resp := new(dns.Msg).SetReply(ask)
	resp.Answer = []dns.RR{aRecord("Example.org.", 300), aRecord("Example.org.", 60)}
	resp.Compress = true
	c.put(string(key), pack(t, resp), q.end)
	now = now.Add(50 * time.Second)
	other := parsed(t, new(dns.Msg).SetQuestion("example.ORG.", dns.TypeA))
	raw, age, ok := c.get(other.cacheKey(nil, "a"))
	if !ok {
		t.Fatal("the answer is not there after 50 s")
	}
	before := bytes.Clone(raw)
	got := unpacked(t, other.adapt(nil, raw, age, maxMessage))
	if got.Id != unpacked(t, other.raw).Id || got.Question[0].Name != "example.ORG." || got.Answer[0].Header().Ttl != 250 || got.Answer[1].Header().Ttl != 10 {
		t.Fatalf("after 50 s: %v", got)
	}
	if !bytes.Equal(raw, before) {
		t.Error("the cached answer itself was changed")
	}
	if _, _, ok := c.get(other.cacheKey(nil, "b")); ok {
		t.Error("an answer of another server")
	}
	signed := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	signed.SetEdns0(1232, true)
	if _, _, ok := c.get(parsed(t, signed).cacheKey(nil, "a")); ok {
		t.Error("an answer without signatures for who wants them")
	}
	now = now.Add(11 * time.Second)
	if _, _, ok := c.get(key); ok || c.len() != 0 || c.bytes != 0 {
		t.Error("an answer that is too old")
	}
}

func TestLifetimeOfAnswers(t *testing.T) {
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: "org.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 900}, Ns: "a.org.", Mbox: "b.org.", Minttl: 20}
	some := []dns.RR{aRecord("example.org.", 60)}
	for what, c := range map[string]struct {
		resp dns.Msg
		want time.Duration
	}{
		"an answer":              {dns.Msg{Answer: some}, time.Minute},
		"no such name":           {dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError}, Ns: []dns.RR{soa}}, 20 * time.Second},
		"no such record":         {dns.Msg{Ns: []dns.RR{soa}}, 20 * time.Second},
		"negative without a SOA": {dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError}}, 0},
		"a failure":              {dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeServerFailure}, Ns: []dns.RR{soa}}, 0},
		"a cut answer":           {dns.Msg{MsgHdr: dns.MsgHdr{Truncated: true}, Answer: some}, 0},
		"a very long life":       {dns.Msg{Answer: []dns.RR{aRecord("example.org.", 1<<30)}}, maxTTL},
		"a negative life":        {dns.Msg{Answer: []dns.RR{aRecord("example.org.", 1<<31)}}, 0},
	} {
		c.resp.Question = []dns.Question{{Name: "example.org.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		c.resp.Response = true
		raw := pack(t, &c.resp)
		if got := lifetime(raw, headerSize+len("example.org.")+1+4); got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newCache(func() time.Time { return now })
	put := func(i, records int) {
		ask := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.org.", i), dns.TypeA)
		q := parsed(t, ask)
		r := new(dns.Msg).SetReply(ask)
		for range records {
			r.Answer = append(r.Answer, aRecord(ask.Question[0].Name, 60))
		}
		c.put(string(q.cacheKey(nil, "")), pack(t, r), q.end)
	}
	for i := range maxCached + 50 {
		put(i, 1)
	}
	if c.len() != maxCached {
		t.Errorf("%d answers kept", c.len())
	}
	for i := range 1000 {
		put(100000+i, 200)
	}
	if c.bytes > maxCachedBytes || c.len() < 100 {
		t.Errorf("%d bytes in %d answers", c.bytes, c.len())
	}
	sum := 0
	for k, e := range c.entries {
		sum += len(k) + len(e.msg)
	}
	if sum != c.bytes {
		t.Errorf("%d bytes are counted as %d", sum, c.bytes)
	}
}

// serverWith is a server whose one sandbox knows web (both families) and v4.
func serverWith(t testing.TB, conf table.DNS) (*Server, *sandbox) {
	t.Helper()
	s, err := New(Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.reactor.close() })
	conf.Networks = []string{"n"}
	sb := &sandbox{udp: -1, tcp: -1, pidfd: -1}
	sb.set(table.Sandbox{ID: "a", DNS: &conf})
	s.names.set(table.Sandbox{ID: "a", Names: []table.Name{
		{Network: "n", Names: []string{"web", "web.net"}, Reverse: "web.net", Addrs: []netip.Addr{addr("10.0.0.2"), addr("fd00::2")}},
		{Network: "n", Names: []string{"v4"}, Addrs: []netip.Addr{addr("10.0.0.3")}},
	}})
	return s, sb
}

func TestAnswersFromTheTable(t *testing.T) {
	s, sb := serverWith(t, table.DNS{OwnRoot: true})
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"web.", dns.TypeA, "NOERROR [10.0.0.2]"},
		{"WeB.NET.", dns.TypeA, "NOERROR [10.0.0.2]"},
		{"web.", dns.TypeAAAA, "NOERROR [fd00::2]"},
		{"v4.", dns.TypeAAAA, "NOERROR []"}, // the name is there, an address of this family is not
		{"web.", dns.TypeMX, "NOERROR []"},
		{"web.", dns.TypeTXT, "NOERROR []"},
		{"2.0.0.10.in-addr.arpa.", dns.TypePTR, "NOERROR [web.net.]"},
		{"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "NOERROR [web.net.]"},
		{"3.0.0.10.in-addr.arpa.", dns.TypePTR, "SERVFAIL []"},
		{"single.", dns.TypeA, "NOERROR []"}, // ndots: the search list is the resolver's
		{"single.", dns.TypeTXT, "SERVFAIL []"},
		{"example.org.", dns.TypeA, "SERVFAIL []"},
		{"we\\.b.", dns.TypeA, "SERVFAIL []"},
	} {
		q := new(dns.Msg).SetQuestion(c.name, c.kind)
		out, forward := s.answer(sb, &query{}, pack(t, q), nil, false)
		if forward {
			t.Fatalf("%s: somebody else is to be asked, but there is nobody", c.name)
		}
		resp := unpacked(t, out)
		var data []string
		for _, rr := range resp.Answer {
			if rr.Header().Name != c.name || rr.Header().Ttl != 600 || rr.Header().Class != dns.ClassINET {
				t.Errorf("%s: %v", c.name, rr)
			}
			data = append(data, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
		if got := fmt.Sprint(dns.RcodeToString[resp.Rcode], " ", data); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, dns.TypeToString[c.kind], got, c.want)
		}
		if !resp.Response || !resp.RecursionAvailable || !resp.RecursionDesired || resp.Authoritative || resp.Id != q.Id || resp.Question[0] != q.Question[0] || resp.IsEdns0() != nil {
			t.Errorf("%s: %v", c.name, resp.MsgHdr)
		}
	}
}

func TestLongAnswersAreCut(t *testing.T) {
	s, sb := serverWith(t, table.DNS{})
	for i := range 200 {
		s.names.set(table.Sandbox{ID: fmt.Sprint(i), Names: []table.Name{{Network: "n", Names: []string{"many"}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})}}}})
	}
	seen := map[string]bool{}
	for _, c := range []struct {
		size, want int
		tcp        bool
	}{{0, 30, false}, {512, 29, false}, {1232, 74, false}, {100, 29, false}, {4096, 200, false}, {0, 200, true}} {
		q := new(dns.Msg).SetQuestion("many.", dns.TypeA)
		if c.size > 0 {
			q.SetEdns0(uint16(c.size), false)
		}
		out, _ := s.answer(sb, &query{}, pack(t, q), nil, c.tcp)
		resp := unpacked(t, out)
		if len(resp.Answer) != c.want || resp.Truncated != (c.want < 200) || !c.tcp && len(out) > max(512, c.size) {
			t.Errorf("size %d: %d records in %d bytes, cut %t", c.size, len(resp.Answer), len(out), resp.Truncated)
		}
		if (resp.IsEdns0() != nil) != (c.size > 0) {
			t.Errorf("size %d: EDNS %v", c.size, resp.IsEdns0())
		}
		seen[resp.Answer[0].(*dns.A).A.String()] = true
	}
	for range 50 {
		out, _ := s.answer(sb, &query{}, pack(t, new(dns.Msg).SetQuestion("many.", dns.TypeA)), nil, false)
		seen[unpacked(t, out).Answer[0].(*dns.A).A.String()] = true
	}
	if len(seen) < 10 {
		t.Errorf("%d of 200 addresses come first", len(seen))
	}
}

func TestStrangeQueriesAreAnsweredOrIgnored(t *testing.T) {
	s, sb := serverWith(t, table.DNS{})
	good := pack(t, new(dns.Msg).SetQuestion("example.org.", dns.TypeA))
	change := func(fn func([]byte) []byte) []byte { return fn(bytes.Clone(good)) }
	for what, c := range map[string]struct {
		raw   []byte
		rcode int // -1: no answer
	}{
		"nothing":         {nil, -1},
		"half a header":   {good[:7], -1},
		"an answer":       {change(func(b []byte) []byte { b[2] |= 0x80; return b }), -1},
		"an update":       {change(func(b []byte) []byte { b[2] |= dns.OpcodeUpdate << 3; return b }), dns.RcodeNotImplemented},
		"two questions":   {change(func(b []byte) []byte { b[5] = 2; return b }), dns.RcodeFormatError},
		"no question":     {change(func(b []byte) []byte { b[5] = 0; return b[:12] }), dns.RcodeFormatError},
		"half a name":     {good[:15], dns.RcodeFormatError},
		"no type":         {good[:len(good)-3], dns.RcodeFormatError},
		"a pointer":       {change(func(b []byte) []byte { b[12] = 0xc0; return b }), dns.RcodeFormatError},
		"a lost record":   {change(func(b []byte) []byte { b[11] = 1; return b }), dns.RcodeFormatError},
		"a later EDNS":    {change(func(b []byte) []byte { b[11] = 1; return append(b, 0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0) }), dns.RcodeBadVers},
		"another class":   {change(func(b []byte) []byte { b[len(b)-1] = dns.ClassCHAOS; return b }), dns.RcodeServerFailure},
		"nobody to ask":   {good, dns.RcodeServerFailure},
		"bytes after all": {append(bytes.Clone(good), 1, 2, 3), dns.RcodeServerFailure},
	} {
		out, forward := s.answer(sb, &query{}, c.raw, nil, false)
		if forward || (out == nil) != (c.rcode < 0) {
			t.Errorf("%s: % x, forward %v", what, out, forward)
			continue
		}
		if out == nil {
			continue
		}
		resp := unpacked(t, out)
		if resp.Rcode != c.rcode || !resp.Response || !bytes.Equal(out[:2], c.raw[:2]) {
			t.Errorf("%s: %v", what, resp)
		}
	}
}

func TestServersOfASandbox(t *testing.T) {
	up := []table.Upstream{
		{Addr: netip.MustParseAddrPort("127.0.0.1:53"), Host: true}, {Addr: netip.MustParseAddrPort("127.0.0.11:53")},
		{Addr: netip.MustParseAddrPort("10.0.0.9:53")}, {Addr: netip.MustParseAddrPort("10.0.0.8:53")}, {Addr: netip.MustParseAddrPort("10.0.0.7:53")},
	}
	all, key := serversOf(&table.DNS{Upstream: up, Forward: true})
	if len(all) != 3 || all[0] != up[0] || all[1] != up[2] {
		t.Errorf("asked are %v", all)
	}
	inside, other := serversOf(&table.DNS{Upstream: up})
	if len(inside) != 3 || inside[0] != up[2] || key == other {
		t.Errorf("from an internal network: %v", inside)
	}
}

// FuzzQuery holds the parser against the library: it never panics, its answers
// can be read, and what both understand they understand alike.
func FuzzQuery(f *testing.F) {
	q := new(dns.Msg).SetQuestion("Web.net.", dns.TypeA)
	f.Add(pack(f, q))
	q.SetEdns0(1232, true)
	f.Add(pack(f, q))
	f.Add(pack(f, new(dns.Msg).SetQuestion("2.0.0.10.in-addr.arpa.", dns.TypePTR)))
	f.Add(pack(f, new(dns.Msg).SetNotify("a.")))
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	s, sb := serverWith(f, table.DNS{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		for _, tcp := range []bool{false, true} {
			out, _ := s.answer(sb, &query{}, raw, nil, tcp)
			if !bytes.Equal(raw, before) {
				t.Fatal("the question was changed")
			}
			if out == nil {
				if len(raw) >= headerSize && raw[2]&bitResponse == 0 {
					t.Fatal("a question without an answer")
				}
				continue
			}
			resp := new(dns.Msg)
			if err := resp.Unpack(out); err != nil {
				t.Fatalf("% x is answered with % x: %v", raw, out, err)
			}
			if !resp.Response || !bytes.Equal(out[:2], raw[:2]) {
				t.Fatalf("answer %v", resp)
			}
		}
		own, lib := &query{}, new(dns.Msg)
		err, libErr := own.parse(raw), lib.Unpack(raw)
		if err == nil && own.opcode == 0 && libErr == nil {
			asked := lib.Question[0]
			if own.kind != asked.Qtype || own.class != asked.Qclass || own.plain && !strings.Contains(asked.Name, `\`) && string(own.name) != strings.ToLower(strings.TrimSuffix(asked.Name, ".")) {
				t.Fatalf("% x: %q %d %d, the library reads %v", raw, own.name, own.kind, own.class, asked)
			}
		}
	})
}

// FuzzResponse: what an upstream server says is passed on or refused, never
// changed into something that cannot be read.
func FuzzResponse(f *testing.F) {
	ask := new(dns.Msg).SetQuestion("Example.org.", dns.TypeA)
	r := new(dns.Msg).SetReply(ask)
	r.Answer = []dns.RR{aRecord("Example.org.", 300), aRecord("Example.org.", 60)}
	r.Compress = true
	f.Add(pack(f, r), uint32(7), 512)
	r.Answer = nil
	r.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "org.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 900}, Ns: "a.org.", Mbox: "b.org.", Minttl: 20}}
	f.Add(pack(f, r), uint32(0), 20)
	f.Fuzz(func(t *testing.T, resp []byte, age uint32, limit int) {
		q := parsed(t, new(dns.Msg).SetQuestion("exaMPle.org.", dns.TypeA))
		if len(resp) < q.end || !sameQuestion(resp, q.raw, q.end) {
			return
		}
		before := bytes.Clone(resp)
		if life := lifetime(resp, q.end); life < 0 || life > maxTTL {
			t.Fatalf("kept for %s", life)
		}
		limit = max(limit, plainSize)
		out := q.adapt(nil, resp, age, limit)
		if !bytes.Equal(before, resp) {
			t.Fatal("the response itself was changed")
		}
		if len(out) > limit || !bytes.Equal(out[headerSize:q.end], q.raw[headerSize:q.end]) {
			t.Fatalf("%d bytes: % x", len(out), out)
		}
		// With an age, a name that points into a TTL may become another one.
		if age == 0 && new(dns.Msg).Unpack(resp) == nil {
			unpacked(t, out)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	s, sb := serverWith(b, table.DNS{})
	raw := pack(b, new(dns.Msg).SetQuestion("web.net.", dns.TypeA))
	q, buf := &query{}, make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = s.answer(sb, q, raw, buf, false)
	}
}

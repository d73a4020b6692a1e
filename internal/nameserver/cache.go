package nameserver

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/orlop/orlop/internal/nameserver/table"
)

const (
	// maxCached answers, about 1 KB each.
	maxCached = 2000
	// maxTTL and maxNegative bound how long an answer, and the answer that
	// there is none, is believed.
	maxTTL      = time.Hour
	maxNegative = time.Minute
)

// cache keeps upstream answers for as long as they say.
type cache struct {
	now func() time.Time

	mu      sync.Mutex
	entries map[string]cached
}

type cached struct {
	msg          *dns.Msg
	stored, ends time.Time
}

func newCache(now func() time.Time) *cache {
	return &cache{now: now, entries: map[string]cached{}}
}

// cacheKey tells questions apart that may have different answers: sandboxes
// with different servers never see each other's.
func cacheKey(query *dns.Msg, upstream []table.Upstream) string {
	q := query.Question[0]
	do := false
	if opt := query.IsEdns0(); opt != nil {
		do = opt.Do()
	}
	return fmt.Sprintf("%s %d %d %t %t %v", strings.ToLower(q.Name), q.Qtype, q.Qclass, do, query.CheckingDisabled, upstream)
}

// get returns an answer made ready for this query, or nil.
func (c *cache) get(key string, query *dns.Msg) *dns.Msg {
	now := c.now()
	c.mu.Lock()
	e, ok := c.entries[key]
	if ok && !now.Before(e.ends) {
		delete(c.entries, key)
		ok = false
	}
	c.mu.Unlock()
	if !ok {
		return nil
	}
	age := uint32(now.Sub(e.stored) / time.Second)
	resp := e.msg.Copy()
	resp.Id, resp.Question = query.Id, query.Question
	for _, section := range [][]dns.RR{resp.Answer, resp.Ns, resp.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(age, h.Ttl)
			}
		}
	}
	return resp
}

// put keeps an answer that may be kept.
func (c *cache) put(key string, resp *dns.Msg) {
	life := lifetime(resp)
	if life <= 0 {
		return
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) >= maxCached {
		for k, e := range c.entries {
			if !now.Before(e.ends) {
				delete(c.entries, k)
			}
		}
		for k := range c.entries { // any: the map's order is as good as random
			if len(c.entries) < maxCached {
				break
			}
			delete(c.entries, k)
		}
	}
	c.entries[key] = cached{msg: resp.Copy(), stored: now, ends: now.Add(life)}
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// lifetime is the shortest TTL of an answer; for a negative one that of the
// zone's SOA record (RFC 2308); 0 for what must not be kept.
func lifetime(resp *dns.Msg) time.Duration {
	if resp.Truncated {
		return 0
	}
	seconds, found, limit := uint32(0), false, maxTTL
	consider := func(t uint32) {
		if !found || t < seconds {
			seconds, found = t, true
		}
	}
	switch {
	case resp.Rcode == dns.RcodeSuccess && len(resp.Answer) > 0:
		for _, rr := range resp.Answer {
			consider(rr.Header().Ttl)
		}
	case resp.Rcode == dns.RcodeSuccess || resp.Rcode == dns.RcodeNameError:
		limit = maxNegative
		for _, rr := range resp.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				consider(min(soa.Hdr.Ttl, soa.Minttl))
			}
		}
	}
	if !found {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, limit)
}

package nameserver

import (
	"encoding/binary"
	"sync"
	"time"
)

const (
	// maxCached answers and maxCachedBytes of them are kept.
	maxCached      = 4096
	maxCachedBytes = 2 << 20
	// maxTTL and maxNegative bound how long an answer, and the answer that
	// there is none, is believed.
	maxTTL      = time.Hour
	maxNegative = time.Minute
	// tried entries when one has to make room: the one that ends first goes.
	tried = 8
)

// cache keeps upstream answers for as long as they say.
type cache struct {
	now func() time.Time

	mu      sync.Mutex
	entries map[string]cached
	bytes   int
}

type cached struct {
	msg          []byte
	stored, ends time.Time
}

func newCache(now func() time.Time) *cache {
	return &cache{now: now, entries: map[string]cached{}}
}

// cacheKey tells questions apart that may have different answers: sandboxes
// with different servers never see each other's.
func (q *query) cacheKey(buf []byte, servers string) []byte {
	flags := q.raw[3] & bitNoCheck
	if q.edns {
		flags |= 1
	}
	if q.secure {
		flags |= 2
	}
	buf = append(buf[:0], flags)
	buf = append(buf, q.raw[q.end-4:q.end]...)
	// Labels, not the name: a dot within a label is no dot between two.
	for _, c := range q.raw[headerSize : q.end-4] {
		buf = append(buf, lower(c))
	}
	return append(buf, servers...)
}

// get returns an answer and its age in seconds.
func (c *cache) get(key []byte) (msg []byte, age uint32, ok bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[string(key)]
	if !ok {
		return nil, 0, false
	}
	if !now.Before(e.ends) {
		c.drop(string(key), e)
		return nil, 0, false
	}
	return e.msg, uint32(now.Sub(e.stored) / time.Second), true
}

// drop is called with c.mu held.
func (c *cache) drop(key string, e cached) {
	delete(c.entries, key)
	c.bytes -= len(key) + len(e.msg)
}

// put keeps an answer that may be kept; end is where its question ends. The
// bytes belong to the cache from now on and never change.
func (c *cache) put(key string, msg []byte, end int) {
	life := lifetime(msg, end)
	size := len(key) + len(msg)
	if life <= 0 || size > maxCachedBytes/16 {
		return
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.entries[key]; ok {
		c.drop(key, old)
	}
	for len(c.entries) >= maxCached || c.bytes+size > maxCachedBytes {
		// A map is walked from a random place.
		n, victim, ends := 0, "", time.Time{}
		for k, e := range c.entries {
			if n == 0 || e.ends.Before(ends) {
				victim, ends = k, e.ends
			}
			if n++; n == tried {
				break
			}
		}
		c.drop(victim, c.entries[victim])
	}
	c.entries[key] = cached{msg: msg, stored: now, ends: now.Add(life)}
	c.bytes += size
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// lifetime is the shortest TTL of an answer; for a negative one that of the
// zone's SOA record (RFC 2308); 0 for what must not be kept.
func lifetime(msg []byte, end int) time.Duration {
	rcode := msg[3] & maskRcode
	if msg[2]&bitTruncated != 0 || rcode != rcodeSuccess && rcode != rcodeNameError {
		return 0
	}
	seconds, found, positive := uint32(0), false, false
	consider := func(t uint32) {
		if t > 1<<31-1 { // RFC 2181: as if it were 0
			t = 0
		}
		if !found || t < seconds {
			seconds, found = t, true
		}
	}
	err := records(msg, end, func(r record) bool {
		t := binary.BigEndian.Uint32(msg[r.ttl:])
		switch {
		case r.section == answers && rcode == rcodeSuccess:
			positive = true
			consider(t)
		case r.section == authority && r.kind == typeSOA && !positive && r.end-r.data >= 4:
			consider(min(t, binary.BigEndian.Uint32(msg[r.end-4:])))
		}
		return true
	})
	if err != nil || !found {
		return 0
	}
	limit := maxTTL
	if !positive {
		limit = maxNegative
	}
	return min(time.Duration(seconds)*time.Second, limit)
}

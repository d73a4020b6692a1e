package initproc

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// Config is what a stage has to do. It travels in a form of its own, because the
// first use of encoding/json costs a new process 0.9 ms; what few containers
// have (Rare) is JSON nevertheless.
type Config struct {
	// Exec: the namespaces are a running container's; only Process matters.
	Exec bool
	ID   string
	// Plan is what is done in the root.
	Plan rootfs.Plan
	// RootPath is the root's folder on the host, unless Overlay or Root is set.
	RootPath string
	Overlay  *rootfs.Overlay
	// Root is the descriptor of a detached mount made by the parent, or -1.
	Root int
	// Prepared are descriptors of detached mounts, by Step.Mount.
	Prepared map[int]int
	// Propagation is rootfsPropagation.
	Propagation  string
	ReadonlyRoot bool
	MountLabel   string
	Hostname     string
	Domainname   string
	Sysctl       map[string]string
	// Process to become; of Rare's kinds only what Rare holds.
	Process *specs.Process
	// Seccomp is the compiled filter, or nil.
	Seccomp []byte
	// Agent is what the seccomp agent gets beside the listener of a filter that
	// notifies; its connection is the last descriptor beside the configuration.
	Agent []byte
	// Extra is the number of descriptors from 3 on that the application gets.
	Extra int
	// Gate is the descriptor of the reading end of the start fifo, or -1.
	Gate int
	// Cgroups maps controllers to folders, for mounts of type cgroup.
	Cgroups map[string]string
	// RuntimeHooks: stop for hooks that the parent runs.
	RuntimeHooks bool
	NewNetNS     bool
	CgroupNS     bool
	UserNS       bool
	// DenySetgroups: the user namespace forbids setgroups(2).
	DenySetgroups bool
	NoPivot       bool
	NoNewKeyring  bool
	Rare          Rare
}

// Rare is the part of a configuration that is usually empty.
type Rare struct {
	CreateContainer []specs.Hook `json:"createContainer,omitempty"`
	StartContainer  []specs.Hook `json:"startContainer,omitempty"`
	// State is what hooks get.
	State           *specs.State             `json:"state,omitempty"`
	Personality     *specs.LinuxPersonality  `json:"personality,omitempty"`
	MemoryPolicy    *specs.LinuxMemoryPolicy `json:"memoryPolicy,omitempty"`
	Scheduler       *specs.Scheduler         `json:"scheduler,omitempty"`
	IOPriority      *specs.LinuxIOPriority   `json:"ioPriority,omitempty"`
	ExecCPUAffinity *specs.CPUAffinity       `json:"execCPUAffinity,omitempty"`
}

func (r *Rare) empty() bool {
	return len(r.CreateContainer)+len(r.StartContainer) == 0 && r.State == nil && r.Personality == nil && r.MemoryPolicy == nil &&
		r.Scheduler == nil && r.IOPriority == nil && r.ExecCPUAffinity == nil
}

// Encode is the configuration's form on the wire: the fields in the order of
// codec.config, numbers as varints, strings and lists with their length before.
func (c *Config) Encode() ([]byte, error) {
	const usual = 8 << 10
	w := &codec{out: make([]byte, 0, usual+len(c.Seccomp)), writing: true}
	w.config(c)
	if w.err != nil {
		return nil, fmt.Errorf("encode configuration: %w", w.err)
	}
	return w.out, nil
}

// DecodeConfig reads what Encode wrote.
func DecodeConfig(b []byte) (*Config, error) {
	c := &Config{}
	r := &codec{in: b}
	r.config(c)
	if r.err == nil && len(r.in) > 0 {
		r.err = fmt.Errorf("%d bytes too many", len(r.in))
	}
	if r.err != nil {
		return nil, fmt.Errorf("decode configuration: %w", r.err)
	}
	return c, nil
}

// codec writes and reads with the same code, so that the two cannot differ.
type codec struct {
	writing bool
	out     []byte
	in      []byte
	err     error
}

var errShort = errors.New("it is too short")

func (c *codec) config(v *Config) {
	for _, b := range []*bool{
		&v.Exec, &v.ReadonlyRoot, &v.RuntimeHooks, &v.NewNetNS, &v.CgroupNS, &v.UserNS, &v.DenySetgroups, &v.NoPivot, &v.NoNewKeyring,
	} {
		c.flag(b)
	}
	for _, s := range []*string{&v.ID, &v.RootPath, &v.Propagation, &v.MountLabel, &v.Hostname, &v.Domainname} {
		c.str(s)
	}
	for _, n := range []*int{&v.Root, &v.Extra, &v.Gate} {
		number(c, n)
	}
	c.bytes(&v.Seccomp)
	c.bytes(&v.Agent)
	c.strMap(&v.Sysctl)
	c.strMap(&v.Cgroups)
	c.intMap(&v.Prepared)
	list(c, (*[]rootfs.Step)(&v.Plan), c.step)
	optional(c, &v.Overlay, func(o *rootfs.Overlay) {
		c.strs(&o.Lower)
		c.str(&o.Upper)
		c.str(&o.Work)
		c.flag(&o.Volatile)
	})
	optional(c, &v.Process, c.process)
	c.rare(&v.Rare)
}

func (c *codec) step(s *rootfs.Step) {
	c.str((*string)(&s.Kind))
	c.str(&s.Source)
	c.str(&s.Dest)
	c.str(&s.Type)
	number(c, &s.Mount)
	c.options(&s.Options)
	optional(c, &s.Node, func(d *specs.LinuxDevice) {
		c.str(&d.Path)
		c.str(&d.Type)
		number(c, &d.Major)
		number(c, &d.Minor)
		optional(c, &d.FileMode, func(m *os.FileMode) { number(c, m) })
		optional(c, &d.UID, func(n *uint32) { number(c, n) })
		optional(c, &d.GID, func(n *uint32) { number(c, n) })
	})
}

func (c *codec) options(o *mount.Options) {
	for _, n := range []*uint64{&o.Set, &o.Clear, &o.TreeSet, &o.TreeClear} {
		number(c, n)
	}
	c.strs(&o.Super)
	c.strs(&o.Data)
	list(c, &o.Propagation, func(n *uint64) { number(c, n) })
	for _, b := range []*bool{&o.Bind, &o.Recursive, &o.Remount, &o.CopyUp, &o.IDMap, &o.TreeIDMap} {
		c.flag(b)
	}
}

func (c *codec) process(p *specs.Process) {
	c.flag(&p.Terminal)
	c.flag(&p.NoNewPrivileges)
	c.strs(&p.Args)
	c.strs(&p.Env)
	for _, s := range []*string{&p.Cwd, &p.ApparmorProfile, &p.SelinuxLabel} {
		c.str(s)
	}
	number(c, &p.User.UID)
	number(c, &p.User.GID)
	list(c, &p.User.AdditionalGids, func(n *uint32) { number(c, n) })
	optional(c, &p.User.Umask, func(n *uint32) { number(c, n) })
	optional(c, &p.ConsoleSize, func(b *specs.Box) {
		number(c, &b.Height)
		number(c, &b.Width)
	})
	list(c, &p.Rlimits, func(l *specs.POSIXRlimit) {
		c.str(&l.Type)
		number(c, &l.Hard)
		number(c, &l.Soft)
	})
	optional(c, &p.Capabilities, func(s *specs.LinuxCapabilities) {
		for _, set := range []*[]string{&s.Bounding, &s.Effective, &s.Inheritable, &s.Permitted, &s.Ambient} {
			c.strs(set)
		}
	})
}

func (c *codec) rare(r *Rare) {
	var body []byte
	if c.writing && !r.empty() {
		var err error
		if body, err = json.Marshal(r); err != nil && c.err == nil {
			c.err = err
		}
	}
	c.bytes(&body)
	if !c.writing && len(body) > 0 && c.err == nil {
		c.err = json.Unmarshal(body, r)
	}
}

// uvarint is the one primitive.
func (c *codec) uvarint(v *uint64) {
	if c.writing {
		c.out = binary.AppendUvarint(c.out, *v)
		return
	}
	n, size := binary.Uvarint(c.in)
	if size <= 0 {
		c.short()
		return
	}
	*v, c.in = n, c.in[size:]
}

func (c *codec) short() {
	if c.err == nil {
		c.err = errShort
	}
	c.in = nil
}

// number is any integer; negative ones travel as their two's complement.
func number[T ~int | ~int64 | ~uint | ~uint32 | ~uint64](c *codec, v *T) {
	n := uint64(int64(*v))
	c.uvarint(&n)
	if !c.writing {
		*v = T(n)
	}
}

func (c *codec) flag(v *bool) {
	var n uint64
	if *v {
		n = 1
	}
	c.uvarint(&n)
	if !c.writing {
		*v = n != 0
	}
}

// length is the number of items that follow, each at least one byte long.
func (c *codec) length(n int) int {
	l := uint64(n)
	c.uvarint(&l)
	if !c.writing && l > uint64(len(c.in)) {
		c.short()
		return 0
	}
	return int(l)
}

func (c *codec) bytes(v *[]byte) {
	n := c.length(len(*v))
	if c.writing {
		c.out = append(c.out, *v...)
		return
	}
	if n > 0 {
		*v, c.in = c.in[:n:n], c.in[n:]
	}
}

func (c *codec) str(v *string) {
	n := c.length(len(*v))
	if c.writing {
		c.out = append(c.out, *v...)
		return
	}
	*v, c.in = string(c.in[:n]), c.in[n:]
}

func (c *codec) strs(v *[]string) { list(c, v, c.str) }

func list[T any](c *codec, v *[]T, item func(*T)) {
	n := c.length(len(*v))
	if !c.writing && n > 0 {
		*v = make([]T, n)
	}
	for i := range *v {
		item(&(*v)[i])
	}
}

func optional[T any](c *codec, v **T, item func(*T)) {
	present := *v != nil
	c.flag(&present)
	if !present {
		return
	}
	if !c.writing {
		*v = new(T)
	}
	item(*v)
}

func (c *codec) strMap(v *map[string]string) {
	n := c.length(len(*v))
	if c.writing {
		for key, value := range *v {
			c.str(&key)
			c.str(&value)
		}
		return
	}
	for range n {
		var key, value string
		c.str(&key)
		c.str(&value)
		if *v == nil {
			*v = make(map[string]string, n)
		}
		(*v)[key] = value
	}
}

func (c *codec) intMap(v *map[int]int) {
	n := c.length(len(*v))
	if c.writing {
		for key, value := range *v {
			number(c, &key)
			number(c, &value)
		}
		return
	}
	for range n {
		var key, value int
		number(c, &key)
		number(c, &value)
		if *v == nil {
			*v = make(map[int]int, n)
		}
		(*v)[key] = value
	}
}

package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// maxElements of one message: an attribute holds at most 64 KiB.
	maxElements = 500
	// sendBuffer bounds one transaction, which goes out as one message to the
	// kernel: 100,000 elements are 7 MB.
	sendBuffer = 32 << 20
	recvBuffer = 4 << 20
	// answerTimeout bounds the wait for acknowledgements: the kernel sends
	// fewer than it should when it runs out of memory.
	answerTimeout = 10 * time.Second
)

// Conn is a connection to nftables in one network namespace. It is safe for
// concurrent use; transactions wait for each other.
type Conn struct {
	mu   sync.Mutex
	conn *nftables.Conn
	sock *netlink.Conn

	portsMu sync.Mutex
	// portIDs are the addresses of this connection's sockets, the newest last.
	portIDs []uint32
}

// Open connects in the network namespace of the calling thread.
func Open() (*Conn, error) {
	c := &Conn{}
	if err := c.dial(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Conn) dial() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(s *netlink.Conn) error {
		c.sock = s
		return errors.Join(force(s, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer), force(s, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, recvBuffer))
	}))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	c.conn = conn
	return c.remember()
}

// keptPorts bounds the memory of sockets that were given up: notifications of
// what they did may still be under way.
const keptPorts = 8

// remember notes the socket's own address, which the kernel puts into the
// notifications of what it does.
func (c *Conn) remember() error {
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return err
	}
	var addr unix.Sockaddr
	if ctl := raw.Control(func(fd uintptr) { addr, err = unix.Getsockname(int(fd)) }); ctl != nil || err != nil {
		return errors.Join(ctl, err)
	}
	c.portsMu.Lock()
	defer c.portsMu.Unlock()
	if a, ok := addr.(*unix.SockaddrNetlink); ok {
		c.portIDs = append(c.portIDs, a.Pid)
	}
	if len(c.portIDs) > keptPorts {
		c.portIDs = slices.Clone(c.portIDs[len(c.portIDs)-keptPorts:])
	}
	return nil
}

func (c *Conn) ports() []uint32 {
	c.portsMu.Lock()
	defer c.portsMu.Unlock()
	return c.portIDs
}

// force sets a buffer size beyond the system's limit where we may.
func force(s *netlink.Conn, privileged, ordinary, size int) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		if set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, privileged, size); set != nil {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, ordinary, size)
		}
	})
	return errors.Join(err, set)
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn.CloseLasting()
}

// commit sends what compose queues as one transaction. After an error answers
// may still be under way, so the next transaction gets a new socket.
func (c *Conn) commit(compose func(*nftables.Conn) error) error {
	if err := compose(c.conn); err != nil {
		return errors.Join(err, c.redial())
	}
	if err := c.sock.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return errors.Join(err, c.redial())
	}
	if err := c.conn.Flush(); err != nil {
		return errors.Join(err, c.redial())
	}
	return nil
}

func (c *Conn) redial() error {
	_ = c.conn.CloseLasting() // given up; what is left is to dial
	return c.dial()
}

func inet(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
}

// Observe reads a table.
func (c *Conn) Observe(name string) (Observed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, err := c.observe(name)
	if err != nil {
		return Observed{}, errors.Join(fmt.Errorf("read nft table %s: %w", name, err), c.redial())
	}
	return o, nil
}

func (c *Conn) observe(name string) (Observed, error) {
	if err := c.sock.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return Observed{}, err
	}
	tables, err := c.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return Observed{}, err
	}
	o := Observed{sets: map[string][]Element{}}
	for _, t := range tables {
		o.Exists = o.Exists || t.Name == name
	}
	if !o.Exists {
		return o, nil
	}
	t := inet(name)
	sets, err := c.conn.GetSets(t)
	if err != nil {
		return Observed{}, err
	}
	for _, s := range sets {
		value := uint32(0)
		if s.IsMap {
			value = s.DataType.Bytes
		}
		o.layout = append(o.layout, setLine(s.Name, s.KeyType.Bytes, value))
		elements, err := c.conn.GetSetElements(s)
		if err != nil {
			return Observed{}, err
		}
		// A set that the kernel grows while it is read shows elements twice.
		seen := make(map[string]bool, len(elements))
		for _, e := range elements {
			key := string(e.Key) + "\x00" + string(e.KeyEnd)
			if seen[key] {
				continue
			}
			seen[key] = true
			o.sets[s.Name] = append(o.sets[s.Name], Element{Key: e.Key, KeyEnd: e.KeyEnd, Value: e.Val})
		}
	}
	chains, err := c.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return Observed{}, err
	}
	for _, ch := range chains {
		if ch.Table.Name != name {
			continue
		}
		var hook *Hook
		if ch.Hooknum != nil && ch.Priority != nil {
			hook = &Hook{Type: ch.Type, Hook: ch.Hooknum, Priority: ch.Priority}
		}
		o.layout = append(o.layout, "chain "+ch.Name+hook.String())
		rules, err := c.conn.GetRules(t, ch)
		if err != nil {
			return Observed{}, err
		}
		for _, r := range rules {
			mark, ok := userdata.GetString(r.UserData, userdata.TypeComment)
			if !ok {
				mark = "without comment"
			}
			o.layout = append(o.layout, "rule "+ch.Name+" "+strings.TrimRight(mark, "\x00"))
		}
	}
	return o, nil
}

// Apply carries out a plan in one transaction.
func (c *Conn) Apply(p Plan) error {
	if p.Empty() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.commit(func(n *nftables.Conn) error {
		if p.replace {
			return replace(n, p.want)
		}
		t := inet(p.want.Name)
		for _, s := range p.want.Sets {
			if err := elements(n.SetDeleteElements, set(t, s, 0), p.remove[s.Name]); err != nil {
				return err
			}
		}
		for _, s := range p.want.Sets {
			if err := elements(n.SetAddElements, set(t, s, 0), p.add[s.Name]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return c.verify(p.want.Name, fmt.Errorf("apply nft table %s: %w", p.want.Name, err), func(o Observed) bool {
			return NewPlan(p.want, o).Empty()
		})
	}
	return nil
}

// verify decides about an error that may only mean that an answer got lost:
// what counts is what the kernel has now.
func (c *Conn) verify(table string, err error, done func(Observed) bool) error {
	o, readErr := c.observe(table)
	if readErr != nil {
		return errors.Join(err, readErr, c.redial())
	}
	if done(o) {
		return nil
	}
	return err
}

// replace queues the removal of the table, if there is one, and its new form.
func replace(n *nftables.Conn, want Table) error {
	t := inet(want.Name)
	n.AddTable(t) // so that there is one to delete
	n.DelTable(t)
	n.AddTable(t)
	for i, s := range want.Sets {
		ns := set(t, s, uint32(i+1))
		if err := n.AddSet(ns, nil); err != nil {
			return err
		}
		if err := elements(n.SetAddElements, ns, s.Elements); err != nil {
			return err
		}
	}
	accept := nftables.ChainPolicyAccept
	chains := make([]*nftables.Chain, len(want.Chains))
	for i, ch := range want.Chains {
		chains[i] = &nftables.Chain{Name: ch.Name, Table: t}
		if ch.Hook != nil {
			chains[i].Type, chains[i].Hooknum, chains[i].Priority = ch.Hook.Type, ch.Hook.Hook, ch.Hook.Priority
			chains[i].Policy = &accept
		}
		n.AddChain(chains[i])
	}
	for i, ch := range want.Chains {
		for _, r := range ch.Rules {
			n.AddRule(&nftables.Rule{
				Table: t, Chain: chains[i], Exprs: r.Exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, r.mark()),
			})
		}
	}
	return nil
}

func set(t *nftables.Table, s Set, id uint32) *nftables.Set {
	one := func(types []nftables.SetDatatype) nftables.SetDatatype {
		if len(types) == 1 {
			return types[0]
		}
		return nftables.MustConcatSetType(types...)
	}
	ns := &nftables.Set{Table: t, ID: id, Name: s.Name, KeyType: one(s.Key), Interval: s.Interval, Concatenation: s.Interval}
	if len(s.Key) == 1 && s.Key[0].Name == TypeIfName.Name {
		// Only nft(8) reads this: names are shown as names.
		ns.KeyByteOrder = binaryutil.NativeEndian
	}
	if len(s.Value) > 0 {
		ns.IsMap, ns.DataType = true, one(s.Value)
	}
	return ns
}

// elements queues elements in messages that are not too long.
func elements(queue func(*nftables.Set, []nftables.SetElement) error, s *nftables.Set, list []Element) error {
	for len(list) > 0 {
		part := list[:min(len(list), maxElements)]
		list = list[len(part):]
		out := make([]nftables.SetElement, len(part))
		for i, e := range part {
			out[i] = nftables.SetElement{Key: e.Key, KeyEnd: e.KeyEnd, Val: e.Value}
		}
		if err := queue(s, out); err != nil {
			return err
		}
	}
	return nil
}

// Change is elements to be removed from, and added to, sets of one table.
type Change struct {
	// Remove and Add hold sets with only the elements in question; removals
	// come first, so an element can be given another value.
	Remove, Add []Set
}

// Update changes elements in one transaction: all or nothing. Adding what is
// there already and removing what is not is no error, so it may be repeated.
func (c *Conn) Update(table string, change Change) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.update(table, change)
	if err == nil {
		return nil
	}
	// Something is not as expected, or an answer was lost: see what is left to
	// do, and do that.
	o, readErr := c.observe(table)
	if readErr != nil {
		return errors.Join(fmt.Errorf("change nft table %s: %w", table, err), readErr, c.redial())
	}
	rest := Change{}
	for _, s := range change.Remove {
		present := intersect(s.Elements, o.sets[s.Name])
		if len(present) > 0 {
			s.Elements = present
			rest.Remove = append(rest.Remove, s)
		}
	}
	for _, s := range change.Add {
		missing, stale := diff(s.Elements, o.sets[s.Name])
		if len(missing) == 0 {
			continue
		}
		if old := intersect(missing, stale); len(old) > 0 {
			r := s
			r.Elements = old
			rest.Remove = append(rest.Remove, r)
		}
		s.Elements = missing
		rest.Add = append(rest.Add, s)
	}
	if len(rest.Add) == 0 && len(rest.Remove) == 0 {
		return nil
	}
	if err := c.update(table, rest); err != nil {
		return fmt.Errorf("change nft table %s: %w", table, err)
	}
	return nil
}

// intersect returns the elements of b whose keys are in a.
func intersect(a, b []Element) []Element {
	keys := make(map[string]bool, len(a))
	for _, e := range a {
		keys[e.id()] = true
	}
	var out []Element
	for _, e := range b {
		if keys[e.id()] {
			out = append(out, e)
		}
	}
	return out
}

func (c *Conn) update(table string, change Change) error {
	return c.commit(func(n *nftables.Conn) error {
		t := inet(table)
		for _, s := range change.Remove {
			if err := elements(n.SetDeleteElements, set(t, s, 0), s.Elements); err != nil {
				return err
			}
		}
		for _, s := range change.Add {
			if err := elements(n.SetAddElements, set(t, s, 0), s.Elements); err != nil {
				return err
			}
		}
		return nil
	})
}

// Remove deletes a table; one that is not there is no error.
func (c *Conn) Remove(table string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.commit(func(n *nftables.Conn) error {
		n.AddTable(inet(table))
		n.DelTable(inet(table))
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove nft table %s: %w", table, err)
	}
	return nil
}

// Transact runs a transaction that is composed by hand, for tables that are
// not described by Table (the redirects inside sandboxes).
func (c *Conn) Transact(compose func(*nftables.Conn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.commit(compose); err != nil {
		return fmt.Errorf("change nftables: %w", err)
	}
	return nil
}

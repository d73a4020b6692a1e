package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/linux/rtnl"
)

// A pool of sandboxes that are ready but for their address: the namespace, the
// veth, its place on the bridge and the carrier are what takes time, and they
// are the same for every container of a network.
//
// A spare is used once and never given back. It belongs to one network, is held
// by descriptors only (so it vanishes with the daemon, however that ends), has
// no address, and the settings of every new namespace. What needs anything else
// is made the ordinary way: IPv6, whose addresses follow from the MAC, settings
// of an interface, another name than eth0.
const (
	// perNetwork and inAll bound the spares.
	perNetwork, inAll = 4, 16
	// quiet is how long nobody may have wanted a sandbox before spares are made:
	// they are made when there is nothing else to do.
	quiet = 25 * time.Millisecond
	// keep is how long spares of a network wait that nobody uses.
	keep = 30 * time.Second
	// innerLink is the name that a spare's interface has.
	innerLink = "eth0"
)

// kind tells spares apart that are not the same thing.
type kind struct {
	bridge             string
	mtu                int
	isolated, filtered bool
}

// spare is a sandbox without an address.
type spare struct {
	ns *netns.NS
	// inside talks to the namespace; its socket was opened there.
	inside *rtnl.Conn
	// hostLink is the veth's end on the bridge, dev the bridge's index; index is
	// that of the end in the namespace.
	hostLink   string
	dev, index int
}

func (sp *spare) close() error {
	sp.inside.Close()
	return sp.ns.Close()
}

// pool has its own lock, a leaf; it is never held over the kernel.
type pool struct {
	now func() time.Time

	mu sync.Mutex
	// wanted is when a sandbox of a kind was last asked for.
	wanted map[kind]time.Time
	last   time.Time
	spares map[kind][]*spare
	count  int
	closed bool
	// wake tells Run that something was wanted.
	wake chan struct{}
}

func newPool(now func() time.Time) *pool {
	return &pool{now: now, wanted: map[kind]time.Time{}, spares: map[kind][]*spare{}, wake: make(chan struct{}, 1)}
}

// suits says which kind of spare a plan could begin with.
func suits(plan network.SandboxPlan, filtered bool) (kind, bool) {
	if len(plan.Interfaces) != 1 {
		return kind{}, false
	}
	itf := plan.Interfaces[0]
	if itf.Kind != "" && itf.Kind != network.Veth || itf.InnerLink != innerLink || itf.MAC == "" || len(itf.Sysctls) > 0 || len(itf.Addrs) == 0 {
		return kind{}, false
	}
	for _, a := range itf.Addrs {
		if a.Addr().Is6() {
			return kind{}, false
		}
	}
	if itf.Gateway6.IsValid() || itf.OnLink6 {
		return kind{}, false
	}
	return kind{bridge: itf.Bridge, mtu: itf.MTU, isolated: itf.Isolated, filtered: filtered}, true
}

// take gives a spare away and remembers that one was wanted; nil is none.
func (p *pool) take(k kind) *spare {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = p.now()
	p.wanted[k] = p.last
	select {
	case p.wake <- struct{}{}:
	default:
	}
	list := p.spares[k]
	if len(list) == 0 {
		return nil
	}
	sp := list[0]
	p.spares[k] = list[1:]
	p.count--
	return sp
}

// next decides what Run does: it makes a spare of kind k, or waits (0: until
// somebody wants a sandbox), and gives up those that nobody has use for.
func (p *pool) next() (k kind, wanted bool, wait time.Duration, old []*spare) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for k, at := range p.wanted {
		if now.Sub(at) >= keep {
			old = append(old, p.spares[k]...)
			p.count -= len(p.spares[k])
			delete(p.spares, k)
			delete(p.wanted, k)
		}
	}
	if len(p.wanted) == 0 {
		return kind{}, false, 0, old
	}
	if rest := quiet - now.Sub(p.last); rest > 0 {
		return kind{}, false, rest, old
	}
	// The network that was used last, then the others.
	var best time.Time
	for one, at := range p.wanted {
		if len(p.spares[one]) < perNetwork && p.count < inAll && (!wanted || at.After(best)) {
			k, wanted, best = one, true, at
		}
	}
	return k, wanted, keep / 4, old
}

// put takes a new spare in; false when it is not needed any more.
func (p *pool) put(k kind, sp *spare) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.wanted[k]; !ok || p.closed || p.count >= inAll {
		return false
	}
	p.spares[k] = append(p.spares[k], sp)
	p.count++
	return true
}

// drain gives up spares of a bridge, all of them for "". closed ends the pool.
func (p *pool) drain(device string, closed bool) []*spare {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = p.closed || closed
	var out []*spare
	for k, list := range p.spares {
		if device == "" || k.bridge == device {
			out = append(out, list...)
			p.count -= len(list)
			delete(p.spares, k)
		}
	}
	for k := range p.wanted {
		if device == "" || k.bridge == device {
			delete(p.wanted, k)
		}
	}
	return out
}

// Run keeps sandboxes ready for networks that are in use, until ctx is done.
// Without it every sandbox is made when it is wanted.
func (m *Maker) Run(ctx context.Context) error {
	defer func() { _ = discard(m.spares.drain("", false)) }() // nothing is left that could fail for the caller
	for {
		k, wanted, wait, old := m.spares.next()
		if err := discard(old); err != nil {
			return err
		}
		if wanted {
			sp, err := m.ready(ctx, k)
			if err == nil && !m.spares.put(k, sp) {
				err = sp.close()
			}
			if err != nil {
				// The bridge is gone, or the kernel is out of something: nobody
				// waits for a spare, and the next container is told why.
				if err := discard(m.spares.drain(k.bridge, false)); err != nil {
					return err
				}
			}
			continue
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.spares.wake:
		case <-timer:
		}
	}
}

// Forget gives up what is ready for a bridge that is about to be removed.
func (m *Maker) Forget(_ context.Context, device string) error {
	return discard(m.spares.drain(device, false))
}

func discard(list []*spare) error {
	var errs []error
	for _, sp := range list {
		errs = append(errs, sp.close())
	}
	return errors.Join(errs...)
}

// ready makes a spare.
func (m *Maker) ready(ctx context.Context, k kind) (*spare, error) {
	var id [4]byte
	rand.Read(id[:])
	sp := &spare{hostLink: "veth" + hex.EncodeToString(id[:])[:7]}
	itf := network.Interface{
		Kind: network.Veth, HostLink: sp.hostLink, InnerLink: innerLink, Bridge: k.bridge, MTU: k.mtu, Isolated: k.isolated,
	}
	ns, err := netns.New(func(ns *netns.NS) error {
		return m.with(ctx, func(host *rtnl.Conn) (err error) {
			inside, err := rtnl.Open()
			if err != nil {
				return err
			}
			defer func() {
				if err != nil {
					inside.Close()
				}
			}()
			if err := inside.SetUp(loopback); err != nil {
				return err
			}
			before, err := swapSysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
			if err != nil {
				return err
			}
			dev, err := m.lay(host, inside, ns, itf, nil, k.filtered)
			if before != "" {
				_, back := swapSysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", before)
				err = errors.Join(err, back)
			}
			if err != nil {
				return err
			}
			link, err := inside.Link(innerLink)
			if err != nil {
				return err
			}
			if err := inside.SetUp(link.Index); err != nil {
				return err
			}
			sp.inside, sp.index, sp.dev = inside, link.Index, dev.Index
			return host.WaitUp(sp.hostLink)
		})
	})
	if err != nil {
		if sp.inside != nil {
			sp.inside.Close()
		}
		return nil, fmt.Errorf("make a sandbox ready: %w", err)
	}
	sp.ns = ns
	return sp, nil
}

// fill gives a spare its address. On failure nothing is left of it.
func (m *Maker) fill(ctx context.Context, sp *spare, itf network.Interface) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, sp.close())
		}
	}()
	mac, err := net.ParseMAC(itf.MAC)
	if err != nil {
		return err
	}
	return m.with(ctx, func(host *rtnl.Conn) error {
		// Somebody may have removed the bridge, and made another one, since.
		port, err := host.Link(sp.hostLink)
		if err != nil {
			return err
		}
		if port.Master != sp.dev || !port.Passing() {
			return fmt.Errorf("%s is not on its bridge any more", sp.hostLink)
		}
		if err := sp.inside.SetMAC(sp.index, mac); err != nil {
			return err
		}
		if err := configure(sp.inside, sp.index, itf); err != nil {
			return err
		}
		if err := m.neighbors(host, sp.dev, itf, mac); err != nil {
			return err
		}
		sp.inside.Close()
		return nil
	})
}

// fromSpare makes a sandbox of a spare, if there is one that suits; nil is none.
func (m *Maker) fromSpare(ctx context.Context, plan network.SandboxPlan, filtered bool) *netns.NS {
	k, ok := suits(plan, filtered)
	if !ok {
		return nil
	}
	sp := m.spares.take(k)
	if sp == nil {
		return nil
	}
	if err := m.fill(ctx, sp, plan.Interfaces[0]); err != nil {
		return nil // the ordinary way tells what is wrong, if anything is
	}
	plan.Interfaces[0].HostLink = sp.hostLink
	return sp.ns
}

// Spares are the names of links on the host that no container has yet.
func (m *Maker) Spares() []string {
	m.spares.mu.Lock()
	defer m.spares.mu.Unlock()
	var out []string
	for _, list := range m.spares.spares {
		for _, sp := range list {
			out = append(out, sp.hostLink)
		}
	}
	slices.Sort(out)
	return out
}

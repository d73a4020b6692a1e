package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ChainRef names a chain of any table.
type ChainRef struct {
	Family       nftables.TableFamily
	Table, Chain string
}

// String is the chain as nft(8) names it.
func (r ChainRef) String() string {
	family := map[nftables.TableFamily]string{
		nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet", nftables.TableFamilyBridge: "bridge",
	}[r.Family]
	return family + " " + r.Table + " " + r.Chain
}

// BaseChain is a chain that the kernel calls.
type BaseChain struct {
	ChainRef
	Priority int32
	// Drops: what the rules do not decide is dropped.
	Drops bool
}

// ForeignRule is a rule in somebody else's chain.
type ForeignRule struct {
	Handle  uint64
	Comment string
	exprs   []foreignExpr
}

// foreignExpr is one expression: its name and its attributes as they came.
type foreignExpr struct {
	name  string
	attrs map[uint16][]byte
}

// Foreign is what other tables do with packets that are forwarded.
type Foreign struct {
	// Base are the base chains of the hook, in the order in which the kernel
	// calls them.
	Base []BaseChain
	// Rules of the base chains, of every chain that these can lead to, and of
	// those that were asked for by name.
	Rules map[ChainRef][]ForeignRule
	// Owned tables accept changes only from the program that made them (Linux
	// 5.12).
	Owned map[ChainRef]bool
}

// readAttempts is how often a dump is repeated that the ruleset's next change
// interrupted.
const readAttempts = 10

// ObserveForeign reads what every table but one does on the forward hook of
// the families ip, ip6 and inet, and all chains of some names.
func (c *Conn) ObserveForeign(own string, names ...string) (Foreign, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for range readAttempts {
		var f Foreign
		if f, err = c.observeForeign(own, names); err == nil {
			return f, nil
		}
		err = errors.Join(err, c.redial())
	}
	return Foreign{}, fmt.Errorf("read nft chains of the forward hook: %w", err)
}

func nftType(msg int) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | msg)
}

// dump asks for all objects of a kind; each answers with its family and
// attributes.
func (c *Conn) dump(msg int, family nftables.TableFamily, attrs []netlink.Attribute, each func(nftables.TableFamily, map[uint16][]byte) error) error {
	if err := c.sock.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return err
	}
	answers, err := c.sock.Execute(netlink.Message{
		Header: netlink.Header{Type: nftType(msg), Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(family), unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if err != nil {
		return err
	}
	for _, m := range answers {
		if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
			return unix.EINTR
		}
		if len(m.Data) < 4 {
			continue
		}
		a, err := attributes(m.Data[4:])
		if err != nil {
			return err
		}
		if err := each(nftables.TableFamily(m.Data[0]), a); err != nil {
			return err
		}
	}
	return nil
}

func attributes(data []byte) (map[uint16][]byte, error) {
	list, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return nil, err
	}
	m := make(map[uint16][]byte, len(list))
	for _, a := range list {
		m[a.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a.Data
	}
	return m, nil
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

func number(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func forwarded(f nftables.TableFamily) bool {
	return f == nftables.TableFamilyIPv4 || f == nftables.TableFamilyIPv6 || f == nftables.TableFamilyINet
}

func (c *Conn) observeForeign(own string, names []string) (Foreign, error) {
	f := Foreign{Rules: map[ChainRef][]ForeignRule{}, Owned: map[ChainRef]bool{}}
	const dormant, owner = 1, 2 // NFT_TABLE_F_DORMANT, NFT_TABLE_F_OWNER
	asleep := map[ChainRef]bool{}
	err := c.dump(unix.NFT_MSG_GETTABLE, 0, nil, func(family nftables.TableFamily, a map[uint16][]byte) error {
		ref := ChainRef{Family: family, Table: text(a[unix.NFTA_TABLE_NAME])}
		flags := number(a[unix.NFTA_TABLE_FLAGS])
		f.Owned[ref], asleep[ref] = flags&owner != 0, flags&dormant != 0
		return nil
	})
	if err != nil {
		return Foreign{}, err
	}
	present := map[ChainRef]bool{}
	err = c.dump(unix.NFT_MSG_GETCHAIN, 0, nil, func(family nftables.TableFamily, a map[uint16][]byte) error {
		ref := ChainRef{family, text(a[unix.NFTA_CHAIN_TABLE]), text(a[unix.NFTA_CHAIN_NAME])}
		if !forwarded(family) || ref.Table == own && family == nftables.TableFamilyINet || asleep[ChainRef{Family: family, Table: ref.Table}] {
			return nil
		}
		present[ref] = true
		if a[unix.NFTA_CHAIN_HOOK] == nil {
			return nil
		}
		hook, err := attributes(a[unix.NFTA_CHAIN_HOOK])
		if err != nil {
			return err
		}
		if number(hook[unix.NFTA_HOOK_HOOKNUM]) != unix.NF_INET_FORWARD {
			return nil
		}
		f.Base = append(f.Base, BaseChain{
			ChainRef: ref, Priority: int32(number(hook[unix.NFTA_HOOK_PRIORITY])),
			Drops: a[unix.NFTA_CHAIN_POLICY] != nil && number(a[unix.NFTA_CHAIN_POLICY]) == uint32(nftables.ChainPolicyDrop),
		})
		return nil
	})
	if err != nil {
		return Foreign{}, err
	}
	slices.SortStableFunc(f.Base, func(a, b BaseChain) int { return int(a.Priority) - int(b.Priority) })
	for _, b := range f.Base {
		if err := c.readChain(&f, present, b.ChainRef); err != nil {
			return Foreign{}, err
		}
	}
	for ref := range present {
		if slices.Contains(names, ref.Chain) {
			if err := c.readChain(&f, present, ref); err != nil {
				return Foreign{}, err
			}
		}
	}
	return f, nil
}

// readChain reads a chain and those it leads to.
func (c *Conn) readChain(f *Foreign, present map[ChainRef]bool, ref ChainRef) error {
	if _, done := f.Rules[ref]; done || !present[ref] {
		return nil
	}
	f.Rules[ref] = nil
	err := c.dump(unix.NFT_MSG_GETRULE, ref.Family, []netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(ref.Table + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(ref.Chain + "\x00")},
	}, func(_ nftables.TableFamily, a map[uint16][]byte) error {
		r, err := parseForeign(a)
		if err != nil {
			return err
		}
		f.Rules[ref] = append(f.Rules[ref], r)
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range f.Rules[ref] {
		if v, chain := r.verdict(); v == unix.NFT_JUMP || v == unix.NFT_GOTO {
			if err := c.readChain(f, present, ChainRef{ref.Family, ref.Table, chain}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Add appends a rule to a chain, in the form in which ObserveForeign reads it:
// what a ruleset would do can be asked without a kernel.
func (f *Foreign) Add(ref ChainRef, comment string, exprs ...expr.Any) error {
	var list []netlink.Attribute
	for _, e := range exprs {
		data, err := expr.Marshal(byte(ref.Family), e)
		if err != nil {
			return fmt.Errorf("add rule to %s: %w", ref, err)
		}
		list = append(list, netlink.Attribute{Type: unix.NFTA_LIST_ELEM, Data: data})
	}
	data, err := netlink.MarshalAttributes(list)
	if err != nil {
		return fmt.Errorf("add rule to %s: %w", ref, err)
	}
	if f.Rules == nil {
		f.Rules = map[ChainRef][]ForeignRule{}
	}
	r, err := parseForeign(map[uint16][]byte{
		unix.NFTA_RULE_EXPRESSIONS: data,
		unix.NFTA_RULE_USERDATA:    userdata.AppendString(nil, userdata.TypeComment, comment),
		unix.NFTA_RULE_HANDLE:      binary.BigEndian.AppendUint64(nil, uint64(len(f.Rules[ref])+1)),
	})
	if err != nil {
		return fmt.Errorf("add rule to %s: %w", ref, err)
	}
	f.Rules[ref] = append(f.Rules[ref], r)
	return nil
}

func parseForeign(a map[uint16][]byte) (ForeignRule, error) {
	r := ForeignRule{}
	if h := a[unix.NFTA_RULE_HANDLE]; len(h) == 8 {
		r.Handle = binary.BigEndian.Uint64(h)
	}
	if comment, ok := userdata.GetString(a[unix.NFTA_RULE_USERDATA], userdata.TypeComment); ok {
		r.Comment = strings.TrimRight(comment, "\x00")
	}
	list, err := netlink.UnmarshalAttributes(a[unix.NFTA_RULE_EXPRESSIONS])
	if err != nil {
		return r, err
	}
	for _, e := range list {
		inner, err := attributes(e.Data)
		if err != nil {
			return r, err
		}
		data, err := attributes(inner[unix.NFTA_EXPR_DATA])
		if err != nil {
			return r, err
		}
		x := foreignExpr{name: text(inner[unix.NFTA_EXPR_NAME]), attrs: data}
		if x.name == "match" && text(data[unix.NFTA_MATCH_NAME]) == "comment" {
			r.Comment = text(data[unix.NFTA_MATCH_INFO])
		}
		r.exprs = append(r.exprs, x)
	}
	return r, nil
}

// Verdicts: NF_DROP and NF_ACCEPT (linux/netfilter.h); a rule with noVerdict
// decides nothing.
const (
	drop      = 0
	accept    = 1
	noVerdict = 1 << 20
)

// verdict of the rule, if its conditions hold.
func (r ForeignRule) verdict() (code int32, chain string) {
	for _, e := range r.exprs {
		switch e.name {
		case "immediate":
			if code, chain, ok := e.immediate(); ok {
				return code, chain
			}
		case "reject":
			return drop, ""
		case "target":
			if text(e.attrs[unix.NFTA_TARGET_NAME]) == "REJECT" {
				return drop, ""
			}
		}
	}
	return noVerdict, ""
}

func (e foreignExpr) immediate() (code int32, chain string, ok bool) {
	if number(e.attrs[unix.NFTA_IMMEDIATE_DREG]) != unix.NFT_REG_VERDICT {
		return 0, "", false
	}
	data, err := attributes(e.attrs[unix.NFTA_IMMEDIATE_DATA])
	if err != nil {
		return 0, "", false
	}
	v, err := attributes(data[unix.NFTA_DATA_VERDICT])
	if err != nil {
		return 0, "", false
	}
	return int32(number(v[unix.NFTA_VERDICT_CODE])), text(v[unix.NFTA_VERDICT_CHAIN]), true
}

// ForeignChange is a rule to be put at the top of somebody else's chain, or to
// be removed (Handle is not 0).
type ForeignChange struct {
	Chain   ChainRef
	Handle  uint64
	Comment string
	Exprs   []expr.Any
}

// ApplyForeign makes all changes in one transaction. The rules are of the kind
// that iptables-nft(8) shows and keeps as its own.
func (c *Conn) ApplyForeign(changes []ForeignChange) error {
	if len(changes) == 0 {
		return nil
	}
	return c.Transact(func(n *nftables.Conn) error {
		for _, ch := range changes {
			r := &nftables.Rule{
				Table: &nftables.Table{Name: ch.Chain.Table, Family: ch.Chain.Family},
				Chain: &nftables.Chain{Name: ch.Chain.Chain}, Handle: ch.Handle,
			}
			if ch.Handle != 0 {
				if err := n.DelRule(r); err != nil {
					return err
				}
				continue
			}
			r.Exprs, r.UserData = ch.Exprs, userdata.AppendString(nil, userdata.TypeComment, ch.Comment)
			n.InsertRule(r)
		}
		return nil
	})
}

// Package nft brings one nftables table of family inet to a wanted state:
// observe, plan, apply. A whole table is replaced in one transaction, so there
// is no moment without rules; when only elements of sets and maps differ, only
// those are changed. No program is run.
//
// Entry points: Open, Conn.Observe, NewPlan, Conn.Apply, and for single
// elements Conn.Add and Conn.Delete.
//
// Lock order: Conn.mu only; it covers one transaction (35 µs for an element).
package nft

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Table is the wanted state of a table.
type Table struct {
	Name   string
	Sets   []Set
	Chains []Chain
}

// Set is a set, or a map when Value is not empty. The key is a concatenation
// when it has several parts.
type Set struct {
	Name       string
	Key, Value []nftables.SetDatatype
	// Interval: elements are ranges from Key to KeyEnd, both included, in every
	// part of the key (which has several; Linux 5.6).
	Interval bool
	Elements []Element
}

// Element is one element; each part of Key and Value is padded to four bytes
// in a concatenation (see Concat).
type Element struct {
	Key, KeyEnd, Value []byte
}

// id tells elements of a set apart.
func (e Element) id() string { return string(e.Key) + string(e.KeyEnd) }

// Chain is a list of rules; a base chain when Hook is set.
type Chain struct {
	Name  string
	Hook  *Hook
	Rules []Rule
}

// Hook is where a base chain is called.
type Hook struct {
	// Type is "filter" or "nat".
	Type     nftables.ChainType
	Hook     *nftables.ChainHook
	Priority *nftables.ChainPriority
}

// Rule is one rule in two forms that its author keeps equal: Text, in nft(8)'s
// syntax, for people, and Exprs for the kernel. Comment says why it is there.
type Rule struct {
	Comment string
	Text    string
	Exprs   []expr.Any
}

// mark is what the kernel keeps beside a rule: the comment and a digest of the
// text, so that a table made by another release is recognized as different.
func (r Rule) mark() string {
	sum := sha256.Sum256([]byte(r.Text))
	return r.Comment + " #" + hex.EncodeToString(sum[:3])
}

// Concat joins the parts of a key or value as the kernel's registers hold
// them: each padded with zeros to a multiple of four bytes.
func Concat(parts ...[]byte) []byte {
	if len(parts) == 1 {
		return parts[0]
	}
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return out
}

// IfName is the name of an interface as a key.
func IfName(name string) []byte {
	b := make([]byte, 16)
	copy(b[:15], name)
	return b
}

// String prints the table in a form close to nft(8)'s, in a fixed order.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", t.Name)
	for _, s := range t.Sets {
		kind, types := "set", typeNames(s.Key)
		if len(s.Value) > 0 {
			kind, types = "map", types+" : "+typeNames(s.Value)
		}
		fmt.Fprintf(&b, "\t%s %s { type %s; } # %d elements\n", kind, s.Name, types, len(s.Elements))
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "\tchain %s {%s\n", c.Name, c.Hook)
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s  # %s\n", r.Text, r.Comment)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// String is the hook as it follows a chain's name.
func (h *Hook) String() string {
	if h == nil {
		return ""
	}
	hook := map[nftables.ChainHook]string{0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting"}[*h.Hook]
	return fmt.Sprintf(" type %s hook %s priority %d; policy accept;", h.Type, hook, int32(*h.Priority))
}

func typeNames(types []nftables.SetDatatype) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.Name
	}
	return strings.Join(names, " . ")
}

// Observed is a table as the kernel has it.
type Observed struct {
	// Exists is false when there is no such table; all else is empty then.
	Exists bool
	// layout lists sets, chains and rules, one line each.
	layout []string
	sets   map[string][]Element
}

// Has reports whether a chain holds a rule with this comment.
func (o Observed) Has(chain, comment string) bool {
	return slices.ContainsFunc(o.layout, func(l string) bool {
		return strings.HasPrefix(l, "rule "+chain+" "+comment+" #")
	})
}

// Elements returns what a set or map holds.
func (o Observed) Elements(set string) []Element { return o.sets[set] }

// layout lists what must be equal for a table to be kept.
func (t Table) layout() []string {
	var lines []string
	for _, s := range t.Sets {
		lines = append(lines, setLine(s.Name, keyLen(s.Key), keyLen(s.Value)))
	}
	for _, c := range t.Chains {
		lines = append(lines, "chain "+c.Name+c.Hook.String())
		for _, r := range c.Rules {
			lines = append(lines, "rule "+c.Name+" "+r.mark())
		}
	}
	return lines
}

func setLine(name string, key, value uint32) string {
	return fmt.Sprintf("set %s %d:%d", name, key, value)
}

func keyLen(types []nftables.SetDatatype) uint32 {
	switch len(types) {
	case 0:
		return 0
	case 1:
		return types[0].Bytes
	}
	return nftables.MustConcatSetType(types...).Bytes
}

// Plan is what has to be done to a table.
type Plan struct {
	want    Table
	replace bool
	why     []string
	add     map[string][]Element
	remove  map[string][]Element
}

// NewPlan compares a wanted table with what was observed.
func NewPlan(want Table, got Observed) Plan {
	p := Plan{want: want, add: map[string][]Element{}, remove: map[string][]Element{}}
	if !got.Exists {
		p.replace, p.why = true, []string{"the table does not exist"}
		return p
	}
	// Sets and chains come in the kernel's order; rules within a chain in
	// theirs, which matters. Sorting by kind and chain keeps that.
	wantLayout, gotLayout := stable(want.layout()), stable(got.layout)
	if !slices.Equal(wantLayout, gotLayout) {
		p.replace = true
		for _, l := range wantLayout {
			if !slices.Contains(gotLayout, l) {
				p.why = append(p.why, "missing: "+l)
			}
		}
		for _, l := range gotLayout {
			if !slices.Contains(wantLayout, l) {
				p.why = append(p.why, "unknown: "+l)
			}
		}
		if len(p.why) == 0 {
			p.why = []string{"the order of rules differs"}
		}
		return p
	}
	for _, s := range want.Sets {
		add, remove := diff(s.Elements, got.sets[s.Name])
		if len(add) > 0 {
			p.add[s.Name] = add
		}
		if len(remove) > 0 {
			p.remove[s.Name] = remove
		}
	}
	return p
}

// stable sorts sets and chains by name and leaves each chain's rules in order.
func stable(lines []string) []string {
	out := slices.Clone(lines)
	slices.SortStableFunc(out, func(a, b string) int { return strings.Compare(sortKey(a), sortKey(b)) })
	return out
}

func sortKey(line string) string {
	f := strings.Fields(line)
	return f[0] + " " + f[1]
}

// diff returns the elements of want that got lacks, and the other way round.
// An element whose value differs is in both.
func diff(want, got []Element) (add, remove []Element) {
	have := make(map[string][]byte, len(got))
	for _, e := range got {
		have[e.id()] = e.Value
	}
	keep := make(map[string]bool, len(want))
	for _, e := range want {
		if v, ok := have[e.id()]; ok && bytes.Equal(v, e.Value) {
			keep[e.id()] = true
			continue
		}
		add = append(add, e)
	}
	for _, e := range got {
		if !keep[e.id()] {
			remove = append(remove, e)
		}
	}
	return add, remove
}

// Empty reports whether nothing has to be done.
func (p Plan) Empty() bool { return !p.replace && len(p.add) == 0 && len(p.remove) == 0 }

// String tells what applying the plan does and why; "" for nothing.
func (p Plan) String() string {
	if p.replace {
		return fmt.Sprintf("replace table inet %s: %s\n", p.want.Name, strings.Join(p.why, "; "))
	}
	var b strings.Builder
	for _, s := range p.want.Sets {
		for _, e := range p.remove[s.Name] {
			fmt.Fprintf(&b, "delete element %s { %x }\n", s.Name, e.id())
		}
		for _, e := range p.add[s.Name] {
			fmt.Fprintf(&b, "add element %s { %x : %x }\n", s.Name, e.id(), e.Value)
		}
	}
	return b.String()
}

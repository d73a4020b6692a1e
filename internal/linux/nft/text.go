package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Text prints a table as the kernel has it, close to nft(8)'s form. The kernel
// keeps a rule's comment and a digest of its text; the text is t's. It fails for a
// rule, chain or set that is not in t.
func (o Observed) Text(t Table) (string, error) {
	if !o.Exists {
		return "", fmt.Errorf("table %s does not exist", t.Name)
	}
	if plan := NewPlan(Table{Name: t.Name, Sets: emptied(t.Sets), Chains: t.Chains}, Observed{Exists: true, layout: o.layout}); !plan.Empty() {
		return "", fmt.Errorf("the table is another one: %s", plan)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", t.Name)
	for _, s := range t.Sets {
		kind, types := "set", typeNames(s.Key)
		if len(s.Value) > 0 {
			kind, types = "map", types+" : "+typeNames(s.Value)
		}
		fmt.Fprintf(&b, "\t%s %s { type %s;%s }\n", kind, s.Name, types, elementsText(s, o.sets[s.Name]))
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "\n\tchain %s {\n", c.Name)
		if c.Hook != nil {
			fmt.Fprintf(&b, "\t\t%s\n", strings.TrimSpace(c.Hook.String()))
		}
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t# %s\n\t\t%s\n", r.Comment, r.Text)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String(), nil
}

// emptied are the sets without their elements.
func emptied(sets []Set) []Set {
	out := slices.Clone(sets)
	for i := range out {
		out[i].Elements = nil
	}
	return out
}

func elementsText(s Set, elements []Element) string {
	if len(elements) == 0 {
		return ""
	}
	var lines []string
	for _, e := range elements {
		line := partsText(s.Key, e.Key, e.KeyEnd)
		if len(s.Value) > 0 {
			line += " : " + partsText(s.Value, e.Value, nil)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return " elements = { " + strings.Join(lines, ", ") + " }"
}

// partsText prints the parts of a key or value; end is the end of a range.
func partsText(types []nftables.SetDatatype, data, end []byte) string {
	var out []string
	for _, t := range types {
		width := (int(t.Bytes) + 3) &^ 3
		if len(types) == 1 {
			width = int(t.Bytes)
		}
		if len(data) < width {
			break
		}
		text := partText(t, data[:t.Bytes])
		if len(end) >= width {
			if last := partText(t, end[:t.Bytes]); last != text {
				text += "-" + last
			}
			end = end[width:]
		}
		out = append(out, text)
		data = data[width:]
	}
	return strings.Join(out, " . ")
}

func partText(t nftables.SetDatatype, data []byte) string {
	switch t.Name {
	case TypeIfName.Name:
		return `"` + text(data) + `"`
	case TypeIPv4.Name, TypeIPv6.Name:
		if a, ok := netip.AddrFromSlice(data); ok {
			return a.String()
		}
	case TypeService.Name:
		return fmt.Sprint(binary.BigEndian.Uint16(data))
	case TypeProto.Name:
		switch data[0] {
		case unix.IPPROTO_TCP:
			return "tcp"
		case unix.IPPROTO_UDP:
			return "udp"
		case unix.IPPROTO_SCTP:
			return "sctp"
		}
	}
	return fmt.Sprintf("%x", data)
}

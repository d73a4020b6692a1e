package nameserver

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/orlop/orlop/internal/nameserver/table"
)

// names is the index of the table: who has which name on which network.
type names struct {
	// byName and byAddr are keyed by network.
	byName map[string]map[string][]owner
	byAddr map[string]map[netip.Addr]owned
	// records remember what a sandbox brought in.
	records map[string][]table.Name
}

// owner is a sandbox that has a name.
type owner struct {
	sandbox string
	addrs   []netip.Addr
}

// owned is the name of an address.
type owned struct {
	sandbox, name string
}

func newNames() *names {
	return &names{byName: map[string]map[string][]owner{}, byAddr: map[string]map[netip.Addr]owned{}, records: map[string][]table.Name{}}
}

// set replaces a sandbox's names.
func (n *names) set(rec table.Sandbox) {
	n.remove(rec.ID)
	if len(rec.Names) == 0 {
		return
	}
	n.records[rec.ID] = rec.Names
	for _, r := range rec.Names {
		if n.byName[r.Network] == nil {
			n.byName[r.Network], n.byAddr[r.Network] = map[string][]owner{}, map[netip.Addr]owned{}
		}
		for _, name := range r.Names {
			name = strings.ToLower(name)
			n.byName[r.Network][name] = append(n.byName[r.Network][name], owner{rec.ID, r.Addrs})
		}
		for _, a := range r.Addrs {
			if r.Reverse != "" {
				n.byAddr[r.Network][a] = owned{rec.ID, r.Reverse}
			}
		}
	}
}

// remove takes a sandbox's names out; it may be repeated.
func (n *names) remove(id string) {
	for _, r := range n.records[id] {
		for _, name := range r.Names {
			name = strings.ToLower(name)
			rest := slices.DeleteFunc(n.byName[r.Network][name], func(o owner) bool { return o.sandbox == id })
			if len(rest) == 0 {
				delete(n.byName[r.Network], name)
			} else {
				n.byName[r.Network][name] = rest
			}
		}
		for _, a := range r.Addrs {
			if n.byAddr[r.Network][a].sandbox == id {
				delete(n.byAddr[r.Network], a)
			}
		}
		if len(n.byName[r.Network]) == 0 {
			delete(n.byName, r.Network)
			delete(n.byAddr, r.Network)
		}
	}
	delete(n.records, id)
}

// addrs appends the addresses of a name, in lower case, on the first network
// that knows it. links are the sandbox's own names for others.
func (n *names) addrs(out []netip.Addr, networks []string, links []table.Link, name []byte) (addrs []netip.Addr, known bool) {
	for _, id := range networks {
		owners := n.byName[id][string(name)]
		for _, l := range links {
			if l.Network == id && l.Alias == string(name) {
				owners = n.byName[id][l.Name]
			}
		}
		if len(owners) == 0 {
			continue
		}
		for _, o := range owners {
			out = append(out, o.addrs...)
		}
		return out, true
	}
	return out, false
}

// name returns the name of an address.
func (n *names) name(networks []string, addr netip.Addr) (string, bool) {
	for _, id := range networks {
		if o, ok := n.byAddr[id][addr]; ok {
			return o.name, true
		}
	}
	return "", false
}

package flagvalue

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Attachment is one network a container is to be attached to.
type Attachment struct {
	Target       string // name or id of the network, or a mode: bridge, host, none, container:ID
	Aliases      []string
	Links        []string
	DriverOpts   map[string]string
	IPv4, IPv6   netip.Addr
	LinkLocalIPs []netip.Addr
	MAC          string
	GwPriority   int
}

// Networks is the repeated --network: a name, or comma separated KEY=VALUE fields.
type Networks struct{ list []Attachment }

var fieldForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\w+=\w+(,\w+=\w+)*`) })

// Set adds one network.
func (n *Networks) Set(value string) error {
	if !strings.Contains(value, "=") || !fieldForm().MatchString(value) {
		n.list = append(n.list, Attachment{Target: value})
		return nil
	}
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return err
	}
	a := Attachment{Aliases: []string{}}
	for _, field := range fields {
		// Docker folds keys and values alike; names of networks and aliases are lower case on the way.
		key, val, ok := strings.Cut(strings.ToLower(field), "=")
		if !ok || key == "" {
			return fmt.Errorf("invalid field %s", field)
		}
		if err := a.setField(strings.TrimSpace(key), strings.TrimSpace(val)); err != nil {
			return err
		}
	}
	if a.Target == "" {
		return errors.New("network name/id is not specified")
	}
	n.list = append(n.list, a)
	return nil
}

func (a *Attachment) setField(key, val string) (err error) {
	switch key {
	case "name":
		a.Target = val
	case "alias":
		a.Aliases = append(a.Aliases, val)
	case "ip":
		a.IPv4, err = ParseAddr("IPv4", val)
	case "ip6":
		a.IPv6, err = ParseAddr("IPv6", val)
	case "link-local-ip":
		var addr netip.Addr
		addr, err = ParseAddr("link-local IP", val)
		a.LinkLocalIPs = append(a.LinkLocalIPs, addr)
	case "mac-address":
		a.MAC = val
	case "driver-opt":
		k, v, ok := strings.Cut(val, "=")
		if !ok || k == "" {
			return errors.New("invalid key value pair format in driver options")
		}
		if a.DriverOpts == nil {
			a.DriverOpts = map[string]string{}
		}
		a.DriverOpts[strings.TrimSpace(k)] = strings.TrimSpace(v)
	case "gw-priority":
		a.GwPriority, err = strconv.Atoi(val)
		if err != nil {
			return fmt.Errorf("invalid gw-priority (%s): %w", val, numberFault(err))
		}
	default:
		return errors.New("invalid field key " + key)
	}
	return err
}

// ParseAddr reads an address that goes into the API as one; kind names what it was to be ("IPv4", "IPv6",
// "link-local IP") in the refusal, which has the words Docker's daemon uses for it.
func ParseAddr(kind, text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || kind == "IPv4" && !addr.Is4() || kind == "IPv6" && !addr.Is6() {
		return netip.Addr{}, fmt.Errorf("invalid %s address: %s", kind, text)
	}
	return addr, nil
}

// String is empty: help shows no default.
func (*Networks) String() string { return "" }

// Type is "network".
func (*Networks) Type() string { return "network" }

// Value returns the networks in the order given.
func (n *Networks) Value() []Attachment { return n.list }

// Mode is the container's network mode: the first network, "default" when none was given.
func (n *Networks) Mode() string {
	if len(n.list) == 0 {
		return "default"
	}
	return n.list[0].Target
}

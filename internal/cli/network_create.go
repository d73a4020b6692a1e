package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/flagvalue"
)

// addressFlags are the flags of `network create` that say which addresses a
// network has.
type addressFlags struct {
	driver   string
	subnets  []string
	ranges   []net.IPNet
	gateways []net.IP
	aux      *flagvalue.Map
	options  *flagvalue.Map
}

func (a *app) networkCreateCommand() *cobra.Command {
	var req client.NetworkCreateOptions
	var ipv4, ipv6 bool
	options, labels := flagvalue.NewMap(nil), flagvalue.NewList(flagvalue.Label)
	ipam := addressFlags{aux: flagvalue.NewMap(nil), options: flagvalue.NewMap(nil)}
	cmd := &cobra.Command{
		Use:                   "create [OPTIONS] NETWORK",
		Short:                 "Create a network",
		Args:                  exactArgs(1),
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if req.IPAM, err = ipam.config(); err != nil {
				return err
			}
			if cmd.Flag("ipv4").Changed {
				req.EnableIPv4 = &ipv4
			}
			if cmd.Flag("ipv6").Changed {
				req.EnableIPv6 = &ipv6
			}
			req.Options, req.Labels = options.Values(), flagvalue.PairsToMap(labels.Values())
			api, err := a.api()
			if err != nil {
				return err
			}
			resp, err := api.NetworkCreate(cmd.Context(), args[0], req)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, resp.ID)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&req.Driver, "driver", "d", "bridge", "Driver to manage the Network")
	f.VarP(options, "opt", "o", "Set driver specific options")
	f.Var(labels, "label", "Set metadata on a network")
	f.BoolVar(&req.Internal, "internal", false, "Restrict external access to the network")
	f.BoolVar(&ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	f.BoolVar(&ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	f.BoolVar(&req.Attachable, "attachable", false, "Enable manual container attachment")
	f.BoolVar(&req.Ingress, "ingress", false, "Create swarm routing-mesh network")
	f.StringVar(&req.Scope, "scope", "", "Control the network's scope")
	f.BoolVar(&req.ConfigOnly, "config-only", false, "Create a configuration only network")
	f.StringVar(&req.ConfigFrom, "config-from", "", "The network from which to copy the configuration")
	for name, version := range map[string]string{
		"attachable": "1.25", "ingress": "1.29", "scope": "1.30", "config-only": "1.30", "config-from": "1.30",
	} {
		// The flag exists, which is all that this can fail of.
		_ = f.SetAnnotation(name, needsVersion, []string{version})
	}
	f.StringVar(&ipam.driver, "ipam-driver", "default", "IP Address Management Driver")
	f.StringSliceVar(&ipam.subnets, "subnet", []string{}, "Subnet in CIDR format that represents a network segment")
	f.IPNetSliceVar(&ipam.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	f.IPSliceVar(&ipam.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	f.Var(ipam.aux, "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	f.Var(ipam.options, "ipam-opt", "Set IPAM driver specific options")
	return cmd
}

// config finds out which range, gateway and auxiliary address belongs to which
// subnet: they are given in any order, and the one that contains them has them.
func (o *addressFlags) config() (*network.IPAM, error) {
	if len(o.subnets) < len(o.ranges) || len(o.subnets) < len(o.gateways) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	configs := make([]network.IPAMConfig, 0, len(o.subnets))
	for _, text := range o.subnets {
		if _, _, err := net.ParseCIDR(text); err != nil {
			return nil, fmt.Errorf("invalid subnet: %w", err)
		}
		subnet, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		for _, c := range configs {
			if c.Subnet.Overlaps(subnet) {
				return nil, errors.New("multiple overlapping subnet configuration is not supported")
			}
		}
		configs = append(configs, network.IPAMConfig{Subnet: subnet, AuxAddress: map[string]netip.Addr{}})
	}
	// of finds the subnet that an address belongs to.
	of := func(addr netip.Addr) *network.IPAMConfig {
		for i := range configs {
			if configs[i].Subnet.Contains(addr) {
				return &configs[i]
			}
		}
		return nil
	}
	for _, r := range o.ranges {
		addr, _ := netip.AddrFromSlice(r.IP)
		bits, _ := r.Mask.Size()
		prefix := netip.PrefixFrom(addr.Unmap(), bits)
		c := of(prefix.Addr())
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for range %s", r.String())
		}
		if c.IPRange.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", r.String(), c.IPRange, c.Subnet)
		}
		c.IPRange = prefix
	}
	for _, g := range o.gateways {
		addr, _ := netip.AddrFromSlice(g)
		c := of(addr.Unmap())
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", g)
		}
		if c.Gateway.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", g, c.Gateway, c.Subnet)
		}
		c.Gateway = addr.Unmap()
	}
	for name, text := range o.aux.Values() {
		if text == "" {
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		c := of(addr)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", text)
		}
		c.AuxAddress[name] = addr
	}
	return &network.IPAM{Driver: o.driver, Config: configs, Options: o.options.Values()}, nil
}

// driverOptions reads --driver-opt.
func driverOptions(options []string) (map[string]string, error) {
	out := map[string]string{}
	for _, o := range options {
		key, value, ok := strings.Cut(o, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" {
			return nil, errors.New("invalid key/value pair format in driver options")
		}
		out[key] = strings.TrimSpace(value)
	}
	return out, nil
}

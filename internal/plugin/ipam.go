package plugin

import (
	"context"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/network"
)

const kindIPAM = "IpamDriver"

// IPAMDriver is networks.IPAMDriver by a plugin's IpamDriver methods. It is safe
// for concurrent use.
type IPAMDriver struct {
	reg  *Registry
	name string
}

// IPAMDriver finds a plugin. ErrNotFound when there is none of that name, or it
// does not decide addresses.
func (r *Registry) IPAMDriver(ctx context.Context, name string) (*IPAMDriver, error) {
	if _, err := r.get(ctx, name, kindIPAM); err != nil {
		return nil, err
	}
	return r.IPAMDriverLater(name), nil
}

// IPAMDriverLater is a driver that is looked for when it is needed.
func (r *Registry) IPAMDriverLater(name string) *IPAMDriver { return &IPAMDriver{r, name} }

// ipamResult is what every answer of an IPAM driver may have.
type ipamResult struct{ Error string }

func (r *ipamResult) failure() string { return r.Error }

func (d *IPAMDriver) call(ctx context.Context, method string, args any, answer interface{ failure() string }) error {
	c, err := d.reg.get(ctx, d.name, kindIPAM)
	if err != nil {
		return err
	}
	if err := c.call(ctx, kindIPAM+"."+method, args, answer); err != nil {
		return err
	}
	if text := answer.failure(); text != "" {
		return errdefs.ErrInternal.WithMessage("remote: " + text)
	}
	return nil
}

func prefix(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// RequestPool sets a subnet aside.
func (d *IPAMDriver) RequestPool(ctx context.Context, subnet, rng netip.Prefix, options map[string]string, ipv6 bool) (string, network.Allocation, error) {
	var spaces struct {
		ipamResult
		LocalDefaultAddressSpace, GlobalDefaultAddressSpace string
	}
	if err := d.call(ctx, "GetDefaultAddressSpaces", nil, &spaces); err != nil {
		return "", network.Allocation{}, err
	}
	if options == nil {
		options = map[string]string{}
	}
	var a struct {
		ipamResult
		PoolID, Pool string
		Data         map[string]string
	}
	err := d.call(ctx, "RequestPool", map[string]any{
		"AddressSpace": spaces.LocalDefaultAddressSpace, "Pool": prefix(subnet), "SubPool": prefix(rng), "Options": options, "V6": ipv6,
	}, &a)
	if err != nil {
		return "", network.Allocation{}, err
	}
	out := network.Allocation{Data: a.Data}
	if out.Prefix, err = netip.ParsePrefix(a.Pool); err != nil {
		return "", network.Allocation{}, errdefs.ErrInternal.WithMessage("remote: " + err.Error())
	}
	if gw, ok := a.Data["com.docker.network.gateway"]; ok {
		text, _, _ := strings.Cut(gw, "/")
		if out.Gateway, err = netip.ParseAddr(text); err != nil {
			return "", network.Allocation{}, errdefs.ErrInternal.WithMessage("remote: " + err.Error())
		}
	}
	return a.PoolID, out, nil
}

// ReleasePool gives a subnet back.
func (d *IPAMDriver) ReleasePool(ctx context.Context, id string) error {
	return d.call(ctx, "ReleasePool", map[string]any{"PoolID": id}, &ipamResult{})
}

func address4(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// RequestAddress takes an address.
func (d *IPAMDriver) RequestAddress(ctx context.Context, id string, addr netip.Addr, options map[string]string) (network.Allocation, error) {
	if options == nil {
		options = map[string]string{}
	}
	var a struct {
		ipamResult
		Address string
		Data    map[string]string
	}
	if err := d.call(ctx, "RequestAddress", map[string]any{"PoolID": id, "Address": address4(addr), "Options": options}, &a); err != nil {
		return network.Allocation{}, err
	}
	if a.Address == "" {
		return network.Allocation{}, errdefs.ErrInternal.WithMessage("no IP address returned")
	}
	p, err := netip.ParsePrefix(a.Address)
	if err != nil {
		return network.Allocation{}, errdefs.ErrInternal.WithMessage("remote: " + err.Error())
	}
	return network.Allocation{Prefix: p, Data: a.Data}, nil
}

// ReleaseAddress gives an address back.
func (d *IPAMDriver) ReleaseAddress(ctx context.Context, id string, addr netip.Addr) error {
	return d.call(ctx, "ReleaseAddress", map[string]any{"PoolID": id, "Address": address4(addr)}, &ipamResult{})
}

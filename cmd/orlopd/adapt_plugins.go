package main

import (
	"context"

	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/plugin"
)

// networkPlugins is networks.Plugins.
type networkPlugins struct{ *plugin.Registry }

func (p networkPlugins) NetworkDriver(ctx context.Context, name string) (networks.Driver, error) {
	d, err := p.Registry.NetworkDriver(ctx, name)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (p networkPlugins) IPAMDriver(ctx context.Context, name string) (networks.IPAMDriver, error) {
	d, err := p.Registry.IPAMDriver(ctx, name)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (p networkPlugins) NetworkDriverLater(name string) networks.Driver {
	return p.Registry.NetworkDriverLater(name)
}

func (p networkPlugins) IPAMDriverLater(name string) networks.IPAMDriver {
	return p.Registry.IPAMDriverLater(name)
}

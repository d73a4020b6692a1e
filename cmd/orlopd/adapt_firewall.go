package main

import (
	"context"

	"github.com/orlop/orlop/internal/domain/network"
)

// openFirewall is networks.Firewall for --iptables=false: the administrator
// filters and translates. Ports are still reserved and relayed on the loopback
// addresses, by netd.
type openFirewall struct{}

func (openFirewall) Apply(context.Context, network.Ruleset) (string, error)               { return "", nil }
func (openFirewall) DropsForeign(context.Context) (bool, error)                           { return false, nil }
func (openFirewall) Publish(context.Context, []network.Binding) error                     { return nil }
func (openFirewall) Unpublish(context.Context, []network.Binding) error                   { return nil }
func (openFirewall) SetBridge(context.Context, network.BridgeRules) error                 { return nil }
func (openFirewall) DropBridge(context.Context, network.BridgeRules) error                { return nil }
func (openFirewall) Redirect(context.Context, []network.Binding, []network.Binding) error { return nil }
func (openFirewall) Remove(context.Context) error                                         { return nil }
func (openFirewall) Run(context.Context) error                                            { return nil }
func (openFirewall) Warnings() []string                                                   { return nil }

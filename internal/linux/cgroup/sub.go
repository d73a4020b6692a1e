package cgroup

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// sameGroup is a sub-group where there are none (v1): a view of the
// container's group that never makes or removes it, and does not kill,
// freeze or limit it either, because that was asked for one exec.
type sameGroup struct{ *group }

func (sameGroup) Create(context.Context, *specs.LinuxResources) error { return nil }
func (sameGroup) Set(*specs.LinuxResources) error                     { return nil }
func (sameGroup) Freeze(context.Context) error                        { return nil }
func (sameGroup) Thaw(context.Context) error                          { return nil }
func (sameGroup) Kill(context.Context) error                          { return nil }
func (sameGroup) Remove(context.Context) error                        { return nil }
func (s sameGroup) Sub(string) Manager                                { return s }

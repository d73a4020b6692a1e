package seccomp

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultProfile is Docker's default profile for the running kernel and a
// container with the given capabilities (its bounding set, as OCI names:
// "CAP_SYS_ADMIN").
func DefaultProfile(caps []string) (*specs.LinuxSeccomp, error) {
	p, err := seccomp.GetDefaultProfile(specOf(caps))
	if err != nil {
		return nil, fmt.Errorf("resolve default seccomp profile: %w", err)
	}
	return p, nil
}

// LoadProfile reads a profile in Docker's JSON form (security-opt
// seccomp=FILE), whose rules may depend on kernel, architecture and
// capabilities, and resolves it like DefaultProfile. A profile without
// default action and rules is nil: no filter. InvalidArgument when it cannot
// be read.
func LoadProfile(body []byte, caps []string) (*specs.LinuxSeccomp, error) {
	p, err := seccomp.LoadProfile(string(body), specOf(caps))
	if err != nil {
		return nil, fmt.Errorf("load seccomp profile: %w: %w", errdefs.ErrInvalidArgument, err)
	}
	return p, nil
}

func specOf(caps []string) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
}

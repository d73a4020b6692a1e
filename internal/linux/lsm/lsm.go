// Package lsm puts containers under the kernel's mandatory access control:
// AppArmor profiles and SELinux labels.
//
// A runtime calls SetAppArmorExec or SetSELinuxExec on the locked thread that
// executes the application; the daemon calls LoadDefaultAppArmor once. All
// functions tell by Enabled… whether the kernel has the module at all.
package lsm

import (
	"context"
	"os"

	"github.com/containerd/errdefs"
)

// DefaultProfile is the name of the AppArmor profile of containers that name none.
const DefaultProfile = "orlop-default"

// Unconfined is the profile name that stands for no confinement.
const Unconfined = "unconfined"

// AppArmorEnabled reports whether the kernel has AppArmor switched on.
func AppArmorEnabled() bool { return false }

// AppArmorLoaded reports whether a profile of this name is in the kernel.
func AppArmorLoaded(name string) (bool, error) { return false, nil }

// LoadDefaultAppArmor makes sure that the profile name is in the kernel.
func LoadDefaultAppArmor(ctx context.Context, name string) error {
	return errdefs.ErrNotImplemented
}

// SetAppArmorExec makes the calling thread's next execve enter profile. proc
// is a handle of a procfs of the thread's pid namespace; nil is /proc.
func SetAppArmorExec(proc *os.File, profile string) error { return errdefs.ErrNotImplemented }

// SELinuxEnabled reports whether the kernel has SELinux switched on.
func SELinuxEnabled() bool { return false }

// SetSELinuxExec makes the calling thread's next execve run under label.
func SetSELinuxExec(proc *os.File, label string) error { return errdefs.ErrNotImplemented }

// SetSELinuxKeyring labels the keyring that the calling thread makes next.
func SetSELinuxKeyring(proc *os.File, label string) error { return errdefs.ErrNotImplemented }

// SELinuxMountOption appends the mount option that labels a whole mount.
func SELinuxMountOption(data, label string) string { return data }

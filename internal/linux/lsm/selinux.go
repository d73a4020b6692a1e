package lsm

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// SELinuxEnabled reports whether the kernel has SELinux with a policy: its
// file system is mounted and this process has a label.
func SELinuxEnabled() bool {
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/selinux", &st) != nil || st.Type != unix.SELINUX_MAGIC {
		return false
	}
	b, err := os.ReadFile("/proc/thread-self/attr/current")
	// Before a policy is loaded everything is "kernel".
	return err == nil && strings.TrimRight(string(b), "\x00\n") != "kernel"
}

// SetSELinuxExec makes the calling thread's next execve run under label. proc
// is a handle of a procfs that shows the thread; nil is /proc. NotImplemented
// without SELinux, InvalidArgument for a label the policy does not know.
func SetSELinuxExec(proc *os.File, label string) error {
	return setSELinux(proc, "exec", "process label", label)
}

// SetSELinuxKeyring labels the keyrings that the calling thread makes from now
// on; empty is the policy's choice again.
func SetSELinuxKeyring(proc *os.File, label string) error {
	return setSELinux(proc, "keycreate", "keyring label", label)
}

func setSELinux(proc *os.File, file, what, label string) error {
	if strings.ContainsRune(label, 0) {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("SELinux label %q", label))
	}
	if !SELinuxEnabled() {
		return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("set SELinux %s %s: the kernel has no SELinux", what, label))
	}
	err := writeAttr(proc, label, file)
	if err == nil {
		return nil
	}
	if strings.Contains(label, ":") && isInvalid(err) {
		return fmt.Errorf("set SELinux %s %s: %w: %w", what, label, errdefs.ErrInvalidArgument, err)
	}
	return fmt.Errorf("set SELinux %s %s: %w", what, label, err)
}

// SELinuxMountOption appends the option that labels a whole mount to its data;
// an empty label changes nothing. The label is quoted because its categories
// have a comma ("s0:c1,c2").
func SELinuxMountOption(data, label string) string {
	if label == "" {
		return data
	}
	if data != "" {
		data += ","
	}
	return data + `context="` + label + `"`
}

// keepLabels are trees whose labels the system depends on; Docker refuses to
// relabel them.
func keepLabels(path string) bool {
	return slices.Contains([]string{
		"/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib", "/lib64",
		"/media", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log",
	}, path)
}

// RelabelSELinux gives a bind mount's source and everything in it a container's
// file label (volume options z and Z). shared drops the label's categories, so
// that every container may use it. Symbolic links are labeled themselves, not
// followed; other file systems mounted inside are included, as Docker does.
// InvalidArgument for a system folder. A file system without labels is skipped.
func RelabelSELinux(path, label string, shared bool) error {
	if label == "" || !SELinuxEnabled() {
		return nil
	}
	if keepLabels(path) {
		return errdefs.ErrInvalidArgument.WithMessage("SELinux relabeling of " + path + " is not allowed")
	}
	if shared {
		label = withoutCategories(label)
	}
	return relabel(path, label)
}

// withoutCategories turns "user:role:type:s0:c1,c2" into "user:role:type:s0".
func withoutCategories(label string) string {
	f := strings.SplitN(label, ":", 5)
	if len(f) < 4 {
		return label
	}
	return strings.Join(f[:3], ":") + ":s0"
}

func relabel(path, label string) error {
	err := unix.Lsetxattr(path, "security.selinux", []byte(label), 0)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("relabel %s: %w", path, err)
	}
	st, err := os.Lstat(path)
	if err != nil || !st.IsDir() {
		return nil // gone, or a leaf
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("relabel %s: %w", path, err)
	}
	for _, e := range entries {
		if err := relabel(path+"/"+e.Name(), label); err != nil {
			return err
		}
	}
	return nil
}

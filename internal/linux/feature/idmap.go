package feature

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probeIDMappedOverlay mounts what the feature is for: an overlay with an
// idmapped lower layer from the root file system. It does so in a mount
// namespace of one thread, which ends with it.
func probeIDMappedOverlay() error {
	result := make(chan error, 1)
	go onThreadOfItsOwn(func() { result <- mountIDMappedOverlay() })
	return <-result
}

// onThreadOfItsOwn runs f on a thread that ends with it. It must not be the
// first thread of the process: that one never ends, and /proc/self shows its
// namespaces.
func onThreadOfItsOwn(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // and never unlock: the runtime ends the thread
		return
	}
	// Occupy the first thread so that the next goroutine gets another.
	done := make(chan struct{})
	go onThreadOfItsOwn(func() { defer close(done); f() })
	<-done
	runtime.UnlockOSThread()
}

func mountIDMappedOverlay() error {
	userns, err := mappedUserNamespace()
	if err != nil {
		return err
	}
	defer unix.Close(userns)
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// /dev exists everywhere and is not on the root file system.
	const at = "/dev"
	if err := unix.Mount("orlop-probe", at, "tmpfs", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	for _, d := range []string{"/layer", "/below", "/merged"} {
		if err := unix.Mkdir(at+d, 0o755); err != nil {
			return err
		}
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(tree)
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)}); err != nil {
		return fmt.Errorf("idmap the root file system: %w", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at+"/layer", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	if err := unix.Mount("overlay", at+"/merged", "overlay", unix.MS_RDONLY, "lowerdir="+at+"/layer:"+at+"/below"); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}

// mappedUserNamespace is a descriptor of a user namespace with some map.
func mappedUserNamespace() (int, error) {
	all, old := ^uint64(0), uint64(0)
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(all), 0, 0); e != 0 {
		return -1, fmt.Errorf("block signals: %w", e)
	}
	pid, e := forkIdle(unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), uintptr(unix.Getpid()))
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, unsafe.Sizeof(old), 0, 0)
	if e != 0 {
		return -1, fmt.Errorf("make a user namespace: %w", e)
	}
	defer func() {
		// Nothing depends on the child but its namespace, which is open by now.
		_ = unix.Kill(int(pid), unix.SIGKILL)
		_ = reap(int(pid))
	}()
	proc := fmt.Sprintf("/proc/%d/", pid)
	for _, m := range []string{"uid_map", "gid_map"} {
		if err := os.WriteFile(proc+m, []byte("0 100000 65536"), 0); err != nil {
			return -1, err
		}
	}
	return unix.Open(proc+"ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

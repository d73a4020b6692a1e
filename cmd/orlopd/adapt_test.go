package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/containers"
)

func TestAViewCanBeWalkedAndIsNoMountOfTheHost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	top, bottom := t.TempDir(), t.TempDir()
	for _, file := range []string{filepath.Join(top, "new"), filepath.Join(bottom, "old"), filepath.Join(bottom, "gone")} {
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A removed file is a device 0/0 in the upper layer (overlayfs.rst).
	if err := unix.Mknod(filepath.Join(top, "gone"), unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	err = views{}.View(context.Background(), container.Rootfs{Lower: []string{bottom}, Upper: top, Work: t.TempDir()}, containers.ViewExact, func(dir string) error {
		if during, err := os.ReadFile("/proc/self/mountinfo"); err != nil || string(during) != string(before) {
			t.Error("the view is mounted where others see it")
		}
		if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("writing into a read-only view: %v", err)
		}
		return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if path != dir {
				names = append(names, filepath.Base(path))
			}
			return err
		})
	})
	if err != nil || !slices.Equal(names, []string{"new", "old"}) {
		t.Errorf("saw %v, %v", names, err)
	}
}

// A container that runs may exchange a folder for a link while its files are
// exported: that must not lead to the host's.
func TestNoLinkLeadsOutOfAnExactView(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	host, layer := t.TempDir(), t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(host, "secret"), nil, 0o600), os.Symlink(host, filepath.Join(layer, "link"))); err != nil {
		t.Fatal(err)
	}
	for _, rootfs := range []container.Rootfs{{Lower: []string{layer}}, {Upper: layer, Work: t.TempDir(), Lower: []string{t.TempDir()}}} {
		look := func(how containers.ViewMode) (target string, opened error) {
			err := views{}.View(context.Background(), rootfs, how, func(dir string) (err error) {
				_, opened = os.ReadFile(filepath.Join(dir, "link", "secret"))
				target, err = os.Readlink(filepath.Join(dir, "link"))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return target, opened
		}
		if target, err := look(containers.ViewExact); !errors.Is(err, unix.ELOOP) || target != host {
			t.Errorf("through a link to %s: %v", target, err)
		}
		if _, err := look(containers.ViewLinks); err != nil {
			t.Errorf("the test's link leads nowhere: %v", err)
		}
	}
}

func TestTheMachineIsDescribed(t *testing.T) {
	h, err := newHost(context.Background(), "", true, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f := h.Facts()
	if f.CgroupVersion != 1 && f.CgroupVersion != 2 || f.NCPU < 1 || !slices.Contains(f.KnownCapabilities, "CAP_SYS_ADMIN") || h.BootID() == "" {
		t.Errorf("%+v", f)
	}
	d, err := h.Device("/dev/null")
	if err != nil || d.Type != "c" || d.Major != 1 || d.Minor != 3 {
		t.Errorf("/dev/null: %+v %v", d, err)
	}
	if _, err := h.Device("/etc"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("/etc as a device: %v", err)
	}
	if _, err := h.Device("/dev/no-such-device"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a device that is not there: %v", err)
	}
	if list, err := h.Devices("/dev"); err != nil || len(list) == 0 {
		t.Errorf("%d devices, %v", len(list), err)
	}
	if mountpoint, propagation, err := h.MountOf("/proc/self"); err != nil || mountpoint != "/proc" || propagation == "" {
		t.Errorf("/proc/self is on %q (%s), %v", mountpoint, propagation, err)
	}
	if ticks, err := systemCPU(); err != nil || ticks == 0 {
		t.Errorf("processors have worked %d ns, %v", ticks, err)
	}
	if _, err := networkStats(os.Getpid()); err != nil {
		t.Errorf("own network: %v", err)
	}
	if _, err := h.Stats(context.Background(), 1<<22); !errdefs.IsNotFound(err) {
		t.Errorf("a process that is not there: %v", err)
	}
}

func TestRunFilesStayInTheirFolder(t *testing.T) {
	d := runDir{t.TempDir()}
	if err := d.Write("c1", "run.json", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := d.Write("c1", "run.json", []byte("two")); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Read("c1", "run.json"); err != nil || string(got) != "two" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := d.Read("c1", "other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, bad := range [][2]string{{"..", "x"}, {"a/b", "x"}, {"", "x"}, {"c1", "../x"}, {"c1", ""}} {
		if err := d.Write(bad[0], bad[1], nil); err == nil {
			t.Errorf("%q was written", bad)
		}
	}
}

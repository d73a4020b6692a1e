package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/safepath"
)

const (
	// overlayStringMax is the longest value fsconfig takes (fs/fsopen.c).
	overlayStringMax = 255
	// overlayPageMax is what mount(2) takes as options: a page with its NUL.
	overlayPageMax = 4095
)

// Overlay makes a detached overlay mount; lower's first is the topmost. An
// empty upper makes it read-only. options are further mount options.
//
// Layers are given one by one ("lowerdir+", kernel 6.8) where the kernel takes
// that; on older ones mount(2) is used, with descriptors instead of paths when
// those exceed a page. The calling thread must then have a mount namespace of
// its own, because mount(2) attaches: the mount is moved away again.
func Overlay(lower []string, upper, work string, options []string) (safepath.FD, error) {
	switch {
	case len(lower) == 0:
		return safepath.None, errors.New("mount overlay: no layer")
	case upper == "" && len(lower) == 1:
		// overlayfs needs two layers; one alone is shown as it is.
		m, err := Clone(unix.AT_FDCWD, lower[0], false)
		if err != nil {
			return safepath.None, fmt.Errorf("mount layer %s: %w", lower[0], err)
		}
		if err := SetAttrs(m, false, unix.MOUNT_ATTR_RDONLY, 0); err != nil {
			_ = m.Close()
			return safepath.None, fmt.Errorf("mount layer %s read-only: %w", lower[0], err)
		}
		return m, nil
	}
	m, err := overlay(lower, upper, work, options)
	if err != nil && work != "" && errors.Is(err, unix.EINVAL) {
		// A volatile upper layer that was not unmounted cleanly is refused
		// (overlayfs.rst, "Volatile mount"); the mark is removed because the
		// owner of the layer has decided to use it again.
		mark := filepath.Join(work, "work", "incompat", "volatile")
		if _, serr := os.Lstat(mark); serr == nil {
			if rerr := os.RemoveAll(mark); rerr != nil {
				return safepath.None, fmt.Errorf("mount overlay: %w", rerr)
			}
			m, err = overlay(lower, upper, work, options)
		}
	}
	return m, err
}

func overlay(lower []string, upper, work string, options []string) (safepath.FD, error) {
	c, err := Open("overlay")
	if err != nil {
		return safepath.None, err
	}
	defer c.Close()
	links := shortener{max: overlayStringMax}
	defer links.close()
	for i, dir := range lower {
		s, err := links.shorten(dir)
		if err != nil {
			return safepath.None, fmt.Errorf("mount overlay: %w", err)
		}
		if err := unix.FsconfigSetString(c.fd, "lowerdir+", s); err != nil {
			if i == 0 && errors.Is(err, unix.EINVAL) {
				return oldOverlay(lower, upper, work, options)
			}
			return safepath.None, c.failed("lowerdir+="+dir, err)
		}
	}
	if upper != "" {
		for _, d := range [][2]string{{"upperdir", upper}, {"workdir", work}} {
			s, err := links.shorten(d[1])
			if err != nil {
				return safepath.None, fmt.Errorf("mount overlay: %w", err)
			}
			if err := c.SetString(d[0], s); err != nil {
				return safepath.None, err
			}
		}
	}
	for _, option := range append([]string{"source=overlay"}, options...) {
		if err := c.Set(option); err != nil {
			return safepath.None, err
		}
	}
	m, err := c.Mount(0)
	if errors.Is(err, unix.EINVAL) && olderInterface("overlay") {
		return oldOverlay(lower, upper, work, options)
	}
	return m, err
}

// olderInterface reports whether the file system's options are collected
// unread and judged only when it is mounted (overlay before kernel 6.5): there
// every option is taken, also one that cannot exist.
func olderInterface(fsType string) bool {
	c, err := Open(fsType)
	if err != nil {
		return false
	}
	defer c.Close()
	return unix.FsconfigSetString(c.fd, "orlop-no-such-option", "1") == nil
}

// oldOverlay mounts by mount(2) on the topmost layer's own folder, which the
// caller's mount namespace alone sees, and takes the mount off again.
func oldOverlay(lower []string, upper, work string, options []string) (safepath.FD, error) {
	data := overlayData(lower, upper, work, options)
	if len(data) > overlayPageMax {
		links := shortener{max: 0}
		defer links.close()
		short := make([]string, len(lower))
		for i, dir := range lower {
			var err error
			if short[i], err = links.shorten(dir); err != nil {
				return safepath.None, fmt.Errorf("mount overlay: %w", err)
			}
		}
		if data = overlayData(short, upper, work, options); len(data) > overlayPageMax {
			return safepath.None, fmt.Errorf("mount overlay: %d layers: options need %d bytes, the kernel takes %d: %w",
				len(lower), len(data), overlayPageMax, unix.E2BIG)
		}
	}
	at := lower[0]
	if err := unix.Mount("overlay", at, "overlay", 0, data); err != nil {
		return safepath.None, &Error{Act: "mount overlay", Errno: err}
	}
	m, err := Clone(unix.AT_FDCWD, at, false)
	if err != nil {
		err = fmt.Errorf("mount overlay: take it off %s: %w", at, err)
	}
	if uerr := unix.Unmount(at, unix.MNT_DETACH); uerr != nil && err == nil {
		_ = m.Close()
		return safepath.None, fmt.Errorf("mount overlay: unmount %s: %w", at, uerr)
	}
	return m, err
}

// overlayData is the option string of mount(2); ':' separates layers and ','
// options, so both and '\' are escaped in paths.
func overlayData(lower []string, upper, work string, options []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)
	parts := make([]string, len(lower))
	for i, dir := range lower {
		parts[i] = escape.Replace(dir)
	}
	list := []string{"lowerdir=" + strings.Join(parts, ":")}
	if upper != "" {
		list = append(list, "upperdir="+strings.ReplaceAll(upper, ",", `\,`), "workdir="+strings.ReplaceAll(work, ",", `\,`))
	}
	return strings.Join(append(list, options...), ",")
}

// shortener replaces paths longer than max by a descriptor's magic link.
type shortener struct {
	max  int
	open []safepath.FD
}

func (s *shortener) shorten(dir string) (string, error) {
	if len(dir) <= s.max {
		return dir, nil
	}
	fd, err := safepath.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	s.open = append(s.open, fd)
	return fmt.Sprintf("/proc/self/fd/%d", fd), nil
}

func (s *shortener) close() {
	for _, fd := range s.open {
		_ = fd.Close()
	}
}

package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"

	"github.com/orlop/orlop/internal/domain/container"
)

// errOtherwise: the layers alone do not tell, the view of all of them does.
var errOtherwise = errors.New("a link or a special file is in the way")

// layersOf lists the layers of a container, the writable one first.
func layersOf(rootfs container.Rootfs) []string {
	if rootfs.Upper == "" {
		return rootfs.Lower
	}
	return append([]string{rootfs.Upper}, rootfs.Lower...)
}

// findInLayers returns the topmost layer that has a path (relative, clean), ""
// when none has, as an overlay of them would show it: without mounting it, by
// a few lstat per layer. It fails with errOtherwise where a link leads on.
func findInLayers(rootfs container.Rootfs, name string) (string, error) {
	for _, dir := range layersOf(rootfs) {
		found, last, err := inLayer(dir, name)
		switch {
		case err != nil:
			return "", err
		case found:
			return dir, nil
		case last:
			return "", nil
		}
	}
	return "", nil
}

// inLayer looks for a path in one layer. last: the layer hides those below.
// No link leads out of the layer, whatever a running container does meanwhile.
func inLayer(dir, name string) (found, last bool, err error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, os.ErrNotExist) {
		return false, false, nil // a writable layer that was never mounted
	}
	if err != nil {
		return false, false, err
	}
	defer root.Close()
	parts := strings.Split(name, "/")
	for i := range parts {
		here := path.Join(parts[:i+1]...)
		info, err := root.Lstat(here)
		switch {
		case errors.Is(err, os.ErrNotExist):
			last, err := isOpaque(root, path.Join(parts[:i]...))
			return false, last, err
		case err != nil:
			return false, false, err
		case isWhiteout(info):
			return false, true, nil
		case !info.IsDir() && (i < len(parts)-1 || !info.Mode().IsRegular()):
			return false, false, errOtherwise
		}
		if i == len(parts)-1 {
			return true, true, nil
		}
		// A folder that hides those below it hides what is in them, too.
		if opaque, err := isOpaque(root, here); err != nil || opaque {
			_, err := root.Lstat(name)
			if errors.Is(err, os.ErrNotExist) {
				return false, true, nil
			}
		}
	}
	return false, false, nil
}

// isWhiteout: overlayfs marks what a layer removes with a character device 0:0.
func isWhiteout(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&os.ModeCharDevice != 0 && st.Rdev == 0
}

// isOpaque: the folder of a layer hides those of the layers below.
func isOpaque(root *os.Root, name string) (bool, error) {
	if name == "" {
		name = "."
	}
	folder, err := root.Open(name)
	if err != nil {
		return false, err
	}
	defer folder.Close()
	var value [1]byte
	n, err := syscall.Getxattr(fmt.Sprintf("/proc/self/fd/%d", folder.Fd()), "trusted.overlay.opaque", value[:])
	return err == nil && n == 1 && value[0] == 'y', nil
}

// makeWorkDir makes the working directory of a container that is about to
// start, as Docker does, where the image has none.
func (s *Service) makeWorkDir(ctx context.Context, rootfs container.Rootfs, dir string) error {
	name := strings.TrimPrefix(path.Clean("/"+dir), "/")
	if name == "" || rootfs.Upper == "" {
		return nil
	}
	where, err := findInLayers(rootfs, name)
	if err != nil && !errors.Is(err, errOtherwise) {
		return fmt.Errorf("find working directory %s: %w", dir, err)
	}
	if where != "" {
		return nil // a file there is the runtime's to refuse
	}
	err = s.cfg.Views.View(ctx, rootfs, ViewWritable, func(root string) error {
		if err := pathrs.MkdirAll(root, name, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make working directory %s: %w", dir, err)
	}
	return nil
}

package containers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/domain/container"
)

// maxUserFile bounds what is read of a container's passwd or group.
const maxUserFile = 16 << 20

// errOtherwise: the layers alone do not tell, the view of all of them does.
var errOtherwise = errors.New("a link or a special file is in the way")

// userOf resolves "user[:group]" and the groups of --group-add, from the
// container's own files only. A name that is not there is an error in Docker's
// words.
func (s *Service) userOf(ctx context.Context, id, name string, groupAdd []string) (specs.User, error) {
	rootfs, err := s.cfg.Store.Rootfs(ctx, id)
	if err != nil {
		return specs.User{}, fmt.Errorf("resolve user %q: %w", name, err)
	}
	passwd, err := s.fileOf(ctx, rootfs, "passwd")
	if err != nil {
		return specs.User{}, err
	}
	group, err := s.fileOf(ctx, rootfs, "group")
	if err != nil {
		return specs.User{}, err
	}
	found, err := user.GetExecUser(name, nil, strings.NewReader(passwd), strings.NewReader(group))
	if err != nil {
		return specs.User{}, err
	}
	out := specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid), AdditionalGids: []uint32{uint32(found.Gid)}}
	groups := found.Sgids
	if len(groupAdd) > 0 {
		more, err := user.GetAdditionalGroups(groupAdd, strings.NewReader(group))
		if err != nil {
			return specs.User{}, err
		}
		groups = append(groups, more...)
	}
	for _, gid := range groups {
		out.AdditionalGids = append(out.AdditionalGids, uint32(gid))
	}
	return out, nil
}

// fileOf reads a file of a container's /etc; "" when it is not there. Looking
// into the layers is cheap; only where that does not tell are they mounted.
func (s *Service) fileOf(ctx context.Context, rootfs container.Rootfs, name string) (string, error) {
	layers := rootfs.Lower
	if rootfs.Upper != "" {
		layers = append([]string{rootfs.Upper}, layers...)
	}
	for _, dir := range layers {
		text, over, err := inLayer(dir, name)
		switch {
		case errors.Is(err, errOtherwise):
			return s.fileInView(ctx, container.Rootfs{Lower: layers, IDMap: rootfs.IDMap}, name)
		case err != nil:
			return "", fmt.Errorf("read /etc/%s of the container: %w", name, err)
		case over:
			return text, nil
		}
	}
	return "", nil
}

// inLayer looks for etc/name in one layer. over: no lower layer counts.
func inLayer(dir, name string) (text string, over bool, err error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, os.ErrNotExist) {
		return "", false, nil // a writable layer that was never mounted
	}
	if err != nil {
		return "", false, err
	}
	defer root.Close()
	info, err := root.Lstat("etc")
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", false, nil
	case err != nil:
		return "", false, err
	case isWhiteout(info):
		return "", true, nil
	case !info.IsDir():
		return "", false, errOtherwise
	}
	info, err = root.Lstat("etc/" + name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		over, err := isOpaque(root)
		return "", over, err
	case err != nil:
		return "", false, err
	case isWhiteout(info):
		return "", true, nil
	case !info.Mode().IsRegular():
		return "", false, errOtherwise
	}
	f, err := root.OpenFile("etc/"+name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	text, err = readUserFile(f)
	return text, true, err
}

// isWhiteout: overlayfs marks what a layer removes with a character device 0:0.
func isWhiteout(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&os.ModeCharDevice != 0 && st.Rdev == 0
}

// isOpaque: the layer's etc hides those below it.
func isOpaque(root *os.Root) (bool, error) {
	etc, err := root.Open("etc")
	if err != nil {
		return false, err
	}
	defer etc.Close()
	var value [1]byte
	n, err := syscall.Getxattr(fmt.Sprintf("/proc/self/fd/%d", etc.Fd()), "trusted.overlay.opaque", value[:])
	return err == nil && n == 1 && value[0] == 'y', nil
}

func (s *Service) fileInView(ctx context.Context, rootfs container.Rootfs, name string) (text string, err error) {
	err = s.cfg.Views.View(ctx, rootfs, true, func(dir string) error {
		handle, err := pathrs.OpenInRoot(dir, "/etc/"+name)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer handle.Close()
		info, err := handle.Stat()
		if err != nil || !info.Mode().IsRegular() {
			return err // what is no file names nobody
		}
		f, err := pathrs.Reopen(handle, os.O_RDONLY)
		if err != nil {
			return err
		}
		defer f.Close()
		text, err = readUserFile(f)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read /etc/%s of the container: %w", name, err)
	}
	return text, nil
}

func readUserFile(f *os.File) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(f, maxUserFile))
	return string(raw), err
}

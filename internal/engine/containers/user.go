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

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/domain/container"
)

// maxUserFile bounds what is read of a container's passwd or group.
const maxUserFile = 16 << 20

// execUser resolves the user of an exec.
func (s *Service) execUser(ctx context.Context, id, name string, groupAdd []string) (specs.User, error) {
	rootfs, err := s.cfg.Store.Rootfs(ctx, id)
	if err != nil {
		return specs.User{}, fmt.Errorf("resolve user %q: %w", name, err)
	}
	return s.userOf(ctx, rootfs, name, groupAdd)
}

// userOf resolves "user[:group]" and the groups of --group-add, from the
// container's own files only. A name that is not there is an error in Docker's
// words.
func (s *Service) userOf(ctx context.Context, rootfs container.Rootfs, name string, groupAdd []string) (specs.User, error) {
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
func (s *Service) fileOf(ctx context.Context, rootfs container.Rootfs, name string) (text string, err error) {
	path := "etc/" + name
	if defense.Dropped(defense.UserFilesInside) {
		return fileByPath(rootfs, path)
	}
	where, err := findInLayers(rootfs, path)
	switch {
	case errors.Is(err, errOtherwise):
		return s.fileInView(ctx, rootfs, path)
	case err != nil:
		return "", fmt.Errorf("read /%s of the container: %w", path, err)
	case where == "":
		return "", nil
	}
	root, err := os.OpenRoot(where)
	if err != nil {
		return "", fmt.Errorf("read /%s of the container: %w", path, err)
	}
	defer root.Close()
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", fmt.Errorf("read /%s of the container: %w", path, err)
	}
	defer f.Close()
	return readUserFile(f)
}

func (s *Service) fileInView(ctx context.Context, rootfs container.Rootfs, path string) (text string, err error) {
	err = s.cfg.Views.View(ctx, container.Rootfs{Lower: layersOf(rootfs), IDMap: rootfs.IDMap}, ViewLinks, func(dir string) error {
		handle, err := pathrs.OpenInRoot(dir, "/"+path)
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
		return "", fmt.Errorf("read /%s of the container: %w", path, err)
	}
	return text, nil
}

func readUserFile(f *os.File) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(f, maxUserFile))
	return string(raw), err
}

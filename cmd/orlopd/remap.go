package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/container"
	program "github.com/orlop/orlop/internal/linux/process"
)

const (
	// remapDefault asks for the user remapUser, who is made when missing.
	remapDefault = "default"
	remapUser    = "dockremap"

	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"
	subuidFile = "/etc/subuid"
	subgidFile = "/etc/subgid"

	// firstSubID and subIDCount are the range that a made user gets, unless
	// others have it: as useradd(8) chooses.
	firstSubID = 100000
	subIDCount = 65536
)

// remap resolves --userns-remap, by Docker's rules and in its words, and moves
// the data root into a folder that is named for the map, so that engines with
// and without one do not share files.
func (c *Config) remap(ctx context.Context, log *slog.Logger) error {
	if c.UsernsRemap == "" {
		return nil
	}
	name, err := remappedUser(ctx, c.UsernsRemap)
	if err != nil {
		return err
	}
	if name == "root" {
		log.Warn("User namespaces: root cannot be remapped with itself; user namespaces are OFF")
		return nil
	}
	log.Info("User namespaces: ID ranges will be mapped to subuid/subgid ranges of: " + name)
	usr, err := lookupUser(ctx, name)
	if err != nil {
		return fmt.Errorf("error creating ID mappings: could not get user for username %s: %w", name, err)
	}
	if c.IDMap.UIDs, err = subIDs(subuidFile, usr); err == nil {
		c.IDMap.GIDs, err = subIDs(subgidFile, usr)
	}
	if err != nil {
		return fmt.Errorf("error creating ID mappings: %w", err)
	}
	uid, gid := c.IDMap.RootPair()
	root := filepath.Join(c.DataRoot, fmt.Sprintf("%d.%d", uid, gid))
	if err := os.MkdirAll(c.DataRoot, 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(root, 0o710); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("cannot create daemon root: %s: %w", root, err)
	}
	if err := os.Chown(root, os.Getuid(), gid); err != nil {
		return fmt.Errorf("cannot create daemon root: %s: %w", root, err)
	}
	c.DataRoot = root
	return nil
}

// remappedUser finds the user whose ranges are wanted.
func remappedUser(ctx context.Context, spec string) (string, error) {
	parts := strings.Split(spec, ":")
	if len(parts) > 2 {
		return "", fmt.Errorf("Invalid user/group specification in --userns-remap: %q", spec)
	}
	name := parts[0]
	id, err := strconv.ParseInt(name, 10, 32)
	if err == nil {
		usr, err := lookupUser(ctx, name)
		if err != nil {
			return "", fmt.Errorf("Uid %d has no entry in /etc/passwd: %w", id, err)
		}
		if len(parts) == 1 {
			if _, err := groupEntry(ctx, name); err != nil {
				return "", fmt.Errorf("Gid %d has no entry in /etc/group: %w", id, err)
			}
		}
		name = usr.Name
	} else {
		if name == remapDefault {
			name = remapUser
		}
		switch _, err := lookupUser(ctx, name); {
		case err != nil && parts[0] == remapDefault:
			if err := makeUser(ctx, name); err != nil {
				return "", fmt.Errorf("Error during %q user creation: %w", name, err)
			}
			return name, nil
		case err != nil:
			return "", fmt.Errorf("Error during uid lookup for %q: %w", name, err)
		}
		if len(parts) == 1 {
			if _, err := groupEntry(ctx, name); err != nil {
				return "", fmt.Errorf("Error during gid lookup for %q: %w", name, err)
			}
		}
	}
	if len(parts) == 2 {
		if _, err := groupEntry(ctx, parts[1]); err != nil {
			if gid, nerr := strconv.ParseInt(parts[1], 10, 32); nerr == nil {
				return "", fmt.Errorf("Gid %d has no entry in /etc/passwd: %w", gid, err)
			}
			return "", fmt.Errorf("Error during groupname lookup for %q: %w", parts[1], err)
		}
	}
	return name, nil
}

// lookupUser finds a user by name or number: in the file, then with getent.
func lookupUser(ctx context.Context, name string) (user.User, error) {
	list, err := entries(ctx, passwdFile, "passwd", name, user.ParsePasswdFilter, func(u user.User) bool {
		return u.Name == name || strconv.Itoa(u.Uid) == name
	})
	if err != nil {
		return user.User{}, err
	}
	return list[0], nil
}

// groupEntry finds a group by name or number.
func groupEntry(ctx context.Context, name string) (user.Group, error) {
	list, err := entries(ctx, groupFile, "group", name, user.ParseGroupFilter, func(g user.Group) bool {
		return g.Name == name || strconv.Itoa(g.Gid) == name
	})
	if err != nil {
		return user.Group{}, err
	}
	return list[0], nil
}

// entries finds at least one entry of a database: this program is static and
// does not load name services itself.
func entries[T any](ctx context.Context, file, database, key string, parse func(io.Reader, func(T) bool) ([]T, error), wanted func(T) bool) ([]T, error) {
	if raw, err := os.ReadFile(file); err == nil {
		if list, err := parse(bytes.NewReader(raw), wanted); err == nil && len(list) > 0 {
			return list, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, getentTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "getent", database, "--", key).Output()
	if err == nil {
		var list []T
		if list, err = parse(bytes.NewReader(out), wanted); err == nil && len(list) > 0 {
			return list, nil
		}
	}
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) {
		return nil, fmt.Errorf("getent unable to find entry %q in %s database", key, database)
	}
	return nil, err
}

// subIDs reads the ranges of a user (subuid(5)); in the container they follow
// each other from 0.
func subIDs(file string, usr user.User) ([]specs.LinuxIDMapping, error) {
	uid := strconv.Itoa(usr.Uid)
	list, err := user.ParseSubIDFileFilter(file, func(s user.SubID) bool { return s.Name == usr.Name || s.Name == uid })
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no %s ranges found for user %q", filepath.Base(file), usr.Name)
	}
	var out []specs.LinuxIDMapping
	var next uint32
	for _, s := range list {
		out = append(out, specs.LinuxIDMapping{ContainerID: next, HostID: uint32(s.SubID), Size: uint32(s.Count)})
		next += uint32(s.Count)
	}
	return out, nil
}

// makeUser makes the user of "default" with the system's own program, and gives
// it ranges.
func makeUser(ctx context.Context, name string) error {
	var out []byte
	err := errors.New("cannot add user; no useradd/adduser binary found")
	for _, args := range [][]string{
		{"useradd", "--system", "--user-group", "--no-create-home", "--shell", "/bin/false", name},
		{"adduser", "-S", "-D", "-H", "-s", "/bin/false", name},
	} {
		program, lerr := exec.LookPath(args[0])
		if lerr != nil {
			continue
		}
		if out, err = exec.CommandContext(ctx, program, args[1:]...).CombinedOutput(); err != nil {
			err = fmt.Errorf("%s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
		break
	}
	if err != nil {
		return err
	}
	for _, file := range []string{subuidFile, subgidFile} {
		if err := giveRange(file, name); err != nil {
			return fmt.Errorf("couldn't create subordinate ID ranges: %w", err)
		}
	}
	return nil
}

// giveRange adds a range behind all others, unless the user has one.
func giveRange(file, name string) error {
	list, err := user.ParseSubIDFileFilter(file, func(user.SubID) bool { return true })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	start := int64(firstSubID)
	for _, s := range list {
		if s.Name == name {
			return nil
		}
		start = max(start, s.SubID+s.Count)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s:%d:%d\n", name, start, subIDCount)
	return errors.Join(err, f.Close())
}

// canRemap refuses user namespaces where layers cannot be shown with other
// owners: by a kernel older than 5.19, or on a file system that does not take part.
func (c *Config) canRemap() error {
	if c.IDMap.Empty() {
		return nil
	}
	dir, err := os.MkdirTemp(c.DataRoot, "probe-")
	if err != nil {
		return err
	}
	probe := container.Rootfs{
		Lower: []string{filepath.Join(dir, "lower")}, Upper: filepath.Join(dir, "rw", "upper"), Work: filepath.Join(dir, "rw", "work"),
		IDMap: c.IDMap,
	}
	for _, d := range []string{probe.Lower[0], probe.Upper, probe.Work} {
		err = errors.Join(err, os.MkdirAll(d, 0o755))
	}
	if err == nil {
		// The kernel makes it read-only when it cannot work in the layers.
		err = translatedView(probe, func(root string) error {
			var st unix.Statfs_t
			if err := unix.Statfs(root, &st); err != nil {
				return err
			}
			if st.Flags&unix.ST_RDONLY != 0 {
				return unix.EROFS
			}
			return nil
		})
	}
	if err != nil {
		err = fmt.Errorf("userns-remap needs a kernel (5.19) and a file system below %s that can show files with other owners: %w", c.DataRoot, err)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// idMap is a map in the form that kernel interfaces are given.
func idMap(list []specs.LinuxIDMapping) []program.IDMap {
	var out []program.IDMap
	for _, m := range list {
		out = append(out, program.IDMap{Inside: m.ContainerID, Outside: m.HostID, Size: m.Size})
	}
	return out
}

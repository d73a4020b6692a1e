package mount

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/safepath"
)

// Translated describes an overlay whose layers are shown with other owners.
type Translated struct {
	// Lower, Upper and Work are those of Overlay; Upper and Work, unless empty,
	// are in one folder.
	Lower       []string
	Upper, Work string
	Options     []string
	// UserNS has the maps: files of id n on disk belong to what n is there.
	UserNS uintptr
	// UID and GID are the host's ids of root in UserNS.
	UID, GID int
}

// Overlay mounts t (kernel 5.19). The calling thread must have a mount
// namespace of its own, private and with no other use: the layers are covered
// in it by idmapped mounts of themselves.
func (t Translated) Overlay() (safepath.FD, error) {
	dirs := t.Lower
	if t.Upper != "" {
		if filepath.Dir(t.Upper) != filepath.Dir(t.Work) {
			return safepath.None, fmt.Errorf("translate owners: %s and %s are in different folders", t.Upper, t.Work)
		}
		// Both have to be on the same mount.
		dirs = append([]string{filepath.Dir(t.Upper)}, dirs...)
	}
	for _, dir := range dirs {
		if err := cover(dir, t.UserNS); err != nil {
			return safepath.None, fmt.Errorf("translate owners below %s: %w", dir, err)
		}
	}
	m := safepath.None
	err := filesOf(t.UID, t.GID, func() (err error) {
		m, err = Overlay(t.Lower, t.Upper, t.Work, t.Options)
		return err
	})
	return m, err
}

// cover shows a folder with translated owners at its own place (mount_setattr(2)).
func cover(dir string, userns uintptr) error {
	m, err := Clone(unix.AT_FDCWD, dir, false)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := SetIDMap(m, false, userns); err != nil {
		return err
	}
	at, err := safepath.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer at.Close()
	return Attach(m, at)
}

// filesOf calls fn with another owner for what the thread makes, but all its
// capabilities. An overlay works in its layers with the credentials of who mounts
// it, and an owner that the layers' maps do not know cannot make anything there
// (EOVERFLOW, with which the overlay would become read-only).
func filesOf(uid, gid int, fn func() error) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	oldGID, _ := unix.SetfsgidRetGid(gid)
	oldUID, _ := unix.SetfsuidRetUid(uid) // takes the capabilities over files away
	err := unix.Capset(&header, &caps[0])
	if err != nil {
		err = fmt.Errorf("keep capabilities: %w", err)
	} else {
		err = fn()
	}
	_, uerr := unix.SetfsuidRetUid(oldUID)
	_, gerr := unix.SetfsgidRetGid(oldGID)
	return errors.Join(err, uerr, gerr, unix.Capset(&header, &caps[0]))
}

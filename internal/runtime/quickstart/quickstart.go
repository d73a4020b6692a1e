// Package quickstart is `start` of a created container without a Go runtime.
//
// Starting a container that waits at its gate is a dozen system calls, but the
// start of a Go program costs ten times as much. So the program's entry point
// (entry, linked with -E) looks at its arguments before the Go runtime exists:
// when they are a plain `start`, and all that the verb would have to find out
// is as the record that Create left says, it opens the gate and exits.
// In every other case nothing was changed, and the Go runtime begins as ever:
// it does the same with all its errors. A build without -E has only that.
//
// What the verb must know, and how it is known here:
//
//	the state is whole, and this version's      state.json and spec.json are the files that Create wrote (inode, size, change time)
//	it has a process and no poststart hooks     else Create leaves no record
//	its first process lives and waits           somebody reads from the fifo, and that is nobody else while the lock is ours
//	it is not paused                            the freezer's file has the text it has when nothing is frozen
//
// Write is the entry point for Create.
package quickstart

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Names in a container's state folder.
const (
	File      = "start.quick"
	StateFile = "state.json"
	SpecFile  = "spec.json"
	GateFile  = "start.fifo"
	LockFile  = "lock"
)

// DefaultRoot is where root's containers have their state folders.
const DefaultRoot = "/run/orlop-runtime"

// The record: magic, the two files' stamps, the length of the freezer's text, that
// text, and the path of the freezer's file with a NUL; no path is no freezer.
const (
	magic     = 0x3154535f504c524f // changes with the form
	stampSize = 4 * 8
	stateAt   = 8
	specAt    = stateAt + stampSize
	lengthAt  = specAt + stampSize
	textAt    = lengthAt + 8
	textMax   = 16
	pathAt    = textAt + textMax
	recordMax = 1024
)

// Write leaves the record in the state folder dir, whose files are complete.
// frozen is the file that says whether the container is frozen, thawed its text
// when it is not; "" is a host without. It may be left out for any reason.
func Write(dir, frozen, thawed string) error {
	if len(thawed) > textMax || pathAt+len(frozen)+1 > recordMax {
		return nil
	}
	b := make([]byte, pathAt, pathAt+len(frozen)+1)
	binary.NativeEndian.PutUint64(b, magic)
	for _, f := range []struct {
		name string
		at   int
	}{{StateFile, stateAt}, {SpecFile, specAt}} {
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, dir+"/"+f.name, unix.AT_SYMLINK_NOFOLLOW, stampMask, &st); err != nil {
			return fmt.Errorf("look at %s/%s: %w", dir, f.name, err)
		}
		for i, v := range stampOf(&st) {
			binary.NativeEndian.PutUint64(b[f.at+8*i:], v)
		}
	}
	binary.NativeEndian.PutUint64(b[lengthAt:], uint64(len(thawed)))
	copy(b[textAt:], thawed)
	b = append(append(b, frozen...), 0)
	fd, err := unix.Open(dir+"/"+File, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err == nil {
		_, err = unix.Write(fd, b)
		_ = unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("write %s/%s: %w", dir, File, err)
	}
	return nil
}

const stampMask = unix.STATX_INO | unix.STATX_SIZE | unix.STATX_CTIME

// stampOf is what another file at the same path would not have.
//
//go:nosplit
//go:norace
func stampOf(st *unix.Statx_t) [4]uint64 {
	return [4]uint64{st.Ino, st.Size, uint64(st.Ctime.Sec), uint64(st.Ctime.Nsec)}
}

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// KernelLog is a place in the kernel's log (/dev/kmsg) behind which OOM kills
// are counted. systemd removes a scope as soon as its last process has ended,
// and with it memory.events: for a container that the OOM killer has ended,
// nothing else may be left to tell so.
//
// Reading needs CAP_SYSLOG where kernel.dmesg_restrict is set. The kernel
// prints at most 10 kills in 5 s in full: what is counted is a lower bound.
type KernelLog struct{ file *os.File }

// OpenKernelLog starts at the log's end: what was logged before does not count.
func OpenKernelLog() (*KernelLog, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open kernel log: %w", err)
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("find end of kernel log: %w", err)
	}
	return KernelLogOf(os.NewFile(uintptr(fd), "/dev/kmsg")), nil
}

// KernelLogOf goes on with a file that was opened by OpenKernelLog.
func KernelLogOf(f *os.File) *KernelLog { return &KernelLog{f} }

// File is the open log.
func (l *KernelLog) File() *os.File { return l.file }

// Close is safe for nil.
func (l *KernelLog) Close() error {
	if l == nil {
		return nil
	}
	return l.file.Close()
}

// Kills counts the kills in the scope of c, and in groups below, since the log
// was opened or Kills was called last. c must be a group of the systemd driver.
func (l *KernelLog) Kills(c Config) (uint64, error) {
	s, err := parseScope(c.Path)
	if err != nil {
		return 0, err
	}
	raw, err := l.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var kills uint64
	record := make([]byte, 8192) // the kernel's own bound (CONSOLE_EXT_LOG_MAX)
	err = eachRecord(func() (n int, err error) {
		if e := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), record) }); e != nil {
			return 0, e
		}
		return n, err
	}, func(n int) {
		if killedIn(record[:n], s.unit) {
			kills++
		}
	})
	if err != nil {
		return kills, fmt.Errorf("read kernel log: %w", err)
	}
	return kills, nil
}

// eachRecord reads to the end. Records that were overwritten before they were
// read (EPIPE) are lost.
func eachRecord(read func() (int, error), use func(n int)) error {
	for {
		n, err := read()
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n <= 0:
			return nil
		default:
			use(n)
		}
	}
}

// killedIn reports whether a record tells of a kill in the unit's group
// (dump_oom_summary in the kernel's mm/oom_kill.c, since 4.19).
func killedIn(record []byte, unit string) bool {
	_, text, ok := bytes.Cut(record, []byte{';'})
	if !ok || !bytes.HasPrefix(text, []byte("oom-kill:")) {
		return false
	}
	_, group, ok := bytes.Cut(text, []byte(",task_memcg="))
	if !ok {
		return false
	}
	// The task's name, which comes last, may hold anything, but not in front.
	group, _, _ = bytes.Cut(group, []byte(",task="))
	for part := range bytes.SplitSeq(group, []byte{'/'}) {
		if string(part) == unit {
			return true
		}
	}
	return false
}

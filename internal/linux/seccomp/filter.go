package seccomp

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Filter is a compiled profile: a classic BPF program over struct
// seccomp_data and the flags it is attached with. It is immutable and may be
// attached any number of times.
type Filter struct {
	prog    []unix.SockFilter
	flags   uint32
	notify  bool
	ignored []string
}

// Notify reports whether the program can return SECCOMP_RET_USER_NOTIF, in
// which case it must be attached by InstallNotify.
func (f *Filter) Notify() bool { return f.notify }

// Len is the number of BPF instructions.
func (f *Filter) Len() int { return len(f.prog) }

// Ignored lists calls that the profile names and this package's tables do not
// know, for a debug message. It does not travel with MarshalBinary.
func (f *Filter) Ignored() []string { return f.ignored }

// Install attaches the filter to the calling thread, which must be locked to
// its goroutine and needs no_new_privs or CAP_SYS_ADMIN in its user namespace
// (else EACCES). With the flag TSYNC all threads get it. A filter that
// notifies a supervisor is refused with InvalidArgument.
func (f *Filter) Install() error {
	if f.notify {
		return errdefs.ErrInvalidArgument.WithMessage("attach seccomp filter: it notifies a supervisor, but nobody takes its listener")
	}
	_, err := f.attach(f.flags)
	return err
}

// InstallNotify attaches the filter like Install and returns the listener of
// its notifications (seccomp_unotify(2)), close-on-exec; nil when the filter
// has none. The kernel allows one listener per thread: EBUSY for a second.
func (f *Filter) InstallNotify() (*os.File, error) {
	if !f.notify {
		return nil, f.Install()
	}
	fd, err := f.listener(f.flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(fd, "seccomp-notify"), nil
}

// InstallListener is InstallNotify for the calling thread alone, also with the
// flag TSYNC: another thread is to hand the listener over. It makes no system
// call after the filter is in force. InvalidArgument for a filter that does not notify.
func (f *Filter) InstallListener() (int, error) {
	if !f.notify {
		return -1, errdefs.ErrInvalidArgument.WithMessage("attach seccomp filter: it notifies nobody")
	}
	fd, err := f.listener(f.flags &^ unix.SECCOMP_FILTER_FLAG_TSYNC)
	return int(fd), err
}

// listener attaches the filter and returns its listener.
func (f *Filter) listener(flags uint32) (uintptr, error) {
	flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	if flags&unix.SECCOMP_FILTER_FLAG_TSYNC != 0 {
		// Without it the kernel could not tell a descriptor from a thread id.
		flags |= unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	}
	return f.attach(flags)
}

func (f *Filter) attach(flags uint32) (uintptr, error) {
	if len(f.prog) == 0 {
		return 0, errdefs.ErrInvalidArgument.WithMessage("attach seccomp filter: it has no program")
	}
	prog := unix.SockFprog{Len: uint16(len(f.prog)), Filter: &f.prog[0]}
	r, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return 0, fmt.Errorf("attach seccomp filter: %w", errno)
	}
	if flags&unix.SECCOMP_FILTER_FLAG_TSYNC != 0 && flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 && r != 0 {
		return 0, fmt.Errorf("attach seccomp filter: thread %d has another one", r)
	}
	return r, nil
}

// Raw is what seccomp(2) takes: flags and the instructions, 8 bytes each.
func (f *Filter) Raw() (flags uint32, instructions []byte) {
	b := make([]byte, 0, 8*len(f.prog))
	for _, i := range f.prog {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return f.flags, b
}

// The form of MarshalBinary: magic, flags, notify, count, then the
// instructions as the kernel takes them, all little-endian.
const (
	magic      = "ORLSECC1"
	headerSize = len(magic) + 4 + 4 + 4
)

// MarshalBinary returns a form for another process of the same machine.
func (f *Filter) MarshalBinary() ([]byte, error) {
	out := make([]byte, 0, headerSize+8*len(f.prog))
	out = append(out, magic...)
	out = binary.LittleEndian.AppendUint32(out, f.flags)
	var notify uint32
	if f.notify {
		notify = 1
	}
	out = binary.LittleEndian.AppendUint32(out, notify)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(f.prog)))
	for _, i := range f.prog {
		out = binary.LittleEndian.AppendUint16(out, i.Code)
		out = append(out, i.Jt, i.Jf)
		out = binary.LittleEndian.AppendUint32(out, i.K)
	}
	return out, nil
}

// UnmarshalFilter reads what MarshalBinary wrote; InvalidArgument for
// anything else. Whether the program is sound is checked by the kernel.
func UnmarshalFilter(data []byte) (*Filter, error) {
	bad := func(why string) (*Filter, error) {
		return nil, errdefs.ErrInvalidArgument.WithMessage("read seccomp filter: " + why)
	}
	if len(data) < headerSize || string(data[:len(magic)]) != magic {
		return bad("not a filter")
	}
	h := data[len(magic):]
	f := &Filter{flags: binary.LittleEndian.Uint32(h), notify: binary.LittleEndian.Uint32(h[4:]) != 0}
	n := binary.LittleEndian.Uint32(h[8:])
	body := data[headerSize:]
	if n == 0 || n > maxProgram || len(body) != int(n)*8 {
		return bad("wrong length")
	}
	f.prog = make([]unix.SockFilter, n)
	for i := range f.prog {
		b := body[i*8:]
		f.prog[i] = unix.SockFilter{Code: binary.LittleEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.LittleEndian.Uint32(b[4:])}
	}
	return f, nil
}

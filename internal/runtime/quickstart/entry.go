//nolint:unused // assembly calls start
package quickstart

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/process"
)

// In this file there may be no Go runtime: no stack but the few words that nosplit
// allows, no heap, no panic; only functions that are nosplit too. What is larger
// than that is in these variables, which nothing else touches.
var (
	record [recordMax]byte
	stat   unix.Statx_t
	text   [textMax + 1]byte
	// threadMemory is where wrappers of assembly look for the current goroutine.
	threadMemory [64]byte
)

// entry is where the kernel starts the program, in assembly: it calls start and
// exits, or goes on to the entry point of Go's runtime.
func entry()

const (
	notHere = -1 // for the Go program
	atCwd   = -100
)

// start does what the arguments at sp say, as the kernel puts them on a new
// stack (argc, argv…), if it is a `start` for this package. The result is the
// exit status or notHere.
//
//go:nosplit
//go:norace
func start(sp unsafe.Pointer) int {
	argc := *(*int)(sp)
	if argc > 1 && !equal(arg(sp, 1), "monitor") && !equal(arg(sp, 1), "init") {
		process.CalmFirst()
	}
	var root, log, id unsafe.Pointer
	for i := 1; id == nil; i++ {
		if i >= argc {
			return notHere
		}
		a, next := arg(sp, i), unsafe.Pointer(nil)
		if i+1 < argc {
			next = arg(sp, i+1)
		}
		if equal(a, "start") {
			if i+2 != argc {
				return notHere
			}
			id = next
			continue
		}
		if equal(a, "--systemd-cgroup") {
			continue
		}
		var used bool
		var format unsafe.Pointer
		switch {
		case option(a, "--root", next, &root, &used), option(a, "--log", next, &log, &used):
		case option(a, "--log-format", next, &format, &used) && (equal(format, "text") || equal(format, "json")):
		default:
			return notHere
		}
		if used {
			i++
		}
	}
	if !validID(id) {
		return notHere
	}
	if root == nil {
		if call(unix.SYS_GETEUID, 0, 0, 0, 0) != 0 {
			return notHere
		}
		root = str(DefaultRoot + "\x00")
	}
	if *(*byte)(root) == 0 || log != nil && *(*byte)(log) == 0 {
		return notHere
	}
	dir := open(atCwd, root, unix.O_PATH|unix.O_DIRECTORY)
	if dir < 0 {
		return notHere
	}
	if dir = open(dir, id, unix.O_PATH|unix.O_DIRECTORY); dir < 0 {
		return notHere
	}
	if log != nil && open(atCwd, log, unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND) < 0 {
		return notHere
	}
	return openGate(dir)
}

// openGate is `start` of the container with this state folder.
//
//go:nosplit
//go:norace
func openGate(dir int) int {
	lock := open(dir, str(LockFile+"\x00"), unix.O_RDWR)
	if lock < 0 || call(unix.SYS_FLOCK, uintptr(lock), unix.LOCK_EX, 0, 0) != 0 {
		return notHere
	}
	if !usual(dir) {
		_ = call(unix.SYS_CLOSE, uintptr(lock), 0, 0, 0) // which the Go program wants
		return notHere
	}
	gate := open(dir, str(GateFile+"\x00"), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW)
	// A reader that dies now is an error and not our end.
	pipe := uint64(1) << (unix.SIGPIPE - 1)
	if gate < 0 || call(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&pipe)), 0, 8) != 0 ||
		call(unix.SYS_UNLINKAT, uintptr(dir), uintptr(str(GateFile+"\x00")), 0, 0) != 0 ||
		call(unix.SYS_WRITE, uintptr(gate), uintptr(str("\x01")), 1, 0) != 1 {
		_ = call(unix.SYS_CLOSE, uintptr(lock), 0, 0, 0)
		return notHere
	}
	return 0
}

// usual reports whether the container is as the record says, and not paused.
//
//go:nosplit
//go:norace
func usual(dir int) bool {
	fd := open(dir, str(File+"\x00"), unix.O_RDONLY|unix.O_NOFOLLOW)
	if fd < 0 {
		return false
	}
	n := call(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&record)), recordMax, 0)
	if n <= pathAt || word(0) != magic || *(*byte)(unsafe.Add(unsafe.Pointer(&record), n-1)) != 0 {
		return false
	}
	if !same(dir, str(StateFile+"\x00"), stateAt) || !same(dir, str(SpecFile+"\x00"), specAt) {
		return false
	}
	path := unsafe.Add(unsafe.Pointer(&record), pathAt)
	if *(*byte)(path) == 0 {
		return true
	}
	if fd = open(atCwd, path, unix.O_RDONLY); fd < 0 {
		return false
	}
	got := call(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&text)), textMax+1, 0)
	if got < 0 || uint64(got) != word(lengthAt) {
		return false
	}
	for i := range got {
		if *(*byte)(unsafe.Add(unsafe.Pointer(&text), i)) != *(*byte)(unsafe.Add(unsafe.Pointer(&record), textAt+i)) {
			return false
		}
	}
	return true
}

// same reports whether a file has the stamp at this place of the record.
//
//go:nosplit
//go:norace
func same(dir int, name unsafe.Pointer, at int) bool {
	const follow = unix.AT_SYMLINK_NOFOLLOW
	if _, _, e := unix.RawSyscall6(unix.SYS_STATX, uintptr(dir), uintptr(name), follow, stampMask, uintptr(unsafe.Pointer(&stat)), 0); e != 0 {
		return false
	}
	s := stampOf(&stat)
	return s[0] == word(at) && s[1] == word(at+8) && s[2] == word(at+16) && s[3] == word(at+24)
}

//go:nosplit
//go:norace
func word(at int) uint64 { return *(*uint64)(unsafe.Add(unsafe.Pointer(&record), at)) }

// arg is the i-th argument, a C string.
//
//go:nosplit
//go:norace
func arg(sp unsafe.Pointer, i int) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Add(sp, 8+8*i))
}

// equal compares a C string.
//
//go:nosplit
//go:norace
func equal(c unsafe.Pointer, s string) bool {
	for i := range len(s) {
		if *(*byte)(unsafe.Add(c, i)) != s[i] {
			return false
		}
	}
	return *(*byte)(unsafe.Add(c, len(s))) == 0
}

// option reports whether a is this option, whose value follows a = or is the next
// argument, which is used then.
//
//go:nosplit
//go:norace
func option(a unsafe.Pointer, name string, next unsafe.Pointer, value *unsafe.Pointer, used *bool) bool {
	for i := range len(name) {
		if *(*byte)(unsafe.Add(a, i)) != name[i] {
			return false
		}
	}
	switch *(*byte)(unsafe.Add(a, len(name))) {
	case '=':
		*value = unsafe.Add(a, len(name)+1)
		return true
	case 0:
		*value, *used = next, true
		return next != nil
	}
	return false
}

// validID reports whether id can be a folder's name that the Go program accepts
// too; not every one that it does.
//
//go:nosplit
//go:norace
func validID(id unsafe.Pointer) bool {
	const longest = 255
	for i := 0; i <= longest; i++ {
		switch c := *(*byte)(unsafe.Add(id, i)); {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', i > 0 && (c == '-' || c == '.' || c == '+'):
		default:
			return c == 0 && i > 0
		}
	}
	return false
}

//go:nosplit
//go:norace
func str(s string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(s)) }

// open is openat(2); below 0 on failure.
//
//go:nosplit
//go:norace
func open(dir int, name unsafe.Pointer, flags uintptr) int {
	const mode = 0o644
	return call(unix.SYS_OPENAT, uintptr(dir), uintptr(name), flags|unix.O_CLOEXEC, mode)
}

// call is a system call; its result or -errno.
//
//go:nosplit
//go:norace
func call(nr, a, b, c, d uintptr) int {
	r, _, e := unix.RawSyscall6(nr, a, b, c, d, 0, 0)
	if e != 0 {
		return -int(e)
	}
	return int(r)
}

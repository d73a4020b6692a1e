package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
)

// SealSelf returns the running program in a form that nobody can write to, to
// start children from (CVE-2019-5736: what a container sees as /proc/self/exe
// must not be the file of the host). The caller keeps it for as many starts as
// it likes. A program that was started from such a form gets that one again.
//
// It is the file in a detached read-only overlay where the kernel allows that
// (5.2 and CAP_SYS_ADMIN): 0.13 ms and no memory; else a sealed copy in memory:
// 5 ms and the size of the program.
func SealSelf() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("seal executable: %w", err)
	}
	name, err := os.Readlink("/proc/self/exe")
	if err != nil {
		_ = self.Close()
		return nil, fmt.Errorf("seal executable: %w", err)
	}
	if sealedMemory(self) || sealedOverlay(self, name) || defense.Dropped(defense.SealedExecutable) {
		return self, nil
	}
	defer self.Close()
	if err := Static(self); err != nil {
		return nil, fmt.Errorf("seal executable: %w", err)
	}
	return seal(self, name)
}

// Seal is SealSelf for an opened program, which stays the caller's.
func Seal(exe *os.File) (*os.File, error) {
	// Where the file really is, whatever links led to it.
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(exe.Fd())))
	if err != nil {
		return nil, fmt.Errorf("seal executable: %w", err)
	}
	return seal(exe, path)
}

func seal(exe *os.File, path string) (*os.File, error) {
	if f, err := overlayOf(exe, path); err == nil {
		return f, nil
	}
	return sealInMemory(exe)
}

// ErrDynamic refuses a program that needs an interpreter (ld.so): it is executed
// inside containers, which have another one or none.
var ErrDynamic = errors.New("it is dynamically linked, and its interpreter is not in the containers it is executed in; build it with CGO_ENABLED=0")

// Static fails with ErrDynamic for a program that cannot be executed inside
// containers. SealSelf asks it; Seal leaves it to the caller, whose program may
// never go there.
func Static(exe *os.File) error {
	interpreter, err := hasInterpreter(exe)
	if err == nil && interpreter {
		err = ErrDynamic
	}
	if err != nil {
		return fmt.Errorf("program %s: %w", exe.Name(), err)
	}
	return nil
}

// hasInterpreter looks for PT_INTERP in the program headers of a 64-bit
// little-endian ELF file. Package debug/elf would cost every start of the
// runtime its initialisation.
func hasInterpreter(exe *os.File) (bool, error) {
	const (
		headerLen = 64 // Elf64_Ehdr
		entryLen  = 56 // Elf64_Phdr
		interp    = 3  // PT_INTERP
	)
	var h [headerLen]byte
	if _, err := exe.ReadAt(h[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if string(h[:6]) != "\x7fELF\x02\x01" {
		return false, errors.New("it is no ELF program of this machine")
	}
	at := int64(binary.LittleEndian.Uint64(h[32:]))
	size, count := int64(binary.LittleEndian.Uint16(h[54:])), int64(binary.LittleEndian.Uint16(h[56:]))
	if at < headerLen || size < entryLen {
		return false, errors.New("its ELF header makes no sense")
	}
	var kind [4]byte
	for i := range count {
		if _, err := exe.ReadAt(kind[:], at+i*size); err != nil {
			return false, fmt.Errorf("read program headers: %w", err)
		}
		if binary.LittleEndian.Uint32(kind[:]) == interp {
			return true, nil
		}
	}
	return false, nil
}

// seals of memory: nothing can change it any more, not even the seals.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

func sealedMemory(f *os.File) bool {
	got, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	return err == nil && got&seals == seals
}

// sealInMemory copies an executable into sealed memory.
func sealInMemory(exe *os.File) (*os.File, error) {
	const name = "orlop-runtime"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // MFD_EXEC is of kernel 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("seal executable: memfd: %w", err)
	}
	mem := os.NewFile(uintptr(fd), name)
	if err := fill(mem, exe); err != nil {
		_ = mem.Close()
		return nil, fmt.Errorf("seal executable: %w", err)
	}
	return mem, nil
}

func fill(mem, exe *os.File) error {
	st, err := exe.Stat()
	if err != nil {
		return err
	}
	for off := int64(0); off < st.Size(); {
		n, err := unix.Sendfile(int(mem.Fd()), int(exe.Fd()), &off, int(st.Size()-off))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = errors.New("the file became shorter")
		}
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
	}
	// Readable for nobody without rights over its owner: a process of a user
	// namespace that executes it is then not traceable from inside there.
	if err := unix.Fchmod(int(mem.Fd()), 0o511); err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	_, err = unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, seals)
	return err
}

// emptyLower is the second layer that an overlay without an upper one needs; it
// is any folder that is always there and not above or below the program's.
const emptyLower = "/dev/shm"

// overlayOf shows the folder of exe through a read-only overlay that is attached
// nowhere, and opens the program in it. Nobody can make it writable: it has no
// upper layer, and no mount namespace has it to remount it in.
func overlayOf(exe *os.File, path string) (*os.File, error) {
	dir, name := filepath.Split(path)
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	lower := strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(filepath.Clean(dir)) + ":" + emptyLower
	for _, o := range [][2]string{{"source", "orlop-runtime"}, {"lowerdir", lower}} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return nil, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, overlayAttrs)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mnt)
	fd, err := unix.Openat(mnt, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if err := sameContent(f, exe); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

const (
	overlayAttrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID
	overlayFlags = unix.ST_RDONLY | unix.ST_NODEV | unix.ST_NOSUID
)

// sameContent makes sure that nobody exchanged the file at the path meanwhile:
// the running program is the one to go on with.
func sameContent(a, b *os.File) error {
	var x, y unix.Stat_t
	if err := unix.Fstat(int(a.Fd()), &x); err != nil {
		return err
	}
	if err := unix.Fstat(int(b.Fd()), &y); err != nil {
		return err
	}
	if x.Ino != y.Ino || x.Size != y.Size || x.Ctim != y.Ctim {
		return errors.New("another file is at the program's path")
	}
	return nil
}

// sealedOverlay reports whether f is of such an overlay: one with our mount
// flags whose path leads elsewhere in our own file tree, because it is detached.
func sealedOverlay(f *os.File, path string) bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || fs.Type != unix.OVERLAYFS_SUPER_MAGIC || fs.Flags&overlayFlags != overlayFlags {
		return false
	}
	var own, there unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &own); err != nil {
		return false
	}
	err := unix.Stat(path, &there)
	return err != nil || own.Dev != there.Dev || own.Ino != there.Ino
}

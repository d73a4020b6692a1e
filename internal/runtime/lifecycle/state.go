package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	stateFile = "state.json"
	gateFile  = "start.fifo"
	lockFile  = "lock"
	// stateSchema is the number of saved's form.
	stateSchema = 1
)

// saved is state.json: what the kernel cannot be asked for later.
type saved struct {
	Schema int    `json:"schema"`
	ID     string `json:"id"`
	Bundle string `json:"bundle"`
	// Rootfs is the root's folder on the host, "" for layers.
	Rootfs  string    `json:"rootfs,omitempty"`
	Created time.Time `json:"created"`
	// Owner is the uid that created it.
	Owner int `json:"owner"`
	// Pid with PidStart (clock ticks after boot) identifies the process; BootID
	// says of which boot.
	Pid           int         `json:"pid"`
	PidStart      uint64      `json:"pidStart"`
	BootID        string      `json:"bootId"`
	CgroupPath    string      `json:"cgroupPath"`
	SystemdCgroup bool        `json:"systemdCgroup,omitempty"`
	Spec          *specs.Spec `json:"spec"`
}

// stateDir is the folder of a container below root.
func stateDir(root, id string) string { return filepath.Join(root, id) }

// validID reports whether id can be the name of a state folder.
func validID(id string) error {
	const maxID = 1024
	ok := id != "" && len(id) <= maxID && id != "." && id != ".."
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '+' || c == '-' || c == '.'
	}
	if !ok {
		return errdefs.ErrInvalidArgument.WithMessage("invalid container ID format: " + quote(id))
	}
	return nil
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

// save writes the state atomically; a tmpfs needs no sync.
func (c *Container) save() error {
	body, err := json.Marshal(&c.saved)
	if err != nil {
		return fmt.Errorf("save state of %s: %w", c.saved.ID, err)
	}
	tmp := filepath.Join(c.dir, "."+stateFile)
	if err := os.WriteFile(tmp, body, 0o600); err != nil {
		return fmt.Errorf("save state of %s: %w", c.saved.ID, err)
	}
	if err := os.Rename(tmp, filepath.Join(c.dir, stateFile)); err != nil {
		return fmt.Errorf("save state of %s: %w", c.saved.ID, err)
	}
	return nil
}

// load reads a container's state. ErrNotFound without a folder or state file,
// ErrDataLoss when the file cannot be understood.
func load(root, id string) (*saved, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	body, err := os.ReadFile(filepath.Join(stateDir(root, id), stateFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, errdefs.ErrNotFound.WithMessage("container " + quote(id) + " does not exist")
	}
	if err != nil {
		return nil, fmt.Errorf("load container %s: %w", id, err)
	}
	var s saved
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, fmt.Errorf("load container %s: damaged state %s: %w: %w", id, filepath.Join(stateDir(root, id), stateFile), err, errdefs.ErrDataLoss)
	}
	if s.ID != id || s.Spec == nil || s.Spec.Linux == nil || s.Schema < 1 || s.Schema > stateSchema {
		return nil, fmt.Errorf("load container %s: damaged state %s: not that of this container in a form this version knows: %w",
			id, filepath.Join(stateDir(root, id), stateFile), errdefs.ErrDataLoss)
	}
	return &s, nil
}

// List returns the ids that have a state folder below root, sorted; none when
// root is not there.
func List(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && validID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	sort.Strings(ids)
	return ids, nil
}

// lock takes the lock file of a state folder until unlock is called.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdefs.ErrNotFound.WithMessage("container " + quote(filepath.Base(dir)) + " does not exist")
	}
	if err != nil {
		return nil, fmt.Errorf("lock container: %w", err)
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock container: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// bootID identifies this boot of the machine.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return string(b), nil
}

// v2Path reads the path of the line "0::/path" in a /proc/<pid>/cgroup.
func v2Path(body string) (string, bool) {
	for line := range strings.SplitSeq(body, "\n") {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return path, true
		}
	}
	return "", false
}

package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/runtime/bundle"
	"github.com/orlop/orlop/internal/runtime/plainjson"
	"github.com/orlop/orlop/internal/runtime/quickstart"
)

const (
	stateFile = quickstart.StateFile
	specFile  = quickstart.SpecFile
	// filterFile is the compiled seccomp profile; without it, it is compiled.
	filterFile = "seccomp.bpf"
	gateFile   = quickstart.GateFile
	lockFile   = quickstart.LockFile
	// stateSchema is the number of saved's form.
	stateSchema = 1
)

// saved is state.json: what the kernel cannot be asked for later. It is written
// before anything is made that would outlive a dying creator; the configuration
// beside it (spec.json) follows while init is at work.
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
	Pid           int    `json:"pid"`
	PidStart      uint64 `json:"pidStart"`
	BootID        string `json:"bootId"`
	CgroupPath    string `json:"cgroupPath"`
	SystemdCgroup bool   `json:"systemdCgroup,omitempty"`
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

// save writes the state.
func (c *Container) save() error { return c.write(stateFile, c.saved.encode()) }

// encode is json.Marshal of s.
func (s *saved) encode() []byte {
	const usual = 512
	b := make([]byte, 0, usual)
	str := func(key, value string) {
		b = append(append(b, ',', '"'), key...)
		b = plainjson.AppendStr(append(b, '"', ':'), value)
	}
	number := func(key, digits string) {
		b = append(append(b, ',', '"'), key...)
		b = append(append(b, '"', ':'), digits...)
	}
	number("schema", strconv.Itoa(s.Schema))
	b[0] = '{'
	str("id", s.ID)
	str("bundle", s.Bundle)
	if s.Rootfs != "" {
		str("rootfs", s.Rootfs)
	}
	str("created", s.Created.Format(time.RFC3339Nano))
	number("owner", strconv.Itoa(s.Owner))
	number("pid", strconv.Itoa(s.Pid))
	number("pidStart", strconv.FormatUint(s.PidStart, 10))
	str("bootId", s.BootID)
	str("cgroupPath", s.CgroupPath)
	if s.SystemdCgroup {
		b = append(b, `,"systemdCgroup":true`...)
	}
	return append(b, '}')
}

// decode is json.Unmarshal into s.
func (s *saved) decode(body []byte) error {
	r := plainjson.New(string(body))
	r.Object(func(key string) bool {
		switch key {
		case "schema":
			plainjson.Signed(r, &s.Schema)
		case "id":
			plainjson.Str(r, &s.ID)
		case "bundle":
			plainjson.Str(r, &s.Bundle)
		case "rootfs":
			plainjson.Str(r, &s.Rootfs)
		case "created":
			var text string
			if plainjson.Str(r, &text); s.Created.UnmarshalText([]byte(text)) != nil {
				return false
			}
		case "owner":
			plainjson.Signed(r, &s.Owner)
		case "pid":
			plainjson.Signed(r, &s.Pid)
		case "pidStart":
			plainjson.Unsigned(r, &s.PidStart)
		case "bootId":
			plainjson.Str(r, &s.BootID)
		case "cgroupPath":
			plainjson.Str(r, &s.CgroupPath)
		case "systemdCgroup":
			plainjson.Flag(r, &s.SystemdCgroup)
		default:
			return false
		}
		return true
	})
	if r.Done() {
		return nil
	}
	*s = saved{}
	return json.Unmarshal(body, s)
}

// saveSpec writes the configuration.
func (c *Container) saveSpec() error { return c.writeJSON(specFile, c.spec) }

// writeJSON replaces a file of the state folder as a whole; a tmpfs needs no sync.
func (c *Container) writeJSON(name string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("save state of %s: %w", c.saved.ID, err)
	}
	return c.write(name, body)
}

// write is writeJSON of bytes.
func (c *Container) write(name string, body []byte) error {
	tmp := filepath.Join(c.dir, "."+name)
	if err := os.WriteFile(tmp, body, 0o600); err != nil {
		return fmt.Errorf("save state of %s: %w", c.saved.ID, err)
	}
	if err := os.Rename(tmp, filepath.Join(c.dir, name)); err != nil {
		return fmt.Errorf("save state of %s: %w", c.saved.ID, err)
	}
	return nil
}

// load reads a container's state. NotFound without a folder or state file,
// DataLoss when a file cannot be understood. The configuration of a container
// whose creator died early is empty.
func load(root, id string) (*saved, *specs.Spec, error) {
	if err := validID(id); err != nil {
		return nil, nil, err
	}
	dir := stateDir(root, id)
	var s saved
	err := read(filepath.Join(dir, stateFile), s.decode)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil, errdefs.ErrNotFound.WithMessage("container " + quote(id) + " does not exist")
	}
	if err == nil && (s.ID != id || s.Schema < 1 || s.Schema > stateSchema) {
		err = fmt.Errorf("damaged state %s: not that of this container in a form this version knows: %w", filepath.Join(dir, stateFile), errdefs.ErrDataLoss)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("load container %s: %w", id, err)
	}
	spec := &specs.Spec{}
	decode := func(body []byte) (err error) {
		spec, err = bundle.Decode(body)
		return err
	}
	if err := read(filepath.Join(dir, specFile), decode); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("load container %s: %w", id, err)
	}
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	return &s, spec, nil
}

func read(name string, decode func([]byte) error) error {
	body, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := decode(body); err != nil {
		return fmt.Errorf("damaged state %s: %w: %w", name, err, errdefs.ErrDataLoss)
	}
	return nil
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

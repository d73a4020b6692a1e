package hostfiles

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const inside = "ORLOP_HOSTFILES_INSIDE"

func TestMain(m *testing.M) {
	if err := Enter(inside); err != nil {
		fmt.Fprintln(os.Stderr, "enter:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// host is the root folder of this test's parent, which has not entered.
func host(t *testing.T) string {
	t.Helper()
	root := fmt.Sprintf("/proc/%d/root", os.Getppid())
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	if err != nil {
		t.Skip("needs root: ", err)
	}
	if ours, _ := os.Readlink("/proc/self/ns/mnt"); os.Getenv(inside) == "" || ours == theirs {
		t.Skip("no permission to make a mount namespace (CAP_SYS_ADMIN)")
	}
	return root
}

// facts are what a test could have changed in files.
func facts(t *testing.T, root string, files ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range files {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, f), &st); err != nil {
			out[f] = err.Error()
			continue
		}
		out[f] = fmt.Sprintf("%o %d:%d %x", st.Mode, st.Uid, st.Gid, st.Rdev)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			b, err := os.ReadFile(filepath.Join(root, f))
			if err != nil {
				t.Fatal(err)
			}
			out[f] += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
	}
	return out
}

func TestWhatIsDoneToDevicesAndUsersStaysInside(t *testing.T) {
	outside := host(t)
	nodes := []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}
	made := []string{"/dev/orlop-test", "/dev/shm/orlop-test", "/etc/orlop-test"}
	changed := slices.Concat(nodes, made, []string{"/etc", "/etc/passwd", "/etc/group", "/etc/shadow"})

	before := facts(t, "/", changed...)
	if diff := cmp.Diff(facts(t, outside, nodes[1:]...), facts(t, "/", nodes[1:]...)); diff != "" {
		t.Errorf("the copies differ from the host's (-host +copy):\n%s", diff)
	}
	for _, f := range nodes {
		chown(t, f, 4321, 1234)
	}
	// As an OCI runtime does it: by the descriptor.
	if err := unix.Fchown(0, 4321, 1234); err != nil {
		t.Error(err)
	}
	for _, f := range made {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	if err := unix.Chmod("/etc", 0o700); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command("useradd", "-r", "orlop-test").CombinedOutput(); err != nil {
		t.Errorf("useradd: %v: %s", err, out)
	}
	t.Cleanup(func() { // for the test's next round
		for _, f := range nodes {
			chown(t, f, 0, 0)
		}
		for _, f := range made {
			_ = os.Remove(f)
		}
		_ = unix.Chmod("/etc", 0o755)
		_ = exec.Command("userdel", "orlop-test").Run()
	})
	inside, theirs := facts(t, "/", changed...), facts(t, outside, changed...)
	for _, f := range changed {
		switch inside[f] {
		case before[f]:
			t.Errorf("%s was not changed inside: %s", f, inside[f])
		case theirs[f]:
			t.Errorf("the host's %s was changed: %s", f, theirs[f])
		}
	}
}

func chown(t *testing.T, name string, uid, gid int) {
	t.Helper()
	if err := unix.Chown(name, uid, gid); err != nil {
		t.Error(err)
	}
}

func TestPrivateDevicesWork(t *testing.T) {
	host(t)
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	n, err := unix.IoctlGetUint32(int(tty.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fmt.Sprintf("/dev/pts/%d", n)); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile("/dev/null", []byte("x"), 0); err != nil {
		t.Error(err)
	}
}

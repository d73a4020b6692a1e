package safepath_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/safepath"
)

// tree makes a root with links that try to lead out, and a folder beside it
// that must stay empty.
func tree(t *testing.T) (root safepath.FD, dir, outside string) {
	t.Helper()
	top := t.TempDir()
	dir, outside = filepath.Join(top, "root"), filepath.Join(top, "outside")
	for _, d := range []string{filepath.Join(dir, "etc"), outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"abs": outside, "up": "../../../../../.." + outside, "dangling": "/made/by/us", "loop": "loop", "in": "etc", "file": "../etc/new",
		"magic": "/proc/self/cwd",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := safepath.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = fd.Close()
		if left, _ := os.ReadDir(outside); len(left) > 0 {
			t.Errorf("something was made outside: %v", left)
		}
	})
	return fd, dir, outside
}

func TestDirectoriesAreMadeBeneathTheRoot(t *testing.T) {
	root, dir, outside := tree(t)
	for name, want := range map[string]string{
		"a/b/c": "a/b/c", "/abs/x": outside + "/x", "up/y": outside + "/y", "dangling/z": "made/by/us/z", "in/sub": "etc/sub",
		"../../q": "q", "a/../r": "r",
	} {
		fd, err := root.MkdirAll(name, 0o755)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got, there unix.Stat_t
		_ = unix.Fstat(int(fd), &got)
		if err := unix.Stat(filepath.Join(dir, want), &there); err != nil || got.Ino != there.Ino {
			t.Errorf("%s is not %s: %v", name, want, err)
		}
		_ = fd.Close()
	}
	if _, err := root.MkdirAll("loop/x", 0o755); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a loop: %v", err)
	}
}

func TestFilesAreMadeBeneathTheRoot(t *testing.T) {
	root, dir, _ := tree(t)
	for name, want := range map[string]string{"n/e/w": "n/e/w", "file": "etc/new", "etc/plain": "etc/plain"} {
		for range 2 { // there or not, it is the same
			fd, err := root.Touch(name, 0o644)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			_ = fd.Close()
		}
		if st, err := os.Stat(filepath.Join(dir, want)); err != nil || !st.Mode().IsRegular() {
			t.Errorf("%s is not %s: %v", name, want, err)
		}
	}
}

func TestReadFileIsBounded(t *testing.T) {
	root, dir, _ := tree(t)
	if err := os.WriteFile(filepath.Join(dir, "etc", "passwd"), []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err := root.ReadFile("etc/passwd", 5); err != nil || string(b) != "12345" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := root.ReadFile("etc/passwd", 4); !errors.Is(err, unix.EFBIG) {
		t.Errorf("too long: %v", err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "etc", "group"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := root.ReadFile("etc/group", 9); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a fifo: %v", err)
	}
}

func TestExactOpensFollowNothing(t *testing.T) {
	root, _, _ := tree(t)
	if _, err := root.OpenExact("in", unix.O_PATH|unix.O_DIRECTORY); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link: %v", err)
	}
	if fd, err := root.OpenExact("etc", unix.O_PATH); err != nil {
		t.Error(err)
	} else {
		_ = fd.Close()
	}
}

package volumedir_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/store/volumedir"
)

func open(t *testing.T, root string) *volumedir.Store {
	t.Helper()
	n := 0
	s, err := volumedir.New(volumedir.Config{
		Root: root,
		Now:  func() time.Time { return time.Unix(1700000000, 0) },
		NewID: func() string {
			n++
			return fmt.Sprintf("%064d", n)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAVolumeIsMadeOnceAndFoundAgain(t *testing.T) {
	ctx, root := context.Background(), filepath.Join(t.TempDir(), "volumes")
	s := open(t, root)
	v, created, err := s.Ensure(ctx, "data", map[string]string{"a": "b"})
	if err != nil || !created || v.Name != "data" || v.Anonymous || v.ID == "" {
		t.Fatalf("%+v %v %v", v, created, err)
	}
	if err := os.WriteFile(filepath.Join(s.Path("data"), "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Another life of the daemon.
	again, created, err := open(t, root).Ensure(ctx, "data", nil)
	if err != nil || created || again.ID != v.ID || again.Labels["a"] != "b" || !again.Created.Equal(v.Created) {
		t.Errorf("%+v %v %v", again, created, err)
	}
	if info, err := os.Stat(s.Path("data")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v %v", info, err)
	}
	if err := s.Remove(ctx, "data"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "data"); !errdefs.IsNotFound(err) {
		t.Errorf("removed twice: %v", err)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAnAnonymousVolumeHasADrawnName(t *testing.T) {
	s := open(t, t.TempDir())
	v, created, err := s.Ensure(context.Background(), "", nil)
	if err != nil || !created || !v.Anonymous || v.Name != v.ID || len(v.Name) != 64 {
		t.Errorf("%+v %v %v", v, created, err)
	}
}

func TestNamesThatLeadElsewhereAreRefused(t *testing.T) {
	s := open(t, t.TempDir())
	for _, name := range []string{"..", "a/b", "/etc", ".hidden", "x", "ä"} {
		if _, _, err := s.Ensure(context.Background(), name, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", name, err)
		}
		if err := s.Remove(context.Background(), name); !errdefs.IsNotFound(err) {
			t.Errorf("remove %q: %v", name, err)
		}
	}
}

func TestAFolderWithoutOurFileIsAVolume(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if err := os.MkdirAll(filepath.Join(root, "restored", "_data"), 0o755); err != nil {
		t.Fatal(err)
	}
	v, created, err := s.Ensure(context.Background(), "restored", nil)
	if err != nil || created || v.Name != "restored" || v.ID == "" {
		t.Errorf("%+v %v %v", v, created, err)
	}
}

func TestSweepRemovesWhatIsHalfMadeAndNothingElse(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if _, _, err := s.Ensure(context.Background(), "kept", nil); err != nil {
		t.Fatal(err)
	}
	for _, half := range []string{".new-1", ".gone-2"} {
		if err := os.MkdirAll(filepath.Join(root, half, "_data"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(root); len(left) != 1 || left[0].Name() != "kept" {
		t.Errorf("left %v", left)
	}
}

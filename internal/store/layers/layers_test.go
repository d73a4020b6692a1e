package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/image"
	"github.com/orlop/orlop/internal/registry/registrytest"
	"github.com/orlop/orlop/internal/store/layers"
	"github.com/orlop/orlop/internal/store/metadata"
)

type store struct {
	*layers.Store
	db *metadata.DB
}

func open(t *testing.T) store {
	t.Helper()
	if err := unix.Setxattr(t.TempDir(), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Skipf("probed: trusted.* attributes: %v", err)
	}
	db, err := metadata.Open(context.Background(), metadata.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	var n atomic.Int64
	s, err := layers.New(layers.Config{
		Content: db.Content(), Snapshots: db.Snapshots(), Name: metadata.Snapshotter, UpperDirLabel: metadata.UpperDirLabel,
		NewID: func() string { return fmt.Sprint(n.Add(1)) }, Parallel: 4,
	})
	if err != nil {
		t.Fatal(err)
	}
	return store{s, db}
}

func (s store) layer(t *testing.T, ctx context.Context, plain []byte) image.Layer {
	t.Helper()
	data := registrytest.Gzip(plain)
	desc := ocispec.Descriptor{MediaType: registrytest.DockerLayer, Digest: digest.FromBytes(data), Size: int64(len(data))}
	err := content.WriteBlob(ctx, s.db.Content(), desc.Digest.String(), bytes.NewReader(data), desc)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return image.Layer{Blob: desc, DiffID: digest.FromBytes(plain)}
}

func leased(t *testing.T, s store) context.Context {
	t.Helper()
	ctx, end, err := s.db.Lease(context.Background(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	return ctx
}

type file = registrytest.File

// However layers arrive, the result is the same: the folder that the second
// leaves out has the mode of the first.
func TestTheOrderOfArrivalDoesNotChangeWhatIsExtracted(t *testing.T) {
	for _, last := range []int{0, 1, 2} {
		t.Run(fmt.Sprintf("layer %d comes last", last), func(t *testing.T) {
			s := open(t)
			ctx := leased(t, s)
			stack := []image.Layer{
				s.layer(t, ctx, registrytest.Tar(file{Name: "d/", Mode: 0o710, Uid: 5}, file{Name: "d/a", Data: "a"})),
				s.layer(t, ctx, registrytest.Tar(file{Name: "d/b", Data: "b"})),
				s.layer(t, ctx, registrytest.Tar(file{Name: "d/", Mode: 0o700, Uid: 6}, file{Name: "d/.wh.a"})),
			}
			others := make(chan struct{}, 2)
			for i := range stack {
				stack[i].Ready = func(ctx context.Context) error {
					if i != last {
						others <- struct{}{}
						return nil
					}
					for range 2 {
						select {
						case <-others:
						case <-ctx.Done():
							return ctx.Err()
						}
					}
					return nil
				}
			}
			chain, err := s.Unpack(ctx, stack, nil)
			if err != nil {
				t.Fatal(err)
			}
			dirs, err := s.Dirs(ctx, chain)
			if err != nil || len(dirs) != 3 {
				t.Fatal(dirs, err)
			}
			for i, want := range []os.FileMode{0o700, 0o710, 0o710} {
				info, err := os.Stat(filepath.Join(dirs[i], "d"))
				if err != nil || info.Mode().Perm() != want {
					t.Fatalf("layer %d: %v %v, want %v", i, info.Mode(), err, want)
				}
			}
		})
	}
}

func TestAFailedUnpackLeavesWhatIsBelowAndNothingElse(t *testing.T) {
	s := open(t)
	ctx := leased(t, s)
	good := s.layer(t, ctx, registrytest.Tar(file{Name: "a", Data: "a"}))
	broken := errors.New("registry is gone")
	never := image.Layer{Blob: ocispec.Descriptor{Digest: digest.FromString("x")}, DiffID: digest.FromString("y"), Ready: func(context.Context) error { return broken }}
	// The bottom is complete before the failure: the order is forced.
	done := make(chan struct{})
	inner := never.Ready
	never.Ready = func(ctx context.Context) error { <-done; return inner(ctx) }
	_, err := s.Unpack(ctx, []image.Layer{good, never}, func(i int, phase image.Phase, _, _ int64) {
		if i == 0 && phase == image.PhaseComplete {
			close(done)
		}
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if has, err := s.Has(ctx, good.DiffID); !has || err != nil {
		t.Fatal(has, err)
	}
	var phases []image.Phase
	if _, err := s.Unpack(ctx, []image.Layer{good}, func(_ int, phase image.Phase, _, _ int64) { phases = append(phases, phase) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(phases, []image.Phase{image.PhaseExists}) {
		t.Fatal(phases)
	}
	if err := s.db.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(s.db.Root(), "snapshots", "snapshots"))
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
}

func TestAWrongDiffIDIsRefused(t *testing.T) {
	s := open(t)
	ctx := leased(t, s)
	layer := s.layer(t, ctx, registrytest.Tar(file{Name: "a", Data: "a"}))
	layer.DiffID = digest.FromString("something else")
	_, err := s.Unpack(ctx, []image.Layer{layer}, nil)
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "wrong diff id calculated on extraction") {
		t.Fatal(err)
	}
	if has, err := s.Has(ctx, layer.DiffID); has || err != nil {
		t.Fatal(has, err)
	}
}

// A layer must neither write outside its folder nor direct the overlay.
func TestALayerCannotReachOut(t *testing.T) {
	s := open(t)
	ctx := leased(t, s)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []*tar.Header{
		{Name: "../up", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: outside},
		{Name: "link/through", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "/abs", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "dir", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{
			"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.kept": "yes",
		}},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	chain, err := s.Unpack(ctx, []image.Layer{s.layer(t, ctx, buf.Bytes())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Fatal("a layer wrote outside its folder", entries, err)
	}
	dirs, err := s.Dirs(ctx, chain)
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 16)
	if _, err := unix.Getxattr(filepath.Join(dirs[0], "dir"), "trusted.overlay.redirect", value); err == nil {
		t.Fatal("an image directs the overlay file system")
	}
	if n, err := unix.Getxattr(filepath.Join(dirs[0], "dir"), "user.kept", value); err != nil || string(value[:n]) != "yes" {
		t.Fatal("an attribute of the image is lost", err)
	}
}

func TestDecompressBelievesTheBytes(t *testing.T) {
	plain := registrytest.Tar(file{Name: "a", Data: "a"})
	for name, data := range map[string][]byte{"plain": plain, "gzip": registrytest.Gzip(plain), "zstd": registrytest.Zstd(plain)} {
		r, err := layers.Decompress(bytes.NewReader(data))
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatal(name, err)
		}
		r.Close()
	}
	if _, err := layers.Decompress(strings.NewReader("\xfd7zXZ\x00 and more")); !errdefs.IsNotImplemented(err) {
		t.Fatal(err)
	}
}

package images_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/registry/registrytest"
)

func (s *stack) save(t *testing.T, refs ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := s.Save(context.Background(), refs, &buf, images.SaveOptions{}); err != nil {
		t.Fatalf("save %v: %v", refs, err)
	}
	return buf.Bytes()
}

func (s *stack) load(t *testing.T, archive []byte) string {
	t.Helper()
	tr := &transcript{}
	if err := s.Load(context.Background(), bytes.NewReader(archive), images.LoadOptions{Quiet: true, Progress: tr.take}); err != nil {
		t.Fatalf("load: %v", err)
	}
	return strings.Join(tr.lines, "\n")
}

// rewrite copies an archive, changing or leaving out (nil) files.
func rewrite(t *testing.T, archive []byte, change func(name string, data []byte) (string, []byte)) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			if header.Name, data = change(header.Name, data); data == nil {
				continue
			}
			header.Size = int64(len(data))
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestWhatIsSavedCanBeLoaded(t *testing.T) {
	r := registrytest.New(t)
	img := redis(r, "7")
	s := newStack(t, t.TempDir())
	name := r.Host() + "/library/redis:7"
	s.pull(t, name)
	if err := s.Tag(context.Background(), name, "mine", "x"); err != nil {
		t.Fatal(err)
	}
	archive := s.save(t, "mine:x", name)
	other := newStack(t, t.TempDir())
	for _, form := range []struct {
		name    string
		archive []byte
	}{
		{"both", archive},
		{"gzip", registrytest.Gzip(archive)},
		{"zstd", registrytest.Zstd(archive)},
		{"docker only", rewrite(t, archive, func(name string, data []byte) (string, []byte) {
			if name == "index.json" || name == "oci-layout" {
				return name, nil
			}
			return name, data
		})},
		{"oci only", rewrite(t, archive, func(name string, data []byte) (string, []byte) {
			if name == "manifest.json" {
				return name, nil
			}
			return name, data
		})},
	} {
		t.Run(form.name, func(t *testing.T) {
			got := strings.Split(other.load(t, form.archive), "\n")
			slices.Sort(got)
			want := fmt.Sprintf("Loaded image: %s\nLoaded image: mine:x", name)
			if strings.Join(got, "\n") != want {
				t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
			}
			found, err := other.Resolve(context.Background(), "mine:x", nil)
			if err != nil || found.ID != img.Config.Digest {
				t.Fatal(found.ID, err)
			}
			if _, err := other.Remove(context.Background(), img.Config.Digest.String(), images.RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestABrokenArchiveChangesNothing(t *testing.T) {
	r := registrytest.New(t)
	redis(r, "7")
	s := newStack(t, t.TempDir())
	s.pull(t, r.Host()+"/library/redis:7")
	good := s.save(t, r.Host()+"/library/redis:7")
	var layer string
	for _, c := range []struct {
		name, says string
		archive    []byte
	}{
		{"no tar", "invalid archive: ", []byte("this is no archive at all, but it is long enough to be a header " + strings.Repeat("x", 1024))},
		{"cut off", "invalid archive: unexpected EOF", good[:len(good)/2+100]},
		{"gzip cut off", "invalid archive: unexpected EOF", registrytest.Gzip(good)[:1500]},
		{"empty", "invalid archive: does not contain a manifest.json", registrytest.Tar()},
		{"bad json", "invalid archive: failed to decode manifest.json", registrytest.Tar(file{Name: "manifest.json", Data: "{"})},
		{"null", "invalid manifest, manifest cannot be null (but can be [])", registrytest.Tar(file{Name: "manifest.json", Data: "null"})},
		{"missing config", `invalid archive: does not contain "c.json"`, registrytest.Tar(file{Name: "manifest.json", Data: `[{"Config":"c.json"}]`})},
		{"escaping config", `invalid archive: does not contain "../../etc/passwd"`, registrytest.Tar(file{Name: "manifest.json", Data: `[{"Config":"../../etc/passwd"}]`})},
		{"bad tag", "invalid reference format", registrytest.Tar(file{Name: "c", Data: `{}`}, file{Name: "manifest.json", Data: `[{"Config":"c","RepoTags":["a b"]}]`})},
		{"wrong blob", "invalid archive: blob sha256:", rewrite(t, good, func(name string, data []byte) (string, []byte) {
			if strings.HasPrefix(name, "blobs/") && !bytes.HasPrefix(data, []byte("{")) {
				return name, append(data[:len(data)-1:len(data)-1], data[len(data)-1]^1)
			}
			return name, data
		})},
		{"missing layer", "invalid archive: does not contain ", rewrite(t, good, func(name string, data []byte) (string, []byte) {
			if name == "index.json" || strings.HasPrefix(name, "blobs/") && !bytes.HasPrefix(data, []byte("{")) && layer == "" {
				if name != "index.json" {
					layer = name
				}
				return name, nil
			}
			return name, data
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			other := newStack(t, t.TempDir())
			err := other.Load(context.Background(), bytes.NewReader(c.archive), images.LoadOptions{Quiet: true})
			if err == nil || !strings.HasPrefix(err.Error(), c.says) || !errdefs.IsInvalidArgument(err) {
				t.Fatalf("got  %v\nwant %s…", err, c.says)
			}
			if n, err := other.Count(context.Background()); n != 0 || err != nil {
				t.Fatal(n, err)
			}
			if err := other.db.Collect(context.Background()); err != nil {
				t.Fatal(err)
			}
			if left := files(t, filepath.Join(other.db.Root(), "content", "blobs")); len(left) != 0 {
				t.Fatalf("blobs are left: %v", left)
			}
		})
	}
}

func TestLoadingOverATagKeepsTheOldImage(t *testing.T) {
	s := newStack(t, t.TempDir())
	archive := func(content string) []byte {
		plain := registrytest.Tar(file{Name: "f", Data: content})
		config, err := json.Marshal(ocispec.Image{
			Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
			RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: digests(plain)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return registrytest.Tar(file{Name: "c.json", Data: string(config)}, file{Name: "l/"}, file{Name: "l/layer.tar", Data: string(plain)},
			file{Name: "manifest.json", Data: `[{"Config":"c.json","RepoTags":["app:1"],"Layers":["l/layer.tar"]}]`})
	}
	if got := s.load(t, archive("one")); got != "Loaded image: app:1" {
		t.Fatal(got)
	}
	old, err := s.Resolve(context.Background(), "app:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("The image app:1 already exists, renaming the old one with ID %s to empty string\nLoaded image: app:1", old.ID)
	if got := s.load(t, archive("two")); got != want {
		t.Fatal(got)
	}
	again, err := s.Resolve(context.Background(), old.ID.String(), nil)
	if err != nil || again.ID != old.ID || again.Name != old.ID.String() {
		t.Fatal(again, err)
	}
	if again, err = s.Resolve(context.Background(), old.ID.Encoded()[:8], nil); err != nil || again.ID != old.ID {
		t.Fatal(again, err)
	}
	// Loading it again gives it its tag back, and nothing is left untagged twice.
	s.load(t, archive("one"))
	if n, err := s.Count(context.Background()); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if got := s.actions(); got != "load load load" {
		t.Fatal(got)
	}
}

func TestImportMakesAnImage(t *testing.T) {
	s := newStack(t, t.TempDir())
	tr := &transcript{}
	id, err := s.Import(context.Background(), images.ImportOptions{
		Source: bytes.NewReader(registrytest.Gzip(registrytest.Tar(file{Name: "bin/"}, file{Name: "bin/sh", Data: "#!"}))),
		Repo:   "base", Message: "from a tar",
		Changes:  []string{`CMD ["/bin/sh"]`, "ENV A=1 B=2", "EXPOSE 80 90-91/udp", "WORKDIR x", `LABEL k="v w"`, "USER 7"},
		Progress: tr.take,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(tr.lines, "\n"); got != id.String() {
		t.Fatal(got)
	}
	got, err := s.Inspect(context.Background(), "base", images.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ports := fmt.Sprint(got.Config.ExposedPorts)
	if got.ID != id.String() || fmt.Sprint(got.RepoTags) != "[base:latest]" || got.Comment != "from a tar" || got.Config.WorkingDir != "/x" ||
		fmt.Sprint(got.Config.Env) != "[A=1 B=2]" || got.Config.Labels["k"] != "v w" || ports != "map[80/tcp:{} 90/udp:{} 91/udp:{}]" ||
		got.Config.User != "7" || got.Architecture != "amd64" || got.Size == 0 || got.GraphDriver.Data["UpperDir"] == "" {
		t.Fatalf("%+v\n%+v", got, got.Config)
	}
	_, err = s.Import(context.Background(), images.ImportOptions{Source: strings.NewReader(""), Changes: []string{"RUN x"}})
	wantError(t, err, errdefs.IsInvalidArgument, "RUN is not a valid change command")
	_, err = s.Import(context.Background(), images.ImportOptions{Source: strings.NewReader(strings.Repeat("junk", 1000)), Repo: "junk"})
	if !errdefs.IsInvalidArgument(err) {
		t.Fatal(err)
	}
	if n, err := s.Count(context.Background()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if got := s.actions(); got != "tag import" {
		t.Fatal(got)
	}
	_ = image.ShortID
}

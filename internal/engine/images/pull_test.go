package images_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/registry/registrytest"
)

type file = registrytest.File

// redis is an image of three layers: the second replaces and removes files of
// the first, the third leaves out the folder of its file.
func redis(r *registrytest.Registry, tag string, more ...registrytest.File) registrytest.Image {
	return r.Add("library/redis", tag, registrytest.Spec{
		Labels: map[string]string{"made": "by hand"}, Cmd: []string{"redis-server"},
		Layers: [][]byte{
			registrytest.Tar(file{Name: "etc/", Mode: 0o750, Uid: 7}, file{Name: "etc/a", Data: "one"}, file{Name: "etc/b", Data: "two"}),
			registrytest.Tar(file{Name: "etc/", Mode: 0o750, Uid: 7}, file{Name: "etc/a", Data: "uno"}, file{Name: "etc/.wh.b"}),
			registrytest.Tar(append([]file{{Name: "etc/c", Data: "three"}}, more...)...),
		},
	})
}

func TestPullSaysWhatDockerSays(t *testing.T) {
	r := registrytest.New(t)
	img := redis(r, "7")
	s := newStack(t, t.TempDir())
	name := r.Host() + "/library/redis:7"
	tr := s.pull(t, name)
	want := fmt.Sprintf("7: Pulling from library/redis\nDigest: %s\nStatus: Downloaded newer image for %s", img.Manifest.Digest, name)
	if got := tr.of(""); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	for _, layer := range img.Layers {
		got := tr.of(image.ShortID(layer.Digest.String()))
		if !strings.HasPrefix(got, "Pulling fs layer\n") || !strings.HasSuffix(got, "Downloading\nVerifying Checksum\nDownload complete\nExtracting\nPull complete") {
			t.Fatalf("layer said\n%s", got)
		}
	}
	tr = s.pull(t, name)
	want = fmt.Sprintf("7: Pulling from library/redis\nDigest: %s\nStatus: Image is up to date for %s", img.Manifest.Digest, name)
	if got := strings.Join(tr.lines, "\n"); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	if got := s.actions(); got != "pull pull" {
		t.Fatal(got)
	}
}

func TestPulledLayersAreWhatTheImageSays(t *testing.T) {
	r := registrytest.New(t)
	img := redis(r, "7")
	s := newStack(t, t.TempDir())
	s.pull(t, r.Host()+"/library/redis:7")
	got, err := s.Resolve(context.Background(), r.Host()+"/library/redis:7", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != img.Config.Digest || got.Manifest.Digest != img.Manifest.Digest || got.Config.Config.Cmd[0] != "redis-server" {
		t.Fatalf("%+v", got)
	}
	dirs, err := s.layers.Dirs(s.db.Context(context.Background()), got.ChainID)
	if err != nil || len(dirs) != 3 {
		t.Fatal(dirs, err)
	}
	if mustRead(t, filepath.Join(dirs[1], "etc/a")) != "uno" || mustRead(t, filepath.Join(dirs[2], "etc/b")) != "two" {
		t.Fatal("files are in the wrong layers")
	}
	whiteout, err := os.Lstat(filepath.Join(dirs[1], "etc/b"))
	if err != nil || whiteout.Mode()&os.ModeCharDevice == 0 {
		t.Fatal("the removed file is no whiteout", whiteout, err)
	}
	// The third layer has etc/c but not etc: it looks as in the layer below.
	etc, err := os.Lstat(filepath.Join(dirs[0], "etc"))
	if err != nil || etc.Mode().Perm() != 0o750 {
		t.Fatal("a folder that a layer leaves out lost its mode", etc, err)
	}
}

func TestPullTakesThePlatformAskedFor(t *testing.T) {
	r := registrytest.New(t)
	arch := func(a string) registrytest.Image {
		return r.Add("multi", "", registrytest.Spec{OCI: true, Platform: ocispec.Platform{OS: "linux", Architecture: a}, Layers: [][]byte{registrytest.Tar(file{Name: "arch", Data: a})}})
	}
	amd, arm := arch("amd64"), arch("arm64")
	r.Index("multi", "latest", arm, amd)
	s := newStack(t, t.TempDir())
	name := r.Host() + "/multi"
	s.pull(t, name)
	got, err := s.Resolve(context.Background(), name, nil)
	if err != nil || got.ID != amd.Config.Digest {
		t.Fatal(got.ID, err)
	}
	if n := len(r.Requests(arm.Layers[0].Digest.String())); n != 0 {
		t.Fatalf("the other platform was downloaded, too")
	}
	_, err = s.Resolve(context.Background(), name, &ocispec.Platform{OS: "linux", Architecture: "arm64"})
	wantError(t, err, errdefs.IsNotFound, fmt.Sprintf("image with reference %s was found but its platform (linux/amd64) does not match the specified platform (linux/arm64)", name))
	err = s.Pull(context.Background(), images.PullOptions{Ref: name, Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err = s.Resolve(context.Background(), name, nil); err != nil || got.ID != arm.Config.Digest {
		t.Fatal(got.ID, err)
	}
	err = s.Pull(context.Background(), images.PullOptions{Ref: name, Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}})
	wantError(t, err, errdefs.IsNotFound, "no matching manifest for linux/s390x in the manifest list entries")
}

func TestPullOfWhatIsNotThereChangesNothing(t *testing.T) {
	r := registrytest.New(t)
	s := newStack(t, t.TempDir())
	tr := &transcript{}
	pull := func(ref string) error {
		return s.Pull(context.Background(), images.PullOptions{Ref: ref, Progress: tr.take})
	}
	wantError(t, pull(r.Host()+"/none:1"), errdefs.IsNotFound, fmt.Sprintf("manifest for %s/none:1 not found: manifest unknown: manifest unknown", r.Host()))
	wantError(t, pull("Bad"), errdefs.IsInvalidArgument, "invalid reference format: repository name (library/Bad) must be lowercase")
	wantError(t, pull("a::b"), errdefs.IsInvalidArgument, "invalid reference format")
	if len(tr.lines) != 0 || s.actions() != "" {
		t.Fatal(tr.lines, s.actions())
	}
	if n, err := s.Count(context.Background()); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

func TestAPullThatFailedGoesOnWhereItStopped(t *testing.T) {
	root := t.TempDir()
	r := registrytest.New(t)
	img := redis(r, "7", file{Name: "big", Data: noise(t, 1<<20)})
	big := img.Layers[2]
	half := big.Size / 2
	r.Do(func() {
		r.Cut[big.Digest] = &registrytest.Cut{At: half, Times: 1}
		r.Hold = make(chan struct{})
	})
	s := newStack(t, root)
	name := r.Host() + "/library/redis:7"
	// The client goes when two layers are there and the third is half there.
	gone := errors.New("client is gone")
	complete, arrived := 0, int64(0)
	err := s.Pull(context.Background(), images.PullOptions{Ref: name, Progress: func(m jsonstream.Message) error {
		if m.Status == string(image.PhaseComplete) {
			complete++
		}
		if m.ID == image.ShortID(big.Digest.String()) && m.Progress != nil {
			arrived = max(arrived, m.Progress.Current)
		}
		if complete == 2 && arrived > 0 {
			return gone
		}
		return nil
	}})
	if !errors.Is(err, gone) {
		t.Fatal(err)
	}
	if _, err := s.Resolve(context.Background(), name, nil); !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
	// Neither garbage collection nor a new daemon takes what has arrived.
	if err := s.db.Collect(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.db.Close()
	s = newStack(t, root)
	if err := s.db.Collect(context.Background()); err != nil {
		t.Fatal(err)
	}
	before := len(r.Requests("/blobs/"))
	tr := s.pull(t, name)
	again := r.Requests("/blobs/")[before:]
	if len(again) != 1 || !strings.Contains(again[0], big.Digest.String()+" bytes=") {
		t.Fatalf("downloaded again: %v\n%s", again, strings.Join(tr.lines, "\n"))
	}
	if got := tr.of(image.ShortID(img.Layers[0].Digest.String())); got != "Already exists" {
		t.Fatal(got)
	}
}

func TestACancelledPullEndsWithItsClient(t *testing.T) {
	r := registrytest.New(t)
	redis(r, "7")
	s := newStack(t, t.TempDir())
	gone := errors.New("client is gone")
	err := s.Pull(context.Background(), images.PullOptions{Ref: r.Host() + "/library/redis:7", Progress: func(m jsonstream.Message) error {
		if m.Status == string(image.PhaseExtracting) {
			return gone
		}
		return nil
	}})
	if !errors.Is(err, gone) {
		t.Fatal(err)
	}
	if n, err := s.Count(context.Background()); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

func TestTwoPullsOfTheSameDownloadOnce(t *testing.T) {
	r := registrytest.New(t)
	img := redis(r, "7")
	s := newStack(t, t.TempDir())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.Pull(context.Background(), images.PullOptions{Ref: r.Host() + "/library/redis:7"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, layer := range img.Layers {
		if n := len(r.Requests(layer.Digest.String())); n != 1 {
			t.Fatalf("layer %s was downloaded %d times", layer.Digest, n)
		}
	}
}

func TestImagesThatShareLayersArePulledAtTheSameTime(t *testing.T) {
	r := registrytest.New(t)
	base := registrytest.Tar(file{Name: "base/"}, file{Name: "base/f", Data: strings.Repeat("x", 1<<16)})
	for i := range 6 {
		r.Add(fmt.Sprintf("app%d", i), "latest", registrytest.Spec{Layers: [][]byte{base, registrytest.Tar(file{Name: "app", Data: fmt.Sprint(i)})}})
	}
	s := newStack(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if err := s.Pull(context.Background(), images.PullOptions{Ref: fmt.Sprintf("%s/app%d", r.Host(), i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n, err := s.Count(context.Background()); n != 6 || err != nil {
		t.Fatal(n, err)
	}
}

func TestALayerThatLiesAboutItsContentLeavesNoImage(t *testing.T) {
	r := registrytest.New(t)
	img := redis(r, "7")
	r.Alias(img.Layers[1].Digest, img.Layers[0].Digest)
	s := newStack(t, t.TempDir())
	err := s.Pull(context.Background(), images.PullOptions{Ref: r.Host() + "/library/redis:7"})
	if err == nil || !strings.Contains(err.Error(), img.Layers[1].Digest.String()) {
		t.Fatal(err)
	}
	if n, err := s.Count(context.Background()); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

func TestAMovedTagLeavesTheOldImageByItsDigest(t *testing.T) {
	r := registrytest.New(t)
	old := redis(r, "7")
	s := newStack(t, t.TempDir())
	name := r.Host() + "/library/redis:7"
	s.pull(t, name)
	next := redis(r, "7", file{Name: "new", Data: "new"})
	s.pull(t, name)
	got, err := s.Resolve(context.Background(), name, nil)
	if err != nil || got.ID != next.Config.Digest {
		t.Fatal(got.ID, err)
	}
	list, err := s.List(context.Background(), images.ListOptions{Filters: image.Filters{"dangling": {"true"}}})
	if err != nil || len(list) != 1 || list[0].ID != old.Config.Digest.String() || len(list[0].RepoTags) != 0 || len(list[0].RepoDigests) != 1 {
		t.Fatalf("%+v %v", list, err)
	}
}

package images_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/image"
	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/registry/registrytest"
)

func digests(tars ...[]byte) (ids []digest.Digest) {
	for _, data := range tars {
		ids = append(ids, digest.FromBytes(data))
	}
	return ids
}

func removed(gone []imagetypes.DeleteResponse) string {
	var out []string
	for _, one := range gone {
		if one.Untagged != "" {
			out = append(out, "untagged "+one.Untagged)
		} else {
			out = append(out, "deleted "+image.ShortID(one.Deleted))
		}
	}
	return strings.Join(out, "\n")
}

func TestTheLastNameTakesTheImageAndItsSpaceWithIt(t *testing.T) {
	r := registrytest.New(t)
	img := redis(r, "7")
	s := newStack(t, t.TempDir())
	ctx := context.Background()
	name := r.Host() + "/library/redis:7"
	s.pull(t, name)
	if err := s.Tag(ctx, name, "mine", ""); err != nil {
		t.Fatal(err)
	}
	gone, err := s.Remove(ctx, "mine", images.RemoveOptions{})
	if err != nil || removed(gone) != "untagged mine:latest" {
		t.Fatal(removed(gone), err)
	}
	found, err := s.Resolve(ctx, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	gone, err = s.Remove(ctx, name, images.RemoveOptions{})
	want := fmt.Sprintf("untagged %s\nuntagged %s/library/redis@%s\ndeleted %s\ndeleted %s", name, r.Host(), img.Manifest.Digest,
		image.ShortID(img.Config.Digest.String()), image.ShortID(found.ChainID.String()))
	if err != nil || !strings.HasPrefix(removed(gone), want) || len(gone) != 6 {
		t.Fatalf("%s\n%v\nwant\n%s", removed(gone), err, want)
	}
	root := s.db.Root()
	if left := append(files(t, filepath.Join(root, "content", "blobs")), files(t, filepath.Join(root, "snapshots", "snapshots"))...); len(left) != 0 {
		t.Fatalf("left: %v", left)
	}
	_, err = s.Remove(ctx, name, images.RemoveOptions{})
	wantError(t, err, errdefs.IsNotFound, "No such image: "+name)
	if got := s.actions(); got != "pull tag untag untag untag delete" {
		t.Fatal(got)
	}
}

func TestAnImageInUseStays(t *testing.T) {
	r := registrytest.New(t)
	img := redis(r, "7")
	s := newStack(t, t.TempDir())
	ctx := context.Background()
	name := r.Host() + "/library/redis:7"
	s.pull(t, name)
	id := img.Config.Digest
	short := image.ShortID(id.String())
	use := strings.Repeat("c", 64)
	s.uses[id] = []images.Use{{ContainerID: use, Running: true}}

	_, err := s.Remove(ctx, name, images.RemoveOptions{})
	wantError(t, err, errdefs.IsConflict, fmt.Sprintf(`conflict: unable to remove repository reference %q (must force) - container cccccccccccc is using its referenced image %s`, name, short))
	_, err = s.Remove(ctx, short, images.RemoveOptions{Force: true})
	wantError(t, err, errdefs.IsConflict, fmt.Sprintf("conflict: unable to delete %s (cannot be forced) - image is being used by running container cccccccccccc", short))
	s.uses[id] = []images.Use{{ContainerID: use}}
	_, err = s.Remove(ctx, id.String(), images.RemoveOptions{})
	wantError(t, err, errdefs.IsConflict, fmt.Sprintf("conflict: unable to delete %s (must be forced) - image is being used by stopped container cccccccccccc", short))
	report, err := s.Prune(ctx, image.Filters{"dangling": {"false"}})
	if err != nil || len(report.ImagesDeleted) != 0 {
		t.Fatal(report, err)
	}
	if err := s.Tag(ctx, name, "other", ""); err != nil {
		t.Fatal(err)
	}
	s.uses[id] = nil
	_, err = s.Remove(ctx, short, images.RemoveOptions{})
	wantError(t, err, errdefs.IsConflict, fmt.Sprintf("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short))
}

// The layers under a container outlive the image's removal by force.
func TestAContainerKeepsItsLayersWhenTheImageIsForcedAway(t *testing.T) {
	r := registrytest.New(t)
	redis(r, "7")
	s := newStack(t, t.TempDir())
	ctx := context.Background()
	name := r.Host() + "/library/redis:7"
	s.pull(t, name)
	img, err := s.Resolve(ctx, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	id := newID()
	if err := s.containers.Create(ctx, container.Record{ID: id, Name: "web"}, container.ImageUse{ID: img.ID, Manifest: img.Manifest.Digest, ChainID: img.ChainID}); err != nil {
		t.Fatal(err)
	}
	s.uses[img.ID] = []images.Use{{ContainerID: id}}
	if _, err := s.Remove(ctx, name, images.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	rootfs, err := s.containers.Rootfs(ctx, id)
	if err != nil || mustRead(t, filepath.Join(rootfs.Lower[0], "etc/c")) != "three" {
		t.Fatal(rootfs, err)
	}
	if err := s.containers.Delete(ctx, id); err != nil {
		t.Fatal(err)
	}
	if err := s.containers.ReleaseUnused(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if left := files(t, filepath.Join(s.db.Root(), "snapshots", "snapshots")); len(left) != 0 {
		t.Fatalf("left: %v", left)
	}
}

func TestListFilters(t *testing.T) {
	r := registrytest.New(t)
	s := newStack(t, t.TempDir())
	ctx := context.Background()
	for i, name := range []string{"old", "mid", "new"} {
		r.Add("app/"+name, "1", registrytest.Spec{
			Created: time.Unix(int64(1700000000+i), 0).UTC(), Labels: map[string]string{"name": name},
			Layers: [][]byte{registrytest.Tar(file{Name: "base", Data: strings.Repeat("b", 10000)}), registrytest.Tar(file{Name: "f", Data: name})},
		})
		s.pull(t, r.Host()+"/app/"+name+":1")
	}
	if _, err := s.Import(ctx, images.ImportOptions{Source: strings.NewReader(string(registrytest.Tar(file{Name: "x"})))}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		filters image.Filters
		want    string
	}{
		{nil, "none new mid old"},
		{image.Filters{"dangling": {"true"}}, "none"},
		{image.Filters{"dangling": {"false"}}, "new mid old"},
		{image.Filters{"before": {r.Host() + "/app/new:1"}}, "mid old"},
		{image.Filters{"since": {r.Host() + "/app/old:1"}, "until": {"1700000100"}}, "new mid"},
		{image.Filters{"label": {"name=mid"}}, "mid"},
		{image.Filters{"label": {"name"}}, "new mid old"},
		{image.Filters{"label!": {"name=mid"}}, "none new old"},
		{image.Filters{"reference": {r.Host() + "/app/m*"}}, "mid"},
		{image.Filters{"reference": {r.Host() + "/*/*:1"}}, "new mid old"},
		{image.Filters{"until": {"2023-11-14T22:13:21Z"}}, "old"},
	} {
		list, err := s.List(ctx, images.ListOptions{Filters: c.filters, SharedSize: true})
		if err != nil {
			t.Fatal(c.filters, err)
		}
		var got []string
		for _, one := range list {
			name := one.Labels["name"]
			if name == "" {
				name = "none"
			} else if one.SharedSize < 10000 || one.SharedSize >= one.Size {
				t.Fatalf("%s: size %d, shared %d", name, one.Size, one.SharedSize)
			}
			got = append(got, name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v: got %v, want %s", c.filters, got, c.want)
		}
	}
	_, err := s.List(ctx, images.ListOptions{Filters: image.Filters{"color": {"red"}}})
	wantError(t, err, errdefs.IsInvalidArgument, "invalid filter 'color'")
	_, err = s.List(ctx, images.ListOptions{Filters: image.Filters{"dangling": {"maybe"}}})
	wantError(t, err, errdefs.IsInvalidArgument, "invalid filter 'dangling=[maybe]'")

	history, err := s.History(ctx, r.Host()+"/app/mid:1", nil)
	if err != nil || len(history) != 2 || history[0].CreatedBy != "step 1" || history[1].Size < 10000 || history[1].ID != "<missing>" {
		t.Fatalf("%+v %v", history, err)
	}
	report, err := s.Prune(ctx, nil)
	if err != nil || len(report.ImagesDeleted) != 2 || report.SpaceReclaimed == 0 {
		t.Fatalf("%+v %v", report, err)
	}
}

func TestMalformedNamesAreRefused(t *testing.T) {
	s := newStack(t, t.TempDir())
	ctx := context.Background()
	_, err := s.Resolve(ctx, "a::b", nil)
	wantError(t, err, errdefs.IsInvalidArgument, "invalid reference format")
	_, err = s.Resolve(ctx, "nothing", nil)
	wantError(t, err, errdefs.IsNotFound, "No such image: nothing:latest")
	_, err = s.Inspect(ctx, "sha256:"+strings.Repeat("a", 64), images.InspectOptions{})
	wantError(t, err, errdefs.IsNotFound, "No such image: sha256:"+strings.Repeat("a", 64))
	wantError(t, s.Tag(ctx, "nothing", "ok", ""), errdefs.IsNotFound, "No such image: nothing:latest")
	wantError(t, s.Tag(ctx, "nothing", "a@sha256:"+strings.Repeat("a", 64), ""), errdefs.IsInvalidArgument, "refusing to create a tag with a digest reference")
}

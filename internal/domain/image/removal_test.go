package image_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"github.com/orlop/orlop/internal/domain/image"
)

const (
	id  = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	dgs = "@sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

func refs(t *testing.T, names ...string) (out []reference.Named) {
	t.Helper()
	for _, name := range names {
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ref)
	}
	return out
}

func TestPlanRemoval(t *testing.T) {
	stopped := []image.ContainerUse{{ContainerID: strings.Repeat("c", 64)}}
	running := []image.ContainerUse{{ContainerID: strings.Repeat("c", 64), Running: true}}
	for _, c := range []struct {
		name  string
		asked string
		refs  []string
		uses  []image.ContainerUse
		force bool
		want  string
		fails string
	}{
		{name: "last tag", asked: "a:1", refs: []string{"a:1"}, want: "untag a:1\ndelete\n"},
		{name: "last tag and its digest", asked: "a:1", refs: []string{"a:1", "a" + dgs}, want: "untag a:1\nuntag a" + dgs + "\ndelete\n"},
		{name: "one of two tags", asked: "a:1", refs: []string{"a:1", "a:2", "a" + dgs}, want: "untag a:1\n"},
		{name: "last tag of one of two repositories", asked: "a:1", refs: []string{"a:1", "a" + dgs, "b:1"}, want: "untag a:1\nuntag a" + dgs + "\n"},
		{name: "a digest", asked: "a" + dgs, refs: []string{"a" + dgs, "a:1"}, want: "untag a" + dgs + "\n"},
		{name: "by id", asked: "1111", refs: []string{"a:1", "a" + dgs}, want: "untag a:1\nuntag a" + dgs + "\ndelete\n"},
		{name: "untagged by id", asked: "1111", want: "delete\n"},
		{name: "by id in two repositories", asked: "1111", refs: []string{"a:1", "b:1"},
			fails: "conflict: unable to delete 111111111111 (must be forced) - image is referenced in multiple repositories"},
		{name: "by id with two tags", asked: "1111", refs: []string{"a:1", "a:2"},
			fails: "conflict: unable to delete 111111111111 (must be forced) - image is referenced in multiple repositories"},
		{name: "by id in two repositories, forced", asked: "1111", refs: []string{"a:1", "b:1"}, force: true, want: "untag a:1\nuntag b:1\ndelete\n"},
		{name: "used, by name", asked: "a:1", refs: []string{"a:1"}, uses: stopped,
			fails: `conflict: unable to remove repository reference "a:1" (must force) - container cccccccccccc is using its referenced image 111111111111`},
		{name: "used, one of two names", asked: "a:1", refs: []string{"a:1", "b:1"}, uses: running, want: "untag a:1\n"},
		{name: "used by stopped, by name, forced", asked: "a:1", refs: []string{"a:1"}, uses: stopped, force: true, want: "untag a:1\ndelete\n"},
		{name: "used by running, by name, forced", asked: "a:1", refs: []string{"a:1"}, uses: running, force: true, want: "untag a:1\n"},
		{name: "used by stopped, by id", asked: "1111", refs: []string{"a:1"}, uses: stopped,
			fails: "conflict: unable to delete 111111111111 (must be forced) - image is being used by stopped container cccccccccccc"},
		{name: "used by stopped, by id, forced", asked: "1111", refs: []string{"a:1"}, uses: stopped, force: true, want: "untag a:1\ndelete\n"},
		{name: "used by running, by id, forced", asked: "1111", refs: []string{"a:1"}, uses: running, force: true,
			fails: "conflict: unable to delete 111111111111 (cannot be forced) - image is being used by running container cccccccccccc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			request := image.RemovalRequest{Asked: c.asked, ID: id, References: refs(t, c.refs...), Uses: c.uses, Force: c.force}
			if c.asked != "1111" {
				request.Name = refs(t, c.asked)[0]
			}
			plan, err := image.PlanRemoval(request)
			if c.fails != "" {
				if err == nil || err.Error() != c.fails || !errdefs.IsConflict(err) {
					t.Fatalf("got  %v\nwant %s", err, c.fails)
				}
				return
			}
			if err != nil || plan.String() != c.want {
				t.Fatalf("got\n%s%v\nwant\n%s", plan, err, c.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, tag, want, fails string }{
		{name: "redis", want: "docker.io/library/redis"},
		{name: "redis", tag: "7", want: "docker.io/library/redis:7"},
		{name: "redis:6", tag: "7", want: "docker.io/library/redis:7"},
		{name: "redis", tag: id, want: "docker.io/library/redis@" + id},
		{name: "redis:7@" + id, want: "docker.io/library/redis@" + id},
		{name: "127.0.0.1:5000/a/b:c", want: "127.0.0.1:5000/a/b:c"},
		{name: "Redis", fails: "invalid reference format: repository name (library/Redis) must be lowercase"},
		{name: "a b", fails: "invalid reference format"},
		{name: "a", tag: "x y", fails: "invalid tag format"},
	} {
		got, err := image.Parse(c.name, c.tag)
		if c.fails != "" {
			if err == nil || err.Error() != c.fails || !errdefs.IsInvalidArgument(err) {
				t.Errorf("Parse(%q, %q): got %v, want %s", c.name, c.tag, err, c.fails)
			}
			continue
		}
		if err != nil || got.String() != c.want {
			t.Errorf("Parse(%q, %q) = %v, %v, want %s", c.name, c.tag, got, err, c.want)
		}
	}
	if _, err := image.Parse("scratch", ""); err == nil || err.Error() != "'scratch' is a reserved name" || !errdefs.IsPermissionDenied(err) {
		t.Error(err)
	}
}

func TestNamesOfUntaggedImagesCannotBeWritten(t *testing.T) {
	name := image.UntaggedName(id)
	if _, ok := image.ParseStored(name); ok {
		t.Fatal("an untagged image has a reference")
	}
	q, err := image.ParseQuery(name)
	if err != nil || q.Name.String() == name {
		t.Fatal(q, err)
	}
}

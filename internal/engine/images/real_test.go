package images_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/testkit"
)

// skopeo knows nothing of us: what it puts into a registry and what it reads
// of our archives is what others do.
func TestARealImageGoesThroughSkopeoRegistryAndArchive(t *testing.T) {
	host := distribution(t)
	tar := testkit.Image(t, "redis")
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("skopeo", append([]string{"--insecure-policy"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("copy", "-q", "--dest-tls-verify=false", "docker-archive:"+tar, "docker://"+host+"/redis:latest")
	s := newStack(t, t.TempDir())
	ctx := context.Background()
	s.pull(t, host+"/redis")
	pulled, err := s.Resolve(ctx, host+"/redis", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := run("inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+host+"/redis:latest")
	if pulled.Target.Digest.String() != strings.TrimSpace(want) {
		t.Fatalf("digest %s, skopeo says %s", pulled.Target.Digest, want)
	}
	// The same image, loaded from the archive it came from, is the same.
	other := newStack(t, t.TempDir())
	file, err := os.Open(tar)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := other.Load(ctx, file, images.LoadOptions{Quiet: true}); err != nil {
		t.Fatal(err)
	}
	loaded, err := other.Resolve(ctx, pulled.ID.String(), nil)
	if err != nil || loaded.ChainID != pulled.ChainID {
		t.Fatal(loaded.ChainID, pulled.ChainID, err)
	}
	// And what we save, skopeo can read.
	saved := filepath.Join(t.TempDir(), "saved.tar")
	if err := os.WriteFile(saved, s.save(t, host+"/redis"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("copy", "-q", "--dest-tls-verify=false", "docker-archive:"+saved, "docker://"+host+"/again:1")
	run("copy", "-q", "--dest-tls-verify=false", "oci-archive:"+saved, "docker://"+host+"/again:2")
	for _, tag := range []string{":1", ":2"} {
		s.pull(t, host+"/again"+tag)
		if again, err := s.Resolve(ctx, host+"/again"+tag, nil); err != nil || again.ID != pulled.ID {
			t.Fatal(again.ID, pulled.ID, err)
		}
	}
}

// Layers come out of Debian's tar and out of ours the same.
func TestALayerIsExtractedAsTarDoes(t *testing.T) {
	s := newStack(t, t.TempDir())
	source := testkit.Image(t, "debian")
	ctx := context.Background()
	file, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tr := &transcript{}
	if err := s.Load(ctx, file, images.LoadOptions{Quiet: true, Progress: tr.take}); err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(tr.lines[0], "Loaded image: ")
	got, err := s.Resolve(ctx, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := s.layers.Dirs(s.db.Context(ctx), got.ChainID)
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(s.db.Root(), "content", "blobs", "sha256")
	var manifest ocispec.Manifest
	if err := json.Unmarshal([]byte(mustRead(t, filepath.Join(blob, got.Manifest.Digest.Encoded()))), &manifest); err != nil {
		t.Fatal(err)
	}
	bottom := manifest.Layers[0].Digest.Encoded()
	theirs := t.TempDir()
	out, err := exec.Command("tar", "--numeric-owner", "-xpf", filepath.Join(blob, bottom), "-C", theirs).CombinedOutput()
	if err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	ours := describe(t, dirs[len(dirs)-1])
	if want := describe(t, theirs); !slices.Equal(ours, want) {
		for i := range want {
			if i >= len(ours) || ours[i] != want[i] {
				t.Fatalf("first difference:\nours   %v\ntheirs %v", ours[min(i, len(ours)-1)], want[i])
			}
		}
		t.Fatalf("ours has %d entries, theirs %d", len(ours), len(want))
	}
	if len(ours) < 1000 {
		t.Fatalf("only %d entries compared", len(ours))
	}
}

// describe lists name, mode, owner, size, time and link of everything in dir.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	out, err := exec.Command("find", dir, "-mindepth", "1", "-printf", `%P %y %#m %U:%G %s %TY-%Tm-%Td %TH:%TM:%TS %n %l\n`).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, line := range lines {
		// A folder's size is the file system's business.
		if fields := strings.SplitN(line, " ", 6); len(fields) == 6 && fields[1] == "d" {
			fields[4] = "-"
			lines[i] = strings.Join(fields, " ")
		}
	}
	slices.Sort(lines)
	return lines
}

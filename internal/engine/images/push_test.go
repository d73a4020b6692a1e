package images_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/registry/registrytest"
	"github.com/orlop/orlop/internal/testkit"
)

// distribution starts Debian's docker-registry on loopback: what most
// registries are made of, and it checks what is pushed to it.
func distribution(t *testing.T) string {
	t.Helper()
	needLayers(t)
	program := filepath.Join(testkit.Peer(t, "registry"), "usr/bin/docker-registry")
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	for tries := 1; ; tries++ {
		host := freeAddress(t)
		text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: '%s'}\n", dir, host)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		ended := testkit.StartBound(t, exec.Command(program, "serve", config))
		answered := false
		testkit.Eventually(t, func() error {
			select {
			case <-ended: // another process took the address first
				return nil
			default:
			}
			resp, err := http.Get("http://" + host + "/v2/")
			if err != nil {
				return err
			}
			answered = true
			return resp.Body.Close()
		})
		// Who else had the address would have ended it.
		select {
		case <-ended:
			answered = false
		default:
		}
		if answered {
			return host
		}
		if tries == 3 {
			t.Fatal("no registry: three addresses were taken, or it does not start")
		}
	}
}

// freeAddress is an address that nobody listens at now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestWhatIsPushedCanBePulledFromARealRegistry(t *testing.T) {
	r := registrytest.New(t)
	img := redis(r, "7")
	host := distribution(t)
	s := newStack(t, t.TempDir())
	ctx := context.Background()
	s.pull(t, r.Host()+"/library/redis:7")
	name := host + "/mine/redis"
	if err := s.Tag(ctx, r.Host()+"/library/redis:7", name, "1"); err != nil {
		t.Fatal(err)
	}
	tr := &transcript{}
	if err := s.Push(ctx, images.PushOptions{Ref: name, Tag: "1", Progress: tr.take}); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("The push refers to repository [%s]\n1: digest: %s size: %d\n", name, img.Manifest.Digest, img.Manifest.Size)
	if got := tr.of(""); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	tr = &transcript{}
	if err := s.Push(ctx, images.PushOptions{Ref: name, Progress: tr.take}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(strings.Join(tr.lines, "\n"), "Layer already exists"); n != 3 {
		t.Fatal(tr.lines)
	}
	other := newStack(t, t.TempDir())
	other.pull(t, name+":1")
	got, err := other.Inspect(ctx, name+":1", images.InspectOptions{})
	if err != nil || got.ID != img.Config.Digest.String() || fmt.Sprint(got.RepoDigests) != fmt.Sprintf("[%s@%s]", name, img.Manifest.Digest) {
		t.Fatalf("%+v %v", got, err)
	}
	other.pull(t, name+"@"+img.Manifest.Digest.String())
	err = other.Pull(ctx, images.PullOptions{Ref: name + ":2"})
	wantError(t, err, errdefs.IsNotFound, fmt.Sprintf("manifest for %s:2 not found: manifest unknown: manifest unknown", name))
	wantError(t, s.Push(ctx, images.PushOptions{Ref: "nothing"}), errdefs.IsNotFound, "An image does not exist locally with the tag: nothing")
	wantError(t, s.Push(ctx, images.PushOptions{Ref: "nothing", Tag: "x"}), errdefs.IsNotFound, "tag does not exist: nothing:x")
	if err := other.Pull(ctx, images.PullOptions{Ref: name, All: true}); err != nil {
		t.Fatal(err)
	}
}

package remote_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
	"github.com/orlop/orlop/internal/registry/registrytest"
	"github.com/orlop/orlop/internal/registry/remote"
)

// instant is a clock on which waiting takes no time.
func instant(time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- time.Time{}
	return c
}

func open(t *testing.T, name string, auth *registry.AuthConfig, cfg remote.Config) (*remote.Repository, reference.Named) {
	t.Helper()
	cfg.After = instant
	client, err := remote.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := image.Parse(name, "")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := client.Open(context.Background(), ref, image.Access{Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	return repo, reference.TagNameOnly(ref)
}

func newStore(t *testing.T) content.Store {
	t.Helper()
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func noise(t *testing.T, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestMissingImagesHaveDockersWordsAndClass(t *testing.T) {
	r := registrytest.New(t)
	r.Add("there", "latest", registrytest.Spec{})
	repo, ref := open(t, r.Host()+"/there:nope", nil, remote.Config{})
	_, _, err := repo.Resolve(context.Background(), ref)
	want := fmt.Sprintf("manifest for %s/there:nope not found: manifest unknown: manifest unknown", r.Host())
	if err == nil || err.Error() != want || !errdefs.IsNotFound(err) {
		t.Fatalf("got %v\nwant %s", err, want)
	}
}

func TestARefusedConnectionIsNoMissingImage(t *testing.T) {
	host := registrytest.Nobody(t)
	repo, ref := open(t, host+"/x", nil, remote.Config{})
	_, _, err := repo.Resolve(context.Background(), ref)
	want := fmt.Sprintf(`Get "http://%s/v2/": dial tcp %s: connect: connection refused`, host, host)
	if err == nil || err.Error() != want || errdefs.IsNotFound(err) {
		t.Fatalf("got %v\nwant %s", err, want)
	}
}

func TestSchema1IsRefusedWithDockersWords(t *testing.T) {
	r := registrytest.New(t)
	r.Manifest("old", "latest", "application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1}`))
	repo, ref := open(t, r.Host()+"/old", nil, remote.Config{})
	_, _, err := repo.Resolve(context.Background(), ref)
	if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed.") {
		t.Fatal(err)
	}
}

func TestAManifestThatIsNotWhatItsDigestSaysIsRefused(t *testing.T) {
	r := registrytest.New(t)
	good := r.Add("x", "latest", registrytest.Spec{})
	r.Manifest("x", good.Manifest.Digest.String(), registrytest.DockerManifest, []byte(`{"schemaVersion":2}`))
	repo, ref := open(t, r.Host()+"/x@"+good.Manifest.Digest.String(), nil, remote.Config{})
	_, _, err := repo.Resolve(context.Background(), ref)
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "verification failed") {
		t.Fatal(err)
	}
}

func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		name   string
		bearer string
		auth   *registry.AuthConfig
		fails  string
		class  func(error) bool
	}{
		{name: "basic", auth: &registry.AuthConfig{Username: "ann", Password: "secret"}},
		{name: "basic in the auth field", auth: &registry.AuthConfig{Auth: "YW5uOnNlY3JldA=="}},
		{name: "bearer", bearer: "tok", auth: &registry.AuthConfig{Username: "ann", Password: "secret"}},
		{name: "registry token", bearer: "tok", auth: &registry.AuthConfig{RegistryToken: "tok"}},
		{name: "basic without", fails: "no basic auth credentials", class: errdefs.IsUnknown},
		{name: "basic wrong", auth: &registry.AuthConfig{Username: "ann", Password: "bad"}, fails: "unauthorized: authentication required", class: errdefs.IsUnauthorized},
		{name: "bearer wrong", bearer: "tok", auth: &registry.AuthConfig{Username: "ann", Password: "bad"}, fails: "unauthorized: incorrect username or password", class: errdefs.IsUnauthorized},
		{name: "bearer without", bearer: "tok", fails: "pull access denied for HOST/x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", class: errdefs.IsNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := registrytest.New(t)
			r.User, r.Password, r.Bearer = "ann", "secret", c.bearer
			r.Add("x", "latest", registrytest.Spec{})
			repo, ref := open(t, r.Host()+"/x", c.auth, remote.Config{})
			_, _, err := repo.Resolve(context.Background(), ref)
			if c.fails == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			want := strings.ReplaceAll(c.fails, "HOST", r.Host())
			if err == nil || !strings.HasSuffix(err.Error(), want) || !c.class(err) {
				t.Fatalf("got %v\nwant %s", err, want)
			}
		})
	}
}

func TestAnonymousTokens(t *testing.T) {
	r := registrytest.New(t)
	r.Bearer = "tok"
	r.Add("x", "latest", registrytest.Spec{})
	repo, ref := open(t, r.Host()+"/x", nil, remote.Config{})
	if _, _, err := repo.Resolve(context.Background(), ref); err != nil {
		t.Fatal(err)
	}
}

func fetch(ctx context.Context, repo *remote.Repository, desc ocispec.Descriptor, store content.Store, retried *atomic.Int32) error {
	return repo.Fetch(ctx, desc, store, image.FetchOptions{Retry: func(int, error) { retried.Add(1) }})
}

func TestABlobThatBreaksOffGoesOnWhereItStopped(t *testing.T) {
	r := registrytest.New(t)
	blob := r.Blob(registrytest.DockerLayer, noise(t, 3<<20))
	r.Cut[blob.Digest] = &registrytest.Cut{At: 1 << 20, Times: 1}
	repo, _ := open(t, r.Host()+"/x", nil, remote.Config{})
	store := newStore(t)
	var retried atomic.Int32
	if err := fetch(context.Background(), repo, blob, store, &retried); err != nil {
		t.Fatal(err)
	}
	if got := r.Requests("/blobs/"); len(got) != 2 || !strings.HasSuffix(got[1], "bytes=1048576-") {
		t.Fatal(got)
	}
	if _, err := content.ReadBlob(context.Background(), store, blob); err != nil {
		t.Fatal(err)
	}
}

func TestARegistryThatDiesInMidBlobIsGivenUpAndLaterResumed(t *testing.T) {
	for _, noRange := range []bool{false, true} {
		t.Run(fmt.Sprintf("noRange=%v", noRange), func(t *testing.T) {
			r := registrytest.New(t)
			r.NoRange = noRange
			blob := r.Blob(registrytest.DockerLayer, noise(t, 2<<20))
			r.Cut[blob.Digest] = &registrytest.Cut{At: 1 << 20, Times: -1}
			repo, _ := open(t, r.Host()+"/x", nil, remote.Config{Attempts: 3})
			store := newStore(t)
			var retried atomic.Int32
			err := fetch(context.Background(), repo, blob, store, &retried)
			if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("download blob %s of %s/x: ", blob.Digest, r.Host())) {
				t.Fatal(err)
			}
			if _, err := store.Info(context.Background(), blob.Digest); !errdefs.IsNotFound(err) {
				t.Fatalf("half a blob was committed: %v", err)
			}
			r.Do(func() { delete(r.Cut, blob.Digest) })
			if err := fetch(context.Background(), repo, blob, store, &retried); err != nil {
				t.Fatal(err)
			}
			requests := r.Requests("/blobs/")
			if last := requests[len(requests)-1]; !strings.HasSuffix(last, "bytes=1048576-") {
				t.Fatal(requests)
			}
		})
	}
}

func TestACancelledDownloadKeepsWhatHasArrived(t *testing.T) {
	r := registrytest.New(t)
	blob := r.Blob(registrytest.DockerLayer, noise(t, 2<<20))
	r.Cut[blob.Digest] = &registrytest.Cut{At: 1 << 20, Times: 1}
	r.Hold = make(chan struct{})
	repo, _ := open(t, r.Host()+"/x", nil, remote.Config{})
	store := newStore(t)
	ctx, cancel := context.WithCancel(context.Background())
	err := repo.Fetch(ctx, blob, store, image.FetchOptions{Progress: func(done int64) {
		if done == 1<<20 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := repo.Fetch(context.Background(), blob, store, image.FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := r.Requests("bytes=1048576-"); len(got) != 1 {
		t.Fatal(r.Requests("/blobs/"))
	}
}

func TestABlobThatIsNotWhatItsDigestSaysLeavesNothing(t *testing.T) {
	r := registrytest.New(t)
	blob := r.Blob(registrytest.DockerLayer, noise(t, 1<<20))
	wrong := blob
	wrong.Digest = digest.FromBytes(noise(t, 16))
	r.Alias(wrong.Digest, blob.Digest)
	repo, _ := open(t, r.Host()+"/x", nil, remote.Config{})
	store := newStore(t)
	err := repo.Fetch(context.Background(), wrong, store, image.FetchOptions{})
	if err == nil || err.Error() != "filesystem layer verification failed for digest "+wrong.Digest.String() {
		t.Fatal(err)
	}
	left, err := store.ListStatuses(context.Background())
	if err != nil || len(left) != 0 {
		t.Fatal(left, err)
	}
}

func TestTagsAreListed(t *testing.T) {
	r := registrytest.New(t)
	r.Add("x", "a", registrytest.Spec{})
	r.Add("x", "b", registrytest.Spec{})
	repo, _ := open(t, r.Host()+"/x", nil, remote.Config{})
	tags, err := repo.Tags(context.Background())
	if err != nil || fmt.Sprint(tags) != "[a b]" {
		t.Fatal(tags, err)
	}
	repo, _ = open(t, r.Host()+"/y", nil, remote.Config{})
	if _, err := repo.Tags(context.Background()); !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
}

func TestServerErrorsAreReportedAsDockerDoes(t *testing.T) {
	r := registrytest.New(t)
	r.Status = 503
	repo, ref := open(t, r.Host()+"/x", nil, remote.Config{})
	_, _, err := repo.Resolve(context.Background(), ref)
	if err == nil || err.Error() != "received unexpected HTTP status: 503 Service Unavailable" {
		t.Fatal(err)
	}
}

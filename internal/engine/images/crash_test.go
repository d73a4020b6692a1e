package images_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/orlop/orlop/internal/domain/image"
	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/registry/registrytest"
)

// TestHelperPull is no test: it is the daemon that the crash tests kill. It
// pulls and tells on its standard output how far it is, and goes on from there when
// it has read a byte.
func TestHelperPull(t *testing.T) {
	ref := os.Getenv("ORLOP_TEST_PULL")
	if ref == "" {
		t.Skip("only run by other tests")
	}
	s, err := openStack(os.Getenv("ORLOP_TEST_ROOT"))
	if err != nil {
		t.Fatal(err)
	}
	err = s.Pull(context.Background(), images.PullOptions{Ref: ref, Progress: func(m jsonstream.Message) error {
		var done int64
		if m.Progress != nil {
			done = m.Progress.Current
		}
		if _, err := fmt.Printf("helper %s %s %d\n", m.ID, strings.ReplaceAll(m.Status, " ", "-"), done); err != nil {
			return err
		}
		_, err := os.Stdin.Read(make([]byte, 1))
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("helper done")
}

// killWhen starts a daemon that pulls, and kills it with SIGKILL when its
// progress satisfies when.
func killWhen(t *testing.T, root, ref string, when func(line string) bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperPull$", "-test.v")
	cmd.Env = append(os.Environ(), "ORLOP_TEST_PULL="+ref, "ORLOP_TEST_ROOT="+root)
	goOn, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	lines := bufio.NewScanner(out)
	var seen []string
	for lines.Scan() {
		line, ok := strings.CutPrefix(lines.Text(), "helper ")
		seen = append(seen, lines.Text())
		switch {
		case !ok || killed:
		case when(line):
			killed = true
			err = cmd.Process.Kill()
		default:
			_, err = goOn.Write([]byte{'\n'})
		}
		if err != nil {
			t.Error(err)
		}
	}
	err = cmd.Wait()
	if !killed {
		t.Fatalf("the pull ended before it could be killed: %v\n%s", err, strings.Join(seen, "\n"))
	}
}

func TestADaemonThatIsKilledDuringAPull(t *testing.T) {
	needLayers(t)
	for _, phase := range []image.Phase{image.PhaseQueued, image.PhaseDownloading, image.PhaseDownloaded, image.PhaseExtracting, image.PhaseComplete} {
		t.Run(string(phase), func(t *testing.T) {
			root := t.TempDir()
			r := registrytest.New(t)
			img := redis(r, "7", file{Name: "big", Data: noise(t, 4<<20)})
			big := img.Layers[2]
			if phase == image.PhaseDownloading {
				r.Do(func() {
					r.Cut[big.Digest] = &registrytest.Cut{At: big.Size / 2, Times: 1}
					r.Hold = make(chan struct{})
				})
			}
			ref := r.Host() + "/library/redis:7"
			want := strings.ReplaceAll(string(phase), " ", "-")
			killWhen(t, root, ref, func(line string) bool {
				fields := strings.Fields(line)
				if len(fields) != 3 || fields[1] != want {
					return false
				}
				return phase != image.PhaseDownloading || fields[0] == image.ShortID(big.Digest.String()) && fields[2] != "0"
			})
			s := newStack(t, root)
			ctx := context.Background()
			if n, err := s.Count(ctx); err != nil || n != 0 && phase != image.PhaseComplete {
				t.Fatal(n, err)
			}
			if err := s.db.Collect(ctx); err != nil {
				t.Fatal(err)
			}
			before := len(r.Requests("/blobs/" + big.Digest.String()))
			s.pull(t, ref)
			again := r.Requests("/blobs/" + big.Digest.String())[before:]
			if phase == image.PhaseDownloading && (len(again) != 1 || !strings.Contains(again[0], "bytes=")) {
				t.Fatalf("did not go on where it stopped: %v", again)
			}
			if phase == image.PhaseComplete && len(again) > 1 {
				t.Fatal(again)
			}
			got, err := s.Resolve(ctx, ref, nil)
			if err != nil || got.ID != img.Config.Digest {
				t.Fatal(got.ID, err)
			}
			dirs, err := s.layers.Dirs(s.db.Context(ctx), got.ChainID)
			if err != nil || len(mustRead(t, filepath.Join(dirs[0], "big"))) != 4<<20 {
				t.Fatal(dirs, err)
			}
			// Nothing is left of the first try once the image goes.
			if _, err := s.Remove(ctx, ref, images.RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
			left := append(files(t, filepath.Join(root, "content")), files(t, filepath.Join(root, "snapshots", "snapshots"))...)
			if len(left) != 0 {
				t.Fatalf("left: %v", left)
			}
		})
	}
}

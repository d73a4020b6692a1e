package testkit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// StartRegistry starts Debian's docker-registry inside the sandbox, with the
// test images that are asked for already pushed, and returns its address. Its
// storage lies in dir; it ends with the sandbox.
func StartRegistry(t testing.TB, s *Sandbox, dir string, images ...string) string {
	t.Helper()
	program := filepath.Join(Peer(t, "registry"), "usr/bin/docker-registry")
	addr := "127.0.0.1:5000"
	config := filepath.Join(dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: '%s'}\n",
		filepath.Join(dir, "registry"), addr)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := s.Command(context.Background(), program, "serve", config)
	log, err := os.Create(filepath.Join(dir, "registry.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	Eventually(t, func() error {
		out, err := s.Command(context.Background(), "curl", "-fsS", "http://"+addr+"/v2/").CombinedOutput()
		if err != nil {
			return fmt.Errorf("registry: %w: %s", err, out)
		}
		return nil
	})
	for _, name := range images {
		Push(t, s, Image(t, name), addr+"/"+name+":latest")
	}
	return addr
}

// Push copies an image's tar to a registry with skopeo, which knows nothing of us.
func Push(t testing.TB, s *Sandbox, tar, ref string) {
	t.Helper()
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Fatalf("skopeo is a test tool: %v (make test installs it)", err)
	}
	cmd := s.Command(context.Background(), "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "docker-archive:"+tar, "docker://"+ref)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("push %s: %v\n%s", ref, err, out)
	}
}

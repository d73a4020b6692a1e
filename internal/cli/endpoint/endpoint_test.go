package endpoint

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestAnAddressIsNormalizedAsDockersClientDoes(t *testing.T) {
	for _, c := range []struct{ in, want, fault string }{
		{"unix:///run/x.sock", "unix:///run/x.sock", ""},
		{"unix://", "unix:///var/run/docker.sock", ""},
		{"tcp://", "tcp://localhost:2375", ""},
		{"tcp://host", "tcp://host:2375", ""},
		{"host:1", "tcp://host:1", ""},
		{"tcp://:7", "tcp://localhost:7", ""},
		{"tcp://[::1]:", "tcp://[::1]:2375", ""},
		{"tcp://[::1]", "tcp://[::1]:2375", ""},
		{"tcp://h:1/base", "tcp://h:1/base", ""},
		{" ssh://u@h ", "ssh://u@h", ""},
		{"npipe://", "npipe:////./pipe/docker_engine", ""},
		{"http://h", "", "invalid bind address format: http://h"},
		{"tcp://h:x", "", "port"},
		{"unix://tcp://x", "", "invalid proto, expected unix: tcp://x"},
	} {
		got, err := ParseHost(c.in)
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%q: got %q and error %v, want error %q", c.in, got, err, c.fault)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q: got %q and error %v, want %q", c.in, got, err, c.want)
		}
	}
}

func TestAnSSHAddressBecomesArgumentsThatNoPartOfItCanLeave(t *testing.T) {
	for _, c := range []struct {
		in, fault string
		want      []string
	}{
		{in: "ssh://h", want: []string{"-o", "ConnectTimeout=30", "-T", "--", "h", "orlop", "system", "dial-stdio"}},
		{in: "ssh://me@h:22/run/o.sock", want: []string{"-o", "ConnectTimeout=30", "-T", "-l", "me", "-p", "22", "--", "h", "orlop", "--host='unix:///run/o.sock'", "system", "dial-stdio"}},
		{in: "ssh://-oProxyCommand=x", want: []string{"-o", "ConnectTimeout=30", "-T", "--", "-oProxyCommand=x", "orlop", "system", "dial-stdio"}},
		{in: "ssh://h/a'b;reboot", want: []string{"-o", "ConnectTimeout=30", "-T", "--", "h", "orlop", `--host='unix:///a'\''b;reboot'`, "system", "dial-stdio"}},
		{in: "ssh://u:p@h", fault: "plain-text password is not supported"},
		{in: "ssh://h?x", fault: "query parameters are not allowed"},
		{in: "ssh:///x", fault: "hostname is empty"},
	} {
		u, err := url.Parse(c.in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := sshArgs(u, "orlop")
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%s: got error %v, want %q", c.in, err, c.fault)
			}
			continue
		}
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: error %v, want (-) and got (+):\n%s", c.in, err, diff)
		}
	}
}

func TestAContextKeepsWhatItWasMadeOf(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	e := Endpoint{Host: "tcp://h:2376", SkipTLSVerify: true}
	m, err := NewMetadata("work", "the other machine", e)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(m, &TLSFiles{CA: []byte("ca"), Key: []byte("key")}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Endpoint("work")
	if err != nil {
		t.Fatal(err)
	}
	want := Endpoint{Host: e.Host, SkipTLSVerify: true, TLS: &TLSFiles{CA: []byte("ca"), Key: []byte("key")}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Description() != "the other machine" {
		t.Errorf("list: %v, %v", list, err)
	}
	_, tls := s.Paths("work")
	if info, err := os.Stat(filepath.Join(tls, "docker", "key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key can be read by others: %v, %v", info, err)
	}
	if err := s.Put(m, nil); err != nil {
		t.Fatal(err)
	}
	if files, err := s.TLS("work"); err != nil || files != nil {
		t.Errorf("files of an earlier put are left: %v, %v", files, err)
	}
	if err := errors.Join(s.Remove("work"), s.Remove("work")); err != nil {
		t.Errorf("removing twice: %v", err)
	}
	if _, err := s.Get("work"); !errdefs.IsNotFound(err) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get after remove: %v", err)
	}
}

func TestAContextNameIsChecked(t *testing.T) {
	for name, good := range map[string]bool{"a1": true, "a.b_c+d-e": true, "": false, "default": false, "a/b": false, "-a": false, "a": false} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// idFile writes a file in the form of subuid(5).
func idFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "subuid")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestRangesOfAUserFollowEachOtherFromZero(t *testing.T) {
	file := idFile(t, "other:1:1\nweb:200000:1000\n1007:5000:10\nweb:100000:65536\n")
	got, err := subIDs(file, user.User{Name: "web", Uid: 1007})
	if err != nil {
		t.Fatal(err)
	}
	want := []specs.LinuxIDMapping{
		{ContainerID: 0, HostID: 200000, Size: 1000},
		{ContainerID: 1000, HostID: 5000, Size: 10},
		{ContainerID: 1010, HostID: 100000, Size: 65536},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAUserWithoutRangesIsNamed(t *testing.T) {
	_, err := subIDs(idFile(t, "other:1:1\n"), user.User{Name: "web", Uid: 7})
	if err == nil || !strings.Contains(err.Error(), `no subuid ranges found for user "web"`) {
		t.Errorf("got %v", err)
	}
	if _, err := subIDs(filepath.Join(t.TempDir(), "none"), user.User{Name: "web"}); !os.IsNotExist(err) {
		t.Errorf("without the file: %v", err)
	}
}

func TestAMadeUserGetsTheRangeBehindAllOthers(t *testing.T) {
	for name, tt := range map[string]struct{ before, after string }{
		"the first":      {"", "dockremap:100000:65536\n"},
		"behind others":  {"a:100000:65536\nb:400000:10\n", "a:100000:65536\nb:400000:10\ndockremap:400010:65536\n"},
		"below them":     {"a:1:10\n", "a:1:10\ndockremap:100000:65536\n"},
		"it has one":     {"dockremap:7:8\n", "dockremap:7:8\n"},
		"a similar name": {"dockremap2:100000:1\n", "dockremap2:100000:1\ndockremap:100001:65536\n"},
	} {
		t.Run(name, func(t *testing.T) {
			file := idFile(t, tt.before)
			for range 2 { // the second time it has one
				if err := giveRange(file, remapUser); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(file)
			if err != nil || string(got) != tt.after {
				t.Errorf("got %q, %v, want %q", got, err, tt.after)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "subgid")
	if err := giveRange(file, "web"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(file); string(got) != "web:100000:65536\n" {
		t.Errorf("a new file holds %q", got)
	}
}

func TestWhoIsMeantByARemap(t *testing.T) {
	for spec, want := range map[string]string{
		"root": "root", "0": "root", "root:root": "root", "0:0": "root", "root:0": "root", "daemon": "daemon",
	} {
		if got, err := remappedUser(t.Context(), spec); err != nil || got != want {
			t.Errorf("%q is %q, %v, want %q", spec, got, err, want)
		}
	}
	for spec, want := range map[string]string{
		"a:b:c":              "Invalid user/group specification in --userns-remap",
		"nobody-here":        `Error during uid lookup for "nobody-here": getent unable to find entry "nobody-here" in passwd database`,
		"1999999999":         "Uid 1999999999 has no entry in /etc/passwd",
		"root:1999999999":    "Gid 1999999999 has no entry in /etc/passwd",
		"root:no-such-group": `Error during groupname lookup for "no-such-group"`,
	} {
		if _, err := remappedUser(t.Context(), spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", spec, err, want)
		}
	}
}

func TestRootIsNotRemappedToItself(t *testing.T) {
	var log strings.Builder
	c := Config{UsernsRemap: "root", DataRoot: t.TempDir()}
	root := c.DataRoot
	if err := c.remap(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if !c.IDMap.Empty() || c.DataRoot != root || !strings.Contains(log.String(), "user namespaces are OFF") {
		t.Errorf("map %v, data root %s, log %q", c.IDMap, c.DataRoot, log.String())
	}
	c = Config{DataRoot: root}
	if err := c.remap(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err != nil || c.DataRoot != root {
		t.Errorf("without the option: %v, data root %s", err, c.DataRoot)
	}
	c = Config{UsernsRemap: "daemon:daemon", DataRoot: root}
	if err := c.remap(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err == nil || !strings.Contains(err.Error(), `no subuid ranges found for user "daemon"`) {
		t.Errorf("a user without ranges: %v", err)
	}
}

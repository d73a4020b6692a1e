package monitorside

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/monitor/protocol"
	"github.com/orlop/orlop/internal/runtime/plainjson"
)

// everything is a launch with a value in every field.
func everything() launch {
	ids := []protocol.IDMapping{{ContainerID: 1, HostID: 100000, Size: 4294967295}}
	return launch{
		LaunchArgs: protocol.LaunchArgs{
			ID: "a", RunDir: "/run/orlop/containers/a",
			Rootfs: &protocol.Rootfs{Lower: []string{"/l1", "/l2"}, Upper: "/u", Work: "/w", Volatile: true, UIDs: ids, GIDs: ids},
			Log: protocol.Log{
				Driver: "json-file", Path: "/log", MaxSize: 1 << 40, MaxFiles: 3, Compress: true,
				Attrs: map[string]string{"tag": "käse & <br>"}, Buffer: 4096,
			},
			OpenStdin: true, StdinOnce: true, Tied: true, SystemdCgroup: true, Runtime: "/usr/bin/runc", RuntimeArgs: []string{"--debug"},
			Files:  []string{protocol.FileLock, protocol.FileNetNS, protocol.FileAttach},
			Attach: []protocol.AttachArgs{{Exec: "x", Stdin: true, Stdout: true, Stderr: true}},
		},
		Spec: &specs.Spec{Version: "1.3.0", Process: &specs.Process{Args: []string{"a\n", "b"}, Cwd: "/"}, Hostname: "h"},
	}
}

func TestALaunchIsReadAsEncodingJSONDoes(t *testing.T) {
	whole, err := json.Marshal(everything())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"everything":               string(whole),
		"usual":                    usualLaunch,
		"nothing":                  `{}`,
		"a key of another release": `{"id":"a","later":{"x":[1]},"spec":{"ociVersion":"1"}}`,
		"a key twice":              `{"id":"a","id":"b"}`,
		"null":                     `{"id":"a","rootfs":null,"spec":null}`,
		"an unknown configuration": `{"id":"a","spec":{"zos":{"namespaces":[]}}}`,
		"a wrong type":             `{"id":1}`,
		"cut":                      string(whole[:len(whole)/2]),
		"more behind it":           `{"id":"a"} {}`,
	} {
		t.Run(name, func(t *testing.T) {
			var want, got launch
			wanted, err := json.Unmarshal([]byte(text), &want), got.decode([]byte(text))
			if (err == nil) != (wanted == nil) || err != nil && err.Error() != wanted.Error() {
				t.Fatalf("error %v, want %v", err, wanted)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(launch{}), cmpopts.IgnoreFields(launch{}, "config")); diff != "" {
				t.Errorf("encoding/json (-) and we (+) differ:\n%s", diff)
			}
			if got.config == nil {
				return
			}
			var spec *specs.Spec
			if err := json.Unmarshal(got.config, &spec); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got.Spec, spec); diff != "" {
				t.Errorf("the kept text and what was read of it differ:\n%s", diff)
			}
		})
	}
}

// A field that the reader does not know would be read by encoding/json, slowly and
// unnoticed.
func TestEveryFieldOfALaunchIsReadWithoutEncodingJSON(t *testing.T) {
	whole, err := json.Marshal(everything())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(whole), usualLaunch} {
		var l launch
		r := plainjson.New(text)
		r.Object(func(key string) bool { return l.field(r, key) })
		if !r.Done() {
			t.Errorf("given up before %.60q", r.Rest())
		}
	}
}

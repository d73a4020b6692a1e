package bundle

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/runtime/plainjson"
)

// seeds are texts of both readers' domain, and of its borders.
func seeds(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no configurations in testdata: %v", err)
	}
	var list []string
	for _, name := range files {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(body))
	}
	return append(list,
		`{}`, ` { } `, ``, `null`, `[]`, `{"ociVersion":"1.0"}x`, `{"ociVersion":"1.0"} `, `{"ociversion":"1"}`, `{"ociVersion":"1","ociVersion":"2"}`,
		`{"root":{"path":"a"},"root":{"readonly":true}}`, `{"process":null}`, `{"process":{"args":null,"env":[]}}`, `{"process":{"args":["\u003c\n","é","\ud800"]}}`,
		`{"annotations":{"a":"1","a":"2"}}`, `{"annotations":{}}`, `{"linux":{"resources":{"pids":{"limit":-1}}}}`, `{"linux":{"resources":{"pids":{"limit":-0}}}}`,
		`{"linux":{"resources":{"pids":{"limit":01}}}}`, `{"linux":{"resources":{"pids":{"limit":1.0}}}}`, `{"linux":{"resources":{"pids":{"limit":1e2}}}}`,
		`{"linux":{"resources":{"pids":{"limit":9223372036854775807}}}}`, `{"linux":{"resources":{"pids":{"limit":9223372036854775808}}}}`,
		`{"linux":{"resources":{"pids":{"limit":-9223372036854775808}}}}`, `{"process":{"user":{"uid":4294967296}}}`, `{"process":{"user":{"uid":-1}}}`,
		`{"process":{"rlimits":[{"type":"a","hard":18446744073709551615,"soft":18446744073709551616}]}}`, `{"process":{"terminal":truex}}`, `{"process":{"terminal":true,}}`,
		`{"mounts":[]}`, `{"mounts":[{"destination":"/a"},]}`, "{\"hostname\":\"a\tb\"}", "{\"hostname\":\"\xff\"}", `{"hostname":"a`, `{"hostname":"a\`, `{"unknown":[1,{"a":null}],"hostname":"h"}`,
		`{"linux":{"resources":{"blockIO":{}}}}`, `{"linux":{"resources":{"blockIO":{"weight":65535,"leafWeight":0}}}}`, `{"linux":{"resources":{"blockIO":{"weight":65536}}}}`,
		`{"linux":{"resources":{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":500}]}}}}`,
		`{"process":{"oomScoreAdj":- 1}}`, `{"process":{"oomScoreAdj":-}}`,
	)
}

// same reports a difference between Decode and encoding/json.
func same(t *testing.T, body string) {
	t.Helper()
	var want specs.Spec
	wantErr := json.Unmarshal([]byte(body), &want)
	got, err := Decode([]byte(body))
	if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
		t.Fatalf("%q: error %v, want %v", body, err, wantErr)
	}
	if err == nil && !reflect.DeepEqual(got, &want) {
		t.Fatalf("%q:\ngot  %+v\nwant %+v", body, got, &want)
	}
}

func TestDecodeIsWhatEncodingJSONDoes(t *testing.T) {
	for _, body := range seeds(t) {
		same(t, body)
		for i := range body { // and cut off anywhere
			if len(body) < 1<<10 || i%97 == 0 {
				same(t, body[:i])
			}
		}
	}
}

// What engines write is for the reader: encoding/json would cost every start
// its types.
func TestTheUsualConfigurationNeedsNoReflection(t *testing.T) {
	for _, body := range seeds(t) {
		if !strings.Contains(body, "seccomp") {
			continue
		}
		var spec specs.Spec
		r := plainjson.New(body)
		if Spec(r, &spec); !r.Done() {
			t.Errorf("given up at: %.60q", r.Rest())
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, body := range seeds(f) {
		f.Add(body)
	}
	f.Fuzz(same)
}

func BenchmarkDecode(b *testing.B) {
	body, err := os.ReadFile("testdata/docker.json")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Decode(body); err != nil {
			b.Fatal(err)
		}
	}
}

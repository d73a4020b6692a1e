package httpapi_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/version"
	"github.com/orlop/orlop/internal/httpapi"
	"github.com/orlop/orlop/internal/httpapi/apilines"
)

func TestContracts(t *testing.T) {
	file, err := os.Open("testdata/contracts.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines, err := apilines.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(t)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, line := range lines {
		req, err := line.Request(e.URL)
		if err != nil {
			t.Fatalf("line %d: %v", line.Number, err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("line %d: %v", line.Number, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatalf("line %d: %v", line.Number, err)
		}
		for _, wrong := range line.Check(resp.StatusCode, resp.Header, body) {
			t.Errorf("line %d: %s\n\t%s", line.Number, line.Text, wrong)
		}
	}
}

// Docker's description of the API is the list to be complete against.
func TestEveryOperationOfTheDescriptionHasARoute(t *testing.T) {
	file, err := os.Open("testdata/operations.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	routes := map[string]httpapi.Route{}
	for _, r := range httpapi.Routes() {
		if _, twice := routes[r.Operation]; twice {
			t.Errorf("operation %s is in the table twice", r.Operation)
		}
		routes[r.Operation] = r
		if r.Min != 0 && r.Min < httpapi.OldestVersion || r.Max > httpapi.NewestVersion {
			t.Errorf("%s has versions %s to %s", r.Operation, r.Min, r.Max)
		}
		if r.Method == "GET" && r.Body != 0 {
			t.Errorf("%s is a GET with a body", r.Operation)
		}
	}
	n := 0
	for in := bufio.NewScanner(file); in.Scan(); {
		field := strings.Fields(in.Text())
		if len(field) != 3 || field[0] == "#" {
			continue
		}
		n++
		r, ok := routes[field[0]]
		if !ok {
			t.Errorf("operation %s has no route", field[0])
		} else if r.Method != field[1] || r.Path != field[2] {
			t.Errorf("operation %s is %s %s, not %s %s", field[0], r.Method, r.Path, field[1], field[2])
		}
	}
	if n < 100 {
		t.Errorf("the description has %d operations", n)
	}
}

func TestVersionsAreThoseOfTheProject(t *testing.T) {
	if httpapi.NewestVersion.String() != version.MaxAPI || httpapi.OldestVersion.String() != version.MinAPI {
		t.Errorf("%s to %s, want %s to %s", httpapi.OldestVersion, httpapi.NewestVersion, version.MinAPI, version.MaxAPI)
	}
}

func TestAConfiguredLowestVersionIsHeld(t *testing.T) {
	e := newEngine(t, func(c *httpapi.Config) { c.MinVersion = "1.44" })
	for path, want := range map[string]int{"/v1.43/_ping": 400, "/v1.44/_ping": 200} {
		resp, err := http.Get(e.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	for _, bad := range []string{"v1.44", "1.23", "1.57", "x"} {
		if _, err := httpapi.New(httpapi.Config{MinVersion: bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("lowest version %q: %v", bad, err)
		}
	}
}

func TestABodyBeyondTheLimitIs413AndChangesNothing(t *testing.T) {
	e := newEngine(t)
	huge := append([]byte(`{"Image":"`), bytes.Repeat([]byte("x"), 4<<20+64<<10)...) // what is left over the server reads away
	for _, path := range []string{"/containers/create", "/containers/web/update", "/containers/web/exec"} {
		resp, err := http.Post(e.URL+path, "application/json", bytes.NewReader(huge))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 413 || !strings.Contains(string(body), "takes at most 4194304 bytes") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	if e.containers.created.Name != "" || e.containers.created.Raw != nil {
		t.Error("the container was created")
	}
}

func TestAuthorizeSeesOperationAndAccess(t *testing.T) {
	seen := map[string]httpapi.Access{}
	e := newEngine(t, func(c *httpapi.Config) {
		c.Authorize = func(_ *http.Request, op string, access httpapi.Access) error {
			seen[op] = access
			if access > httpapi.Read {
				return errdefs.ErrPermissionDenied.WithMessage("read only")
			}
			return nil
		}
	})
	for path, want := range map[string]int{"/_ping": 200, "/containers/json": 200} {
		if resp, err := http.Get(e.URL + path); err != nil || resp.StatusCode != want {
			t.Errorf("%s: %v %v", path, resp, err)
		}
	}
	resp, err := http.Post(e.URL+"/containers/web/stop", "", nil)
	if err != nil || resp.StatusCode != 403 {
		t.Errorf("stop: %v %v", resp, err)
	}
	if seen["ContainerStop"] != httpapi.Operate || seen["SystemPing"] != httpapi.Public {
		t.Errorf("saw %v", seen)
	}
}

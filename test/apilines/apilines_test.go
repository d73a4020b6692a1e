// Package apilines holds the API of a running engine against contracts of one
// line each (testdata), and with ORLOP_APILINES_PEER=docker Debian's dockerd
// against the same lines.
package apilines

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/orlop/orlop/internal/httpapi/apilines"
	"github.com/orlop/orlop/internal/testkit"
)

// onPeer tells that the lines are held against Debian's dockerd.
func onPeer() bool { return os.Getenv("ORLOP_APILINES_PEER") == "docker" }

// engine starts what is tested, with the image busybox, and returns a client for
// it and its sandbox.
func engine(t *testing.T) (*http.Client, *testkit.Sandbox) {
	t.Helper()
	testkit.NeedRoot(t)
	var s *testkit.Sandbox
	var socket string
	if onPeer() {
		s, socket = testkit.NewDocker(t)
	} else {
		e := testkit.NewEngine(t)
		s, socket = e.Sandbox, e.Socket
	}
	c := &http.Client{
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}},
	}
	tar, err := os.Open(testkit.Image(t, "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	defer tar.Close()
	must(t, c, "POST", "/images/load", "application/x-tar", tar)
	return c, s
}

// must sends a request that has to succeed.
func must(t *testing.T, c *http.Client, method, path, contentType string, body io.Reader) {
	t.Helper()
	req, err := http.NewRequest(method, "http://engine"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, data, err)
	}
}

func TestBadInputGetsDockersStatusAndWordsAndChangesNothing(t *testing.T) {
	t.Parallel()
	c, _ := engine(t)
	json := "application/json"
	must(t, c, "POST", "/containers/create?name=web", json, strings.NewReader(
		`{"Image":"busybox","Cmd":["sleep","1000"],"ExposedPorts":{"80/tcp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"7070"}]}}}`))
	must(t, c, "POST", "/containers/web/start", json, nil)
	must(t, c, "POST", "/containers/create?name=done", json, strings.NewReader(`{"Image":"busybox","Cmd":["sh","-c","exit 3"]}`))
	must(t, c, "POST", "/containers/done/start", json, nil)
	must(t, c, "POST", "/containers/done/wait", json, nil)

	before := state(t, c)
	check(t, c, "testdata/badinput.txt")
	if after := state(t, c); after != before {
		t.Errorf("bad input changed something:\nbefore %s\nafter  %s", before, after)
	}

	// Bodies without an end: read to a bound and no further.
	for _, path := range []string{"/containers/create", "/containers/web/exec"} {
		req, err := http.NewRequest("POST", "http://engine"+path, io.LimitReader(endless{}, 64<<20))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", json)
		resp, err := c.Do(req)
		if err != nil {
			// The daemon may close on us while we still write.
			t.Logf("%s: %v", path, err)
			continue
		}
		data, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		resp.Body.Close()
		if resp.StatusCode < 400 || resp.StatusCode >= 500 {
			t.Errorf("an oversized body for %s: %s %s", path, resp.Status, data)
		}
	}
	if after := state(t, c); after != before {
		t.Errorf("an oversized body changed something:\nbefore %s\nafter  %s", before, after)
	}
}

func TestPublishedPortsAreHandedOverByTheAPI(t *testing.T) {
	t.Parallel()
	if onPeer() {
		t.Skip("Orlop only")
	}
	c, _ := engine(t)
	json := "application/json"
	for _, one := range []struct{ name, host string }{
		{"web", `{"PortBindings":{"80/tcp":[{"HostPort":"7071"}],"80/udp":[{"HostPort":"7072"}]}}`},
		{"next", `{}`},
		{"two", `{"PortBindings":{"90/tcp":[{"HostPort":"7073"}]}}`},
		{"alone", `{"NetworkMode":"none"}`},
		{"idle", `{}`},
	} {
		must(t, c, "POST", "/containers/create?name="+one.name, json, strings.NewReader(`{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":`+one.host+`}`))
		if one.name != "idle" {
			must(t, c, "POST", "/containers/"+one.name+"/start", json, nil)
		}
	}
	check(t, c, "testdata/handover.txt")
}

// endless is the beginning of a JSON document that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '['
	}
	return len(p), nil
}

// state is what a person would look at: containers, images, networks.
func state(t *testing.T, c *http.Client) string {
	t.Helper()
	var all bytes.Buffer
	for _, path := range []string{"/containers/json?all=1", "/images/json", "/networks"} {
		resp, err := c.Get("http://engine" + path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %d objects, %d bytes\n", path, bytes.Count(data, []byte(`"Id"`)), len(withoutTimes(data)))
	}
	return all.String()
}

// withoutTimes drops the texts that grow old ("Up 3 seconds").
func withoutTimes(data []byte) []byte {
	for _, mark := range []string{`"Status":"`} {
		for {
			at := bytes.Index(data, []byte(mark))
			if at < 0 {
				break
			}
			end := bytes.IndexByte(data[at+len(mark):], '"')
			data = append(data[:at:at], data[at+len(mark)+end+1:]...)
		}
	}
	return data
}

func check(t *testing.T, c *http.Client, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := apilines.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		req, err := line.Request("http://engine")
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Errorf("%s: %v", line.Text, err)
			continue
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
		if err != nil {
			t.Errorf("%s: %v", line.Text, err)
		}
		for _, wrong := range line.Check(resp.StatusCode, resp.Header, body) {
			t.Errorf("%s:%d: %s\n\t%s\n\tanswer: %s", file, line.Number, wrong, line.Text, bytes.TrimSpace(body))
		}
	}
}

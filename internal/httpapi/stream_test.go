package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"golang.org/x/net/websocket"

	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/httpapi"
)

// hijack sends a request on a connection of its own and returns the head of the
// answer and what follows it.
func hijack(t *testing.T, e *engine, method, path, body string, upgrade bool) (*http.Response, *bufio.Reader, *net.TCPConn) {
	t.Helper()
	conn, err := net.Dial("tcp", e.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n", method, path, len(body))
	if body != "" {
		head += "Content-Type: application/json\r\n"
	}
	if upgrade {
		head += "Connection: Upgrade\r\nUpgrade: tcp\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"+body); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp, in, conn.(*net.TCPConn)
}

// echo copies standard input to standard output, and says so on standard error
// when the input has ended.
func echo(_ context.Context, s containers.Streams) error {
	if _, err := io.Copy(s.Out, s.In); err != nil {
		return err
	}
	_, err := io.WriteString(s.Err, "bye")
	return err
}

func TestAttachUpgradesAndKeepsOutputAfterAHalfClose(t *testing.T) {
	for _, c := range []struct {
		path, kind string
		tty        bool
	}{
		{"/v1.42/containers/web/attach?stdin=1&stdout=1&stderr=1&stream=1", "application/vnd.docker.multiplexed-stream", false},
		{"/v1.41/containers/web/attach?stdin=1&stdout=1&stderr=1&stream=1", "application/vnd.docker.raw-stream", false},
		{"/containers/web/attach?stdin=1&stdout=1&stream=1", "application/vnd.docker.raw-stream", true},
	} {
		e := newEngine(t)
		e.containers.tty, e.containers.conduct = c.tty, echo
		resp, in, conn := hijack(t, e, "POST", c.path, "", true)
		if resp.StatusCode != 101 || resp.Header.Get("Content-Type") != c.kind || resp.Header.Get("Upgrade") != "tcp" || resp.Header.Get("Api-Version") == "" {
			t.Errorf("%s: %d %v", c.path, resp.StatusCode, resp.Header)
		}
		io.WriteString(conn, "hello")
		conn.CloseWrite()
		got, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if c.tty {
			if string(got) != "hellobye" {
				t.Errorf("%s: terminal says %q", c.path, got)
			}
			continue
		}
		var out, errs bytes.Buffer
		if _, err := stdcopy.StdCopy(&out, &errs, bytes.NewReader(got)); err != nil || out.String() != "hello" || errs.String() != "bye" {
			t.Errorf("%s: %q, %q, %v", c.path, out.String(), errs.String(), err)
		}
		if !e.containers.attached.Stdin || !e.containers.attached.Stream || e.containers.attached.Logs {
			t.Errorf("attached with %+v", e.containers.attached)
		}
	}
}

// docker-py loses output that arrives together with the head of the answer.
func TestOutputIsNotSentBeforeTheHeadWasRead(t *testing.T) {
	for _, tty := range []bool{true, false} {
		read := make(chan struct{})
		asked := make(chan struct{}, 2)
		e := newEngine(t, func(c *httpapi.Config) {
			c.Taken = func(net.Conn) {
				asked <- struct{}{}
				<-read
			}
		})
		e.containers.tty = tty
		e.containers.conduct = func(_ context.Context, s containers.Streams) error {
			_, err := io.WriteString(s.Out, "x")
			if err == nil {
				_, err = io.WriteString(s.Out, "y")
			}
			return err
		}
		_, in, _ := hijack(t, e, "POST", "/exec/e1/start", fmt.Sprintf(`{"Tty":%v}`, tty), true)
		<-asked
		if n := in.Buffered(); n != 0 {
			t.Errorf("tty %v: %d bytes came with the head", tty, n)
		}
		close(read)
		want := "xy"
		if !tty {
			want = "\x01\x00\x00\x00\x00\x00\x00\x01x\x01\x00\x00\x00\x00\x00\x00\x01y"
		}
		if got, err := io.ReadAll(in); err != nil || string(got) != want {
			t.Errorf("tty %v: %q, %v", tty, got, err)
		}
		if len(asked) != 0 {
			t.Errorf("tty %v: waited more than once", tty)
		}
	}
}

func TestAttachWithoutUpgradeAnswers200Raw(t *testing.T) {
	e := newEngine(t)
	e.containers.conduct = func(_ context.Context, s containers.Streams) error {
		if s.In != nil {
			return errors.New("there is a standard input that nobody asked for")
		}
		_, err := io.WriteString(s.Out, "x")
		return err
	}
	resp, in, _ := hijack(t, e, "POST", "/containers/web/attach?stdout=1&stream=1", "", false)
	got, _ := io.ReadAll(in)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/vnd.docker.raw-stream" || string(got) != "\x01\x00\x00\x00\x00\x00\x00\x01x" {
		t.Errorf("%d %v %q", resp.StatusCode, resp.Header, got)
	}
}

func TestInputSentTogetherWithTheRequestIsNotLost(t *testing.T) {
	e := newEngine(t)
	e.containers.conduct = echo
	conn, err := net.Dial("tcp", e.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST /exec/e1/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 12\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n{\"Tty\":true}early")
	conn.(*net.TCPConn).CloseWrite()
	in := bufio.NewReader(conn)
	if _, err := http.ReadResponse(in, nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(in); string(got) != "earlybye" {
		t.Errorf("read %q", got)
	}
}

func TestAnExecThatCannotStartTellsItOnItsOutput(t *testing.T) {
	e := newEngine(t)
	e.containers.conduct = func(context.Context, containers.Streams) error { return errors.New("no such program") }
	resp, in, _ := hijack(t, e, "POST", "/exec/e1/start", `{"Tty":true}`, true)
	got, _ := io.ReadAll(in)
	if resp.StatusCode != 101 || string(got) != "no such program\r\n" {
		t.Errorf("%d %q", resp.StatusCode, got)
	}
}

func TestWebsocketAttachCarriesRawStreams(t *testing.T) {
	e := newEngine(t)
	e.containers.conduct = func(_ context.Context, s containers.Streams) error {
		buf := make([]byte, 5)
		if _, err := io.ReadFull(s.In, buf); err != nil {
			return err
		}
		_, err := s.Out.Write(append(buf, '!'))
		return err
	}
	url := "ws" + strings.TrimPrefix(e.URL, "http") + "/containers/web/attach/ws?stdin=1&stdout=1&stream=1"
	ws, err := websocket.Dial(url, "", e.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	io.WriteString(ws, "hello")
	var got []byte
	if err := websocket.Message.Receive(ws, &got); err != nil || string(got) != "hello!" {
		t.Errorf("%q %v", got, err)
	}
	resp, err := http.Get(e.URL + "/containers/web/attach/ws")
	if err != nil || resp.StatusCode != 400 {
		t.Errorf("without a handshake: %v %v", resp, err)
	}
}

func TestWaitSendsHeadersBeforeTheExit(t *testing.T) {
	e := newEngine(t)
	resp, err := http.Post(e.URL+"/containers/web/wait?condition=next-exit", "", nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	e.containers.exit <- containertypes.WaitResponse{StatusCode: 3}
	body, _ := io.ReadAll(resp.Body)
	if string(body) != `{"StatusCode":3}`+"\n" || e.containers.waited != containertypes.WaitConditionNextExit {
		t.Errorf("%q, waited for %q", body, e.containers.waited)
	}
}

func TestWaitOfOldClients(t *testing.T) {
	// Before 1.30 there is no condition; before 1.34 a failed removal is told
	// by an empty answer.
	for _, c := range []struct {
		version, condition string
		failed             *containertypes.WaitExitError
		waited             containertypes.WaitCondition
		want               string
	}{
		{"/v1.29", "removed", nil, containertypes.WaitConditionNotRunning, `{"StatusCode":1}` + "\n"},
		{"/v1.33", "removed", &containertypes.WaitExitError{Message: "no"}, containertypes.WaitConditionRemoved, ""},
		{"/v1.34", "removed", &containertypes.WaitExitError{Message: "no"}, containertypes.WaitConditionRemoved, `{"Error":{"Message":"no"},"StatusCode":1}` + "\n"},
	} {
		e := newEngine(t)
		e.containers.exit <- containertypes.WaitResponse{StatusCode: 1, Error: c.failed}
		resp, err := http.Post(e.URL+c.version+"/containers/web/wait?condition="+c.condition, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		if string(body) != c.want || e.containers.waited != c.waited {
			t.Errorf("%s: %q, waited for %q", c.version, body, e.containers.waited)
		}
	}
}

func TestLogsAreFramedPerStreamWithTimeAndDetails(t *testing.T) {
	at := time.Date(2024, 5, 6, 7, 8, 9, 10, time.UTC)
	entries := []containers.LogEntry{
		{Time: at, Stream: 1, Line: []byte("out\n"), Attrs: map[string]string{"b": "2 3", "a": "1"}},
		{Time: at, Stream: 2, Line: []byte("err\n")},
	}
	get := func(path string, tty bool, fail error) (string, string) {
		e := newEngine(t)
		e.containers.log, e.containers.tty, e.containers.logErr = entries, tty, fail
		resp, err := http.Get(e.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		return resp.Header.Get("Content-Type"), string(body)
	}
	kind, body := get("/containers/web/logs?stdout=1&stderr=1&timestamps=1&details=1", false, nil)
	var out, errs strings.Builder
	stdcopy.StdCopy(&out, &errs, strings.NewReader(body))
	if kind != "application/vnd.docker.multiplexed-stream" ||
		out.String() != "2024-05-06T07:08:09.000000010Z a=1,b=2+3 out\n" || errs.String() != "2024-05-06T07:08:09.000000010Z  err\n" {
		t.Errorf("%s %q %q", kind, out.String(), errs.String())
	}
	if kind, body = get("/containers/web/logs?stdout=1", true, nil); kind != "application/vnd.docker.raw-stream" || body != "out\nerr\n" {
		t.Errorf("terminal: %s %q", kind, body)
	}
	if kind, _ = get("/v1.41/containers/web/logs?stdout=1", false, nil); kind != "application/vnd.docker.raw-stream" {
		t.Errorf("API 1.41: %s", kind)
	}
	_, body = get("/containers/web/logs?stdout=1", false, errors.New("disk gone"))
	if _, err := stdcopy.StdCopy(io.Discard, io.Discard, strings.NewReader(body)); err == nil || !strings.Contains(err.Error(), "Error grabbing logs: disk gone") {
		t.Errorf("failure is told as %v", err)
	}
	if kind, body = get("/containers/web/logs?stdout=1&format=json", false, nil); kind != "application/x-ndjson" ||
		!strings.HasPrefix(body, `{"Line":"out\n","Source":"stdout","Timestamp":"2024-05-06T07:08:09.00000001Z"}`+"\n") {
		t.Errorf("JSON: %s %q", kind, body)
	}
}

func TestManyLogLinesArriveWholeAndInOrder(t *testing.T) {
	e := newEngine(t)
	var want strings.Builder
	for i := range 20000 {
		line := fmt.Sprintf("line %d\n", i)
		want.WriteString(line)
		e.containers.log = append(e.containers.log, containers.LogEntry{Stream: 1, Line: []byte(line)})
	}
	resp, err := http.Get(e.URL + "/containers/web/logs?stdout=1")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if _, err := stdcopy.StdCopy(&out, io.Discard, resp.Body); err != nil || out.String() != want.String() {
		t.Errorf("%d of %d bytes, %v", out.Len(), want.Len(), err)
	}
}

func TestAPullThatFailsBeforeItsFirstMessageHasAStatus(t *testing.T) {
	e := newEngine(t)
	e.images.err = errors.New("registry is gone")
	resp, err := http.Post(e.URL+"/images/create?fromImage=busybox&tag=1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 500 || !strings.Contains(string(body), `"message":"registry is gone"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	e.images.messages = []jsonstream.Message{{ID: "l1", Status: "Downloading", Progress: &jsonstream.Progress{Current: 1, Total: 2}}}
	if resp, err = http.Post(e.URL+"/images/create?fromImage=busybox:", "", nil); err != nil {
		t.Fatal(err)
	}
	body, _ = io.ReadAll(resp.Body)
	want := `{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"l1"}` + "\r\n" +
		`{"error":"registry is gone","errorDetail":{"message":"registry is gone"}}` + "\r\n"
	if resp.StatusCode != 200 || string(body) != want || e.images.pulled.Ref != "busybox" || !e.images.pulled.All {
		t.Errorf("%d %q, pulled %+v", resp.StatusCode, body, e.images.pulled)
	}
}

func TestCredentialsAndMetaHeadersReachTheRegistry(t *testing.T) {
	e := newEngine(t)
	req, _ := http.NewRequest("POST", e.URL+"/images/a/b/push?tag=t", nil)
	req.Header.Set("X-Registry-Auth", "eyJ1c2VybmFtZSI6Im1lIn0=")
	req.Header.Set("X-Meta-Trace", "7")
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	p := e.images.pushed
	if p.Ref != "a/b" || p.Tag != "t" || p.Auth.Username != "me" || p.Headers["X-Meta-Trace"][0] != "7" {
		t.Errorf("pushed %+v", p)
	}
}

func TestImportReadsItsBodyAndAddsAMessage(t *testing.T) {
	e := newEngine(t)
	resp, err := http.Post(e.URL+"/images/create?fromSrc=-&repo=r&tag=t&changes=CMD+x&changes=ENV+a=b", "application/x-tar", strings.NewReader("tar"))
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	i := e.images.imported
	if e.images.body != "tar" || i.Repo != "r" || i.Tag != "t" || i.Message != "Imported from -" || len(i.Changes) != 2 {
		t.Errorf("imported %q as %+v", e.images.body, i)
	}
}

func TestEventsHaveTheShapeOfTheClientsVersion(t *testing.T) {
	get := func(path, accept string) (string, []string) {
		e := newEngine(t)
		e.events.messages = []events.Message{
			{Type: events.ContainerEventType, Action: "start", Actor: events.Actor{ID: "c1", Attributes: map[string]string{"image": "busybox"}}},
			{Type: events.ImageEventType, Action: events.ActionCreate, Actor: events.Actor{ID: "i1"}},
		}
		req, _ := http.NewRequest("GET", e.URL+path, nil)
		if accept != "" {
			req.Header.Set("Accept", accept)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		return resp.Header.Get("Content-Type"), strings.SplitAfter(string(body), "\n")
	}
	kind, lines := get("/v1.45/events", "")
	if kind != "application/json" || len(lines) != 2 || !strings.Contains(lines[0], `"from":"busybox"`) || !strings.Contains(lines[0], `"status":"start"`) {
		t.Errorf("API 1.45: %s %q", kind, lines)
	}
	kind, lines = get("/events", "")
	if kind != "application/jsonl" || len(lines) != 3 || strings.Contains(lines[0], `"from"`) {
		t.Errorf("newest: %s %q", kind, lines)
	}
	kind, lines = get("/events", "text/html, application/json-seq;q=0.9, */*")
	if kind != "application/json-seq" || lines[0][0] != 0x1e {
		t.Errorf("json-seq: %s %q", kind, lines)
	}
	if kind, _ = get("/events", "application/x-ndjson;q=0.5, application/jsonl;q=0.4"); kind != "application/x-ndjson" {
		t.Errorf("by weight: %s", kind)
	}
}

func TestStatsFollowsUntilTheEnd(t *testing.T) {
	e := newEngine(t)
	resp, err := http.Get(e.URL + "/containers/web/stats")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for dec := json.NewDecoder(resp.Body); ; n++ {
		var s containertypes.StatsResponse
		if dec.Decode(&s) != nil {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d samples", n)
	}
}

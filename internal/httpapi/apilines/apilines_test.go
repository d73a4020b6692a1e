package apilines_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/orlop/orlop/internal/httpapi/apilines"
)

func TestALineIsReadWordByWord(t *testing.T) {
	lines, err := apilines.Parse(strings.NewReader(`
# a comment
POST /containers/create?name=web +X-Registry-Auth:e30= {"Image": "busybox", "Cmd": ["a b"]} 201 .Id~'^[0-9a-f]+$' .Warnings[0]='be careful' !.message
POST /auth +Content-Type:text/plain 'not json' 400
`))
	if err != nil || len(lines) != 2 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	l := lines[0]
	if l.Method != "POST" || l.Path != "/containers/create?name=web" || l.Status != 201 || l.Number != 3 {
		t.Errorf("read as %+v", l)
	}
	if l.Body != `{"Image": "busybox", "Cmd": ["a b"]}` || l.Header.Get("Content-Type") != "application/json" || l.Header.Get("X-Registry-Auth") != "e30=" {
		t.Errorf("sends %q with %v", l.Body, l.Header)
	}
	want := []apilines.Check{{".Id", '~', "^[0-9a-f]+$"}, {".Warnings[0]", '=', "be careful"}, {".message", '!', ""}}
	if !slices.Equal(l.Checks, want) {
		t.Errorf("checks %+v, want %+v", l.Checks, want)
	}
	if lines[1].Body != "not json" || lines[1].Header.Get("Content-Type") != "text/plain" {
		t.Errorf("second line sends %q with %v", lines[1].Body, lines[1].Header)
	}
}

func TestChecksNameWhatIsWrong(t *testing.T) {
	line := func(text string) apilines.Line {
		t.Helper()
		lines, err := apilines.Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return lines[0]
	}
	answer := []byte(`{"a":{"b":[{"c":7}],"null":null,"x.y":"z"},"message":"no such thing"}`)
	header := http.Header{"Api-Version": {"1.56"}}
	for text, wrong := range map[string]string{
		`GET /x 200 .a.b[0].c='7' .a.null .a[x.y]='z' header:Api-Version='1.56' body~'such'`: "",
		`GET /x 404`:                  "status is 200, not 404",
		`GET /x 200 .message='other'`: `.message is "no such thing", not "other"`,
		`GET /x 200 .a.b[1]`:          ".a.b[1] is not there",
		`GET /x 200 !.message`:        ".message is there",
		`GET /x 200 header:Server`:    "header:Server is not there",
	} {
		got := strings.Join(line(text).Check(200, header, answer), "; ")
		if wrong == "" && got != "" || !strings.Contains(got, wrong) {
			t.Errorf("%s: %q, want %q", text, got, wrong)
		}
	}
}

func TestBadLinesAreRefused(t *testing.T) {
	for _, text := range []string{"GET /x", "GET /x abc", "GET /x {bad 200", "GET /x 200 .a='open", "GET /x 200 .a~'('", "GET /x +H 200"} {
		if _, err := apilines.Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

package render

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type row struct{ name, state string }

func (r *row) MarshalJSON() ([]byte, error) { return Columns(r) }
func (r *row) Name() string                 { return r.name }
func (r *row) State() string                { return r.state }
func (r *row) Label(string) string          { return "l" }

func TestATableAlignsWhatTakesTwoColumnsOnATerminal(t *testing.T) {
	var out bytes.Buffer
	rows := []*row{{"web", "up"}, {"日本語の名前です", "down"}}
	if err := Table(&out, "table {{.Name}}\t{{upper .State}}", Header{"Name": "NAME", "State": "STATE"}, rows); err != nil {
		t.Fatal(err)
	}
	want := "NAME               STATE\nweb                UP\n日本語の名前です   DOWN\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestAFormatIsATemplatePerRow(t *testing.T) {
	for format, want := range map[Format]string{
		"json":                                `{"Name":"web","State":"\u003cup\u003e"}`,
		"{{json .Name}}":                      `"web"`,
		"{{json .State}}":                     `"<up>"`,
		`{{.Name}}\t{{.State}}\n`:             "web\t<up>\n",
		"{{pad .Name 1 2}}|":                  " web  |",
		`{{join (split .Name "e") "-"}}`:      "w-b",
		"{{title .Name}}{{truncate .Name 2}}": "Webwe",
		`{{.Label "x"}}`:                      "l",
	} {
		var out bytes.Buffer
		if err := Table(&out, format, nil, []*row{{"web", "<up>"}}); err != nil || strings.TrimSuffix(out.String(), "\n") != strings.TrimSuffix(want+"\n", "\n") {
			t.Errorf("%s: got %q and error %v, want %q", format, out.String(), err, want)
		}
	}
}

func TestARowThatFailsKeepsTheWholeTableBack(t *testing.T) {
	var out bytes.Buffer
	err := Table(&out, "{{.Name}}{{if eq .State \"bad\"}}{{.Nope}}{{end}}", nil, []*row{{"a", "good"}, {"b", "bad"}})
	if err == nil || out.Len() > 0 {
		t.Errorf("got %q and error %v", out.String(), err)
	}
}

func TestJoinTakesAnySliceAndTheValuesOfAMap(t *testing.T) {
	for _, c := range []struct {
		in   any
		want string
	}{{[]string{"a", "b"}, "a,b"}, {[]int{1, 2}, "1,2"}, {map[string]int{"x": 2, "a": 1}, "1,2"}, {nil, ""}} {
		if got, err := join(c.in, ","); err != nil || got != c.want {
			t.Errorf("%v: %q, %v", c.in, got, err)
		}
	}
	if _, err := join(5, ","); err == nil {
		t.Error("a number was joined")
	}
}

func TestAnEllipsisFitsItsColumns(t *testing.T) {
	for _, c := range []struct {
		in      string
		columns int
		want    string
	}{{"short", 10, "short"}, {"exactly10!", 10, "exactly10!"}, {"longer than that", 10, "longer th…"}, {"日本語", 5, "日本…"}, {"日本語", 6, "日本語"}, {"x", 0, ""}, {"xy", 1, "x"}} {
		if got := Ellipsis(c.in, c.columns); got != c.want {
			t.Errorf("%q in %d: got %q, want %q", c.in, c.columns, got, c.want)
		}
	}
}

func TestInspectPrintsWhatItFoundBesideWhatFailed(t *testing.T) {
	lookup := func(ref string) (any, []byte, error) {
		if ref == "bad" {
			return nil, nil, errors.New("no such thing")
		}
		return &struct{ Known string }{ref}, []byte(`{"Known":"` + ref + `","Unknown":{"Deep":1}}`), nil
	}
	for _, c := range []struct{ format, want string }{
		{"", "[\n    {\n        \"Known\": \"a\",\n        \"Unknown\": {\n            \"Deep\": 1\n        }\n    }\n]\n"},
		{"json", `[{"Known":"a","Unknown":{"Deep":1}}]` + "\n"},
		{"{{.Known}}", "a\n"},
		{"{{.Unknown.Deep}}", "1\n"},
	} {
		var out bytes.Buffer
		err := Inspect(&out, []string{"a", "bad"}, c.format, lookup)
		if err == nil || err.Error() != "no such thing" || out.String() != c.want {
			t.Errorf("%q: got %q and error %v", c.format, out.String(), err)
		}
	}
	var bad *BadFormatError
	if err := Inspect(&bytes.Buffer{}, nil, "{{", lookup); !errors.As(err, &bad) {
		t.Errorf("a format that does not parse: %v", err)
	}
}

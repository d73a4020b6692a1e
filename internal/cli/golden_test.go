package cli_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// goldenFile holds what each command line came to when it was last compared with Docker's client. It keeps the texts
// and requests where there is no docker to compare with; `go test -run Recorded -update` writes it anew.
const goldenFile = "testdata/outcomes.txt"

var update = flag.Bool("update", false, "write "+goldenFile+" anew")

func TestEveryCommandLineDoesWhatWasRecorded(t *testing.T) {
	orlop := ours(t)
	type result struct{ name, text string }
	list := invocations()
	results := make([]result, len(list))
	t.Run("run", func(t *testing.T) {
		for n, i := range list {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				results[n] = result{i.title(), perform(t, orlop, i).text()}
			})
		}
	})
	var b strings.Builder
	seen := map[string]bool{}
	for _, r := range results {
		// What tells the time differs from year to year; help is compared with Docker's only.
		if seen[r.name] || strings.Contains(r.text, " ago") || strings.Contains(r.name, "--help") {
			continue
		}
		seen[r.name] = true
		fmt.Fprintf(&b, "$ %s\n%s\n", r.name, r.text)
	}
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("recorded (-) and now (+) differ:\n%s", diff)
	}
}

// title names an invocation and what surrounds it.
func (i invocation) title() string {
	text := "docker " + i.args
	if i.cfg != "" {
		text += " with " + i.cfg
	}
	for _, name := range slices.Sorted(maps.Keys(i.files)) {
		text += fmt.Sprintf(" with %s: %q", name, i.files[name])
	}
	if i.stdin != "" {
		text += fmt.Sprintf(" < %q", i.stdin)
	}
	if len(i.env) > 0 {
		text += " in " + strings.Join(i.env, " ")
	}
	if i.noDaemon {
		text += " without a daemon"
	}
	return text
}

func (o outcome) text() string {
	var b strings.Builder
	if o.Status != 0 {
		fmt.Fprintf(&b, "status %d\n", o.Status)
	}
	for _, r := range o.Requests {
		fmt.Fprintf(&b, "> %s\n", r)
	}
	for _, stream := range []struct{ mark, text string }{{"", o.Stdout}, {"! ", o.Stderr}} {
		for line := range strings.Lines(stream.text) {
			b.WriteString(stream.mark + strings.TrimRight(line, "\n") + "\n")
		}
	}
	return b.String()
}

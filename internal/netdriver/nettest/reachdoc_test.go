package nettest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestReachabilityIsDocumented holds the table of docs/reachability.md against
// the matrix; with -update it is rewritten.
func TestReachabilityIsDocumented(t *testing.T) {
	rows := matrix()
	var b strings.Builder
	b.WriteString("| who asks whom |")
	for _, r := range rows {
		fmt.Fprintf(&b, " %s |", r.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(rows)) + "\n")
	for i, c := range columns {
		fmt.Fprintf(&b, "| `%s` |", c)
		for _, r := range rows {
			fmt.Fprintf(&b, " %s |", strings.Fields(r.cells)[i])
		}
		b.WriteString("\n")
	}
	const from, to = "<!-- matrix -->\n", "<!-- end of matrix -->\n"
	text, err := os.ReadFile(reachability)
	must(t, err)
	head, rest, found := strings.Cut(string(text), from)
	table, tail, closed := strings.Cut(rest, to)
	if !found || !closed {
		t.Fatalf("%s has no place for the matrix", reachability)
	}
	if table == b.String() {
		return
	}
	if !*update {
		t.Fatalf("%s is not the matrix: go test ./internal/netdriver/nettest -run ReachabilityIsDocumented -update", reachability)
	}
	must(t, os.WriteFile(reachability, []byte(head+from+b.String()+to+tail), 0o644))
}

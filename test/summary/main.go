// Command summary reads the output of `go test -json` on its standard input,
// prints what failed with its output, and closes with one line: how many tests
// ran, passed, failed and were skipped, with the reasons of the skips and the
// seconds it took. It ends with status 1 when anything failed or nothing ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strings"
	"time"
)

type event struct {
	Action, Package, Test, Output string
	ImportPath                    string
	Elapsed                       float64
}

type result struct {
	passed, failed, skipped int
	reasons                 map[string]int
	slow                    []slowTest
}

type slowTest struct {
	name    string
	seconds float64
}

// skipReason cuts the place from what t.Skip prints: "    x_test.go:12: why".
var skipReason = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)$`)

func main() {
	os.Exit(run())
}

func run() int {
	started := time.Now()
	out := map[string][]string{}
	res := result{reasons: map[string]int{}}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text())
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output":
			out[key] = append(out[key], e.Output)
		case "build-output":
			fmt.Print(e.Output)
		case "pass", "fail", "skip":
			res.add(e, out[key])
			delete(out, key)
		}
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		return 1
	}
	return res.print(time.Since(started))
}

func (r *result) add(e event, output []string) {
	if e.Test == "" {
		if e.Action == "fail" {
			fmt.Printf("--- package %s failed\n%s", e.Package, strings.Join(output, ""))
			// A package that fails without a failing test did not build, or its
			// test program crashed: that is a failure of its own.
			if r.failed == 0 {
				r.failed++
			}
		} else if e.Action == "pass" && e.Elapsed > 1 {
			fmt.Printf("ok   %-60s %6.1f s\n", e.Package, e.Elapsed)
		}
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
		if e.Elapsed > 10 {
			r.slow = append(r.slow, slowTest{e.Package + " " + e.Test, e.Elapsed})
		}
	case "fail":
		r.failed++
		fmt.Printf("--- FAIL %s %s\n%s", e.Package, e.Test, strings.Join(output, ""))
	case "skip":
		r.skipped++
		reason := "no reason given"
		for _, line := range output {
			if m := skipReason.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
				reason = m[1]
			}
		}
		r.reasons[reason]++
	}
}

func (r *result) print(took time.Duration) int {
	sort.Slice(r.slow, func(i, j int) bool { return r.slow[i].seconds > r.slow[j].seconds })
	for _, s := range r.slow {
		fmt.Printf("slow %-60s %6.1f s\n", s.name, s.seconds)
	}
	why := make([]string, 0, len(r.reasons))
	for reason, n := range r.reasons {
		why = append(why, fmt.Sprintf("%d × %s", n, reason))
	}
	sort.Strings(why)
	skips := fmt.Sprintf("%d skipped", r.skipped)
	if len(why) > 0 {
		skips += " (" + strings.Join(why, "; ") + ")"
	}
	total := r.passed + r.failed + r.skipped
	if file := os.Getenv("ORLOP_SUMMARY"); file != "" {
		line := fmt.Sprintf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
		if err := os.WriteFile(file, []byte(line), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "summary:", err)
			return 1
		}
	}
	fmt.Printf("%d tests: %d passed, %d failed, %s, %d s\n", total, r.passed, r.failed, skips, int(took.Seconds()))
	if r.failed > 0 || r.passed == 0 {
		return 1
	}
	return 0
}

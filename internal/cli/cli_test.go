//go:build unix

package cli

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestNumbersInsideNamesCountByTheirValue(t *testing.T) {
	names := []string{"net10", "net9", "a", "net", "net09", "b2a10", "b2a9", "2 -> x", "10 -> x"}
	slices.SortFunc(names, naturally)
	want := []string{"2 -> x", "10 -> x", "a", "b2a9", "b2a10", "net", "net9", "net09", "net10"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestASignalAlwaysHasTheSameName(t *testing.T) {
	for number, want := range map[unix.Signal]string{unix.SIGTERM: "TERM", unix.SIGINT: "INT", unix.SIGABRT: "ABRT", unix.SIGCHLD: "CHLD", unix.SIGUSR1: "USR1"} {
		if got := signalName(number); got != want {
			t.Errorf("%d: got %s, want %s", number, got, want)
		}
	}
}

func TestVariablesOfTheCommandLineKeepTheirOrderBeforeThoseOfTheConfiguration(t *testing.T) {
	one, two, proxy := "1", "2", "http://p"
	got := withProxies([]string{"Z=1", "A", "M=0", "M=2"}, map[string]*string{"Z": &one, "A": nil, "M": &two, "https_proxy": &proxy, "HTTPS_PROXY": &proxy})
	want := []string{"Z=1", "A", "M=2", "HTTPS_PROXY=http://p", "https_proxy=http://p"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

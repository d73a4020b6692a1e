package limits

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func listed(list string) ([]int, error) {
	var out []int
	err := eachListed(list, func(n int) { out = append(out, n) })
	return out, err
}

func TestListsOfNumbers(t *testing.T) {
	for list, want := range map[string][]int{
		"0": {0}, "0-3,7": {0, 1, 2, 3, 7}, " 1 , 3-3\n": {1, 3}, "4095": {4095}, "2,1": {2, 1},
	} {
		if got, err := listed(list); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", list, got, err, want)
		}
	}
	for _, list := range []string{"", ",", "a", "-1", "1-", "3-1", "0-4294967295", "4096", "99999999999999999999", "0x1"} {
		if got, err := listed(list); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
}

func TestALongListTakesNoMemory(t *testing.T) {
	long := strings.Repeat("0-4095,", 1000) + "1"
	for _, list := range []string{long, "0-4294967295"} {
		got := testing.AllocsPerRun(1, func() { _ = eachListed(list, func(int) {}) })
		if got > 10 {
			t.Errorf("%.20q…: %v allocations", list, got)
		}
	}
}

func FuzzList(f *testing.F) {
	for _, seed := range []string{"0-3,7", "0-4294967295", "0-4095,0-4095", "1-,2", "-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		err := eachListed(list, func(n int) {
			if n < 0 || n >= maxListed {
				t.Fatalf("%q: %d", list, n)
			}
		})
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Fatalf("%q: %v", list, err)
		}
	})
}

package conform

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Cases lists every case, sorted by its id.
func Cases() []Case {
	all := slices.Concat(processCases(), mountCases(), linuxCases(), limitCases(), moreSeccompCases(), runtimeCases(), configCases(), commandCases(), inputCases(),
		optionCases(), idmapCases(), moreHookCases(), terminalCases(), networkCases())
	slices.SortFunc(all, func(a, b Case) int { return strings.Compare(a.ID(), b.ID()) })
	return all
}

// appears waits for a file that a container makes.
func appears(name string) error {
	deadline := time.Now().Add(limit)
	for {
		if _, err := os.Lstat(name); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s did not appear", name)
		}
		<-time.After(10 * time.Millisecond)
	}
}

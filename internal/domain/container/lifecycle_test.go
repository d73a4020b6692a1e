package container

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (run the test with -update and look at the change)\ngot:\n%s", path, got)
	}
}

func TestDiagramIsTheTable(t *testing.T) { golden(t, "lifecycle.txt", Diagram()) }

func TestEveryStateAnswersEveryRequest(t *testing.T) {
	requests := []Act{ActStart, ActPause, ActUnpause, ActStop, ActSignal, ActRemove, ActForceRemove, ActExec}
	for _, s := range States() {
		for _, a := range requests {
			next, err := s.On(a, "ID")
			if errdefs.IsFailedPrecondition(err) {
				t.Errorf("%s has no row for %s", s, a)
			}
			var wait MustWait
			if s.Busy() != errors.As(err, &wait) {
				t.Errorf("%s on %s: busy %v, answer %v", s, a, s.Busy(), err)
			}
			if err != nil && next != s {
				t.Errorf("%s on %s: moved to %s although %v", s, a, next, err)
			}
		}
	}
}

func TestEveryStateCanBeLeftAndReached(t *testing.T) {
	reached := map[State]bool{StateCreated: true}
	for range States() {
		for _, s := range States() {
			if !reached[s] {
				continue
			}
			for _, a := range Acts() {
				if next, err := s.On(a, "ID"); err == nil {
					reached[next] = true
				}
			}
		}
	}
	for _, s := range States() {
		if !reached[s] {
			t.Errorf("nothing leads to %s", s)
		}
		left := slices.ContainsFunc(Acts(), func(a Act) bool {
			next, err := s.On(a, "ID")
			return err == nil && next != s
		})
		if !left {
			t.Errorf("nothing leads out of %s", s)
		}
	}
}

func TestAnExitIsTakenInEveryStateThatIsAlive(t *testing.T) {
	for _, s := range States() {
		for _, a := range []Act{ActEnded, ActEndedAgain} {
			if _, err := s.On(a, "ID"); s.Alive() && err != nil {
				t.Errorf("%s on %s: %v", s, a, err)
			}
		}
	}
}

func TestAnOutcomeThatCannotArriveIsAFault(t *testing.T) {
	if _, err := StateCreated.On(ActPauseDone, "ID"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pause-done in created: %v", err)
	}
}

func TestWireStatesAreDockers(t *testing.T) {
	for _, c := range []struct {
		s       State
		started bool
		want    string
	}{
		{StateCreated, false, "created"}, {StateStarting, false, "created"}, {StateStarting, true, "exited"},
		{StateExited, false, "created"}, {StateExited, true, "exited"}, {StateRunning, true, "running"},
		{StatePausing, true, "running"}, {StatePaused, true, "paused"}, {StateUnpausing, true, "paused"},
		{StateStopping, true, "running"}, {StateRestarting, true, "restarting"}, {StateRelaunching, true, "restarting"},
		{StateRemoving, true, "removing"}, {StateDead, true, "dead"},
	} {
		if got := string(c.s.Wire(c.started)); got != c.want {
			t.Errorf("%s (started %v) is %s on the wire, want %s", c.s, c.started, got, c.want)
		}
	}
}

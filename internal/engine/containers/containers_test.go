package containers_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/engine/containers/containerstest"
)

func TestFakeStoreKeepsTheContract(t *testing.T) {
	containerstest.StoreSuite(t, func(t *testing.T) containers.Store { return containerstest.NewStore(t.TempDir()) }, container.ImageUse{})
}

// wait takes the answer of a wait.
func wait(t *testing.T, c <-chan containertypes.WaitResponse) containertypes.WaitResponse {
	t.Helper()
	select {
	case r, ok := <-c:
		if !ok {
			t.Fatal("wait ended without an answer")
		}
		return r
	case <-t.Context().Done():
		t.Fatal("wait was not answered")
	}
	return containertypes.WaitResponse{}
}

// eventually polls for what happens in another goroutine.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		}
	}
}

func wantText(t *testing.T, err error, is func(error) bool, text string) {
	t.Helper()
	if err == nil || !is(err) || err.Error() != text {
		t.Errorf("error %v\nwant  %s", err, text)
	}
}

func autoRemove(r *containertypes.CreateRequest) { r.HostConfig.AutoRemove = true }

func policy(name containertypes.RestartPolicyMode, most int) func(*containertypes.CreateRequest) {
	return func(r *containertypes.CreateRequest) {
		r.HostConfig.RestartPolicy = containertypes.RestartPolicy{Name: name, MaximumRetryCount: most}
	}
}

func TestRunWithRmCostsTwoCommits(t *testing.T) {
	k := containerstest.New(t)
	m := k.Run(t, "web", autoRemove)
	id := k.Launcher.Launches()[0].ID
	removed, err := k.Wait(t.Context(), id, containertypes.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	m.End(3)
	if r := wait(t, removed); r.StatusCode != 3 || r.Error != nil {
		t.Errorf("wait answered %+v", r)
	}
	if n := k.Store.Commits(); n != 2 {
		t.Errorf("%d commits, want create and delete", n)
	}
	want := []string{"create", "start", "die", "destroy"}
	if got := k.Events.Actions(events.ContainerEventType); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	if die, _ := k.Events.Last(events.ActionDie); die.Actor.Attributes["exitCode"] != "3" || die.Actor.Attributes["name"] != "web" || die.Actor.Attributes["image"] != "busybox" {
		t.Errorf("die has attributes %v", die.Actor.Attributes)
	}
	if _, err := k.Inspect(t.Context(), "web", false); !errdefs.IsNotFound(err) {
		t.Errorf("inspect after removal: %v", err)
	}
	eventually(t, "run folder swept", func() bool { left, _ := k.Launcher.Leftovers(); return len(left) == 0 })
	if k.Networks.Count() != 0 {
		t.Error("the sandbox is still open")
	}
}

func TestARmContainerThatRunsLongerIsRecordedAsRunning(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web", autoRemove)
	id := k.Launcher.Launches()[0].ID
	if s := k.Store.Saved(t, id); s.State != container.StateCreated {
		t.Errorf("saved state is %s right after the start", s.State)
	}
	k.Clock.WaitFor(t, time.Second/2, time.Second)
	k.Clock.Move(time.Second)
	eventually(t, "saved as running", func() bool { return k.Store.Saved(t, id).State == container.StateRunning })
}

func TestNamesAreRefusedInDockersWords(t *testing.T) {
	k := containerstest.New(t)
	id := k.Make(t, "web")
	req := containertypes.CreateRequest{Config: &containertypes.Config{Image: "busybox"}}
	_, err := k.Create(t.Context(), containers.CreateOptions{Name: "web", Request: req})
	wantText(t, err, errdefs.IsConflict, `Conflict. The container name "/web" is already in use by container "`+id+`". You have to remove (or rename) that container to be able to reuse that name.`)
	_, err = k.Create(t.Context(), containers.CreateOptions{Name: "a b", Request: req})
	wantText(t, err, errdefs.IsInvalidArgument, `Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`)
	_, err = k.Create(t.Context(), containers.CreateOptions{Request: containertypes.CreateRequest{Config: &containertypes.Config{Image: "nope"}}})
	wantText(t, err, errdefs.IsNotFound, "No such image: nope:latest")
	wantText(t, k.Start(t.Context(), "ghost"), errdefs.IsNotFound, "No such container: ghost")
	if n := len(k.Events.Actions(events.ContainerEventType)); n != 1 {
		t.Errorf("refused creates left %d events", n-1)
	}
}

func TestVerbsOnTheWrongStateAnswerAsDocker(t *testing.T) {
	k := containerstest.New(t)
	id := k.Make(t, "web")
	wantText(t, k.Stop(t.Context(), "web", containers.StopOptions{}), errdefs.IsNotModified, "container is already stopped")
	wantText(t, k.Kill(t.Context(), "web", ""), errdefs.IsConflict, "container "+id+" is not running")
	wantText(t, k.Pause(t.Context(), "web"), errdefs.IsConflict, "container "+id+" is not running")
	if err := k.Start(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	wantText(t, k.Start(t.Context(), "web"), errdefs.IsNotModified, "container is already running")
	wantText(t, k.Remove(t.Context(), "web", containers.RemoveOptions{}), errdefs.IsConflict,
		`cannot remove container "/web": container is running: stop the container before removing or force remove`)
	if err := k.Pause(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	wantText(t, k.Start(t.Context(), "web"), errdefs.IsConflict, "cannot start a paused container, try unpause instead")
	wantText(t, k.Pause(t.Context(), "web"), errdefs.IsConflict, "container "+id+" is already paused")
	_, err := k.ExecCreate(t.Context(), "web", containertypes.ExecCreateRequest{Cmd: []string{"true"}})
	wantText(t, err, errdefs.IsConflict, "Container "+id+" is paused, unpause the container before exec")
	wantText(t, k.Remove(t.Context(), "web", containers.RemoveOptions{}), errdefs.IsConflict,
		`cannot remove container "/web": container is paused and must be unpaused first`)
	if s := k.State(t, "web"); s.Status != containertypes.StatePaused || !s.Running || !s.Paused || s.Pid != containerstest.InitPid {
		t.Errorf("state %+v", s)
	}
}

func TestStartThatFailsRecordsItsCodeAndLeavesNothing(t *testing.T) {
	k := containerstest.New(t)
	id := k.Make(t, "web")
	k.Launcher.Fail(containerstest.Failure{Code: 127, Message: `exec: "foo": executable file not found in $PATH`})
	err := k.Start(t.Context(), "web")
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "executable file not found in $PATH") {
		t.Fatalf("start: %v", err)
	}
	if s := k.State(t, "web"); s.Status != containertypes.StateCreated || s.ExitCode != 127 || s.Error != err.Error() {
		t.Errorf("state %+v", s)
	}
	if s := k.Store.Saved(t, id); s.ExitCode != 127 {
		t.Errorf("saved exit code %d", s.ExitCode)
	}
	if k.Networks.Count() != 0 {
		t.Error("the sandbox of a failed start is open")
	}
	k.Launcher.Fail(nil)
	if err := k.Start(t.Context(), "web"); err != nil {
		t.Fatalf("start after the cause is gone: %v", err)
	}
	if s := k.State(t, "web"); s.ExitCode != 0 || s.Error != "" {
		t.Errorf("state after a good start %+v", s)
	}

	k.Launcher.Fail(containerstest.Failure{Code: 126, Message: `exec: "/etc": is a directory`})
	gone := k.Make(t, "rm", autoRemove)
	err = k.Start(t.Context(), gone)
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("clients find 126 by the words permission denied; got %v", err)
	}
	if _, err := k.Inspect(t.Context(), gone, false); !errdefs.IsNotFound(err) {
		t.Errorf("--rm container that did not start: %v", err)
	}
}

func TestANetworkThatFailsKeepsItsClass(t *testing.T) {
	k := containerstest.New(t)
	k.Networks.OpenError = errdefs.ErrNotFound.WithMessage("network nope not found")
	id := k.Make(t, "web")
	wantText(t, k.Start(t.Context(), id), errdefs.IsNotFound, "network nope not found")
	if s := k.State(t, id); s.ExitCode != 128 {
		t.Errorf("exit code %d, want 128", s.ExitCode)
	}
}

func TestStopSendsTheSignalThenKills(t *testing.T) {
	k := containerstest.New(t)
	m := k.Run(t, "web", func(r *containertypes.CreateRequest) { r.Config.StopSignal = "SIGQUIT" })
	done := make(chan error, 1)
	go func() { done <- k.Stop(t.Context(), "web", containers.StopOptions{}) }()
	k.Clock.WaitFor(t, 9*time.Second, 10*time.Second)
	if s := k.State(t, "web"); s.Status != containertypes.StateRunning {
		t.Errorf("status while stopping is %s", s.Status)
	}
	k.Clock.Move(10 * time.Second)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := m.Signals(); !slices.Equal(got, []int{3, 9}) {
		t.Errorf("signals %v, want SIGQUIT and SIGKILL", got)
	}
	want := []string{"create", "start", "kill", "kill", "die", "stop"}
	if got := k.Events.Actions(events.ContainerEventType); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	if s := k.State(t, "web"); s.Status != containertypes.StateExited || s.ExitCode != 137 {
		t.Errorf("state %+v", s)
	}
}

func TestAStuckMonitorEndsWithItsContainer(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web").Stick()
	k.Run(t, "other")
	done := make(chan error, 1)
	go func() { done <- k.Remove(t.Context(), "web", containers.RemoveOptions{Force: true}) }()
	k.Clock.WaitFor(t, 4*time.Second, 5*time.Second)
	// Nobody else waits for it.
	if list, err := k.List(t.Context(), containers.ListOptions{All: true}); err != nil || len(list) != 2 {
		t.Errorf("listed %d, %v", len(list), err)
	}
	if err := k.Kill(t.Context(), "other", "KILL"); err != nil {
		t.Error(err)
	}
	k.Clock.Move(5 * time.Second) // the signal is given up
	k.Clock.WaitFor(t, time.Second, 2*time.Second)
	k.Clock.Move(2 * time.Second) // and so is the monitor
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := k.Inspect(t.Context(), "web", false); !errdefs.IsNotFound(err) {
		t.Errorf("after its removal: %v", err)
	}
}

func TestTwoStopsAtOnceBothSucceed(t *testing.T) {
	k := containerstest.New(t)
	m := k.Run(t, "web")
	m.OnSignal(func(*containerstest.Monitor, int) {})
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if err := k.Stop(t.Context(), "web", containers.StopOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "both have sent theirs", func() bool { return len(m.Signals()) == 2 })
	m.End(0)
	all.Wait()
}

// An exit is recorded while its ports are given back; who waits for the container
// hears of it afterwards.
func TestWaitComesAfterThePortsAreFree(t *testing.T) {
	k := containerstest.New(t)
	m := k.Run(t, "web")
	k.Networks.CloseGate = make(chan struct{})
	m.End(3)
	eventually(t, "the exit is recorded", func() bool { return k.State(t, "web").Status == containertypes.StateExited })
	answer, err := k.Wait(t.Context(), "web", containertypes.WaitConditionNotRunning)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-answer:
		t.Errorf("answered %+v before the ports were free", a)
	default:
	}
	close(k.Networks.CloseGate)
	if a := <-answer; a.StatusCode != 3 {
		t.Errorf("answered %+v", a)
	}
	k.State(t, "web")
	if answer, err = k.Wait(t.Context(), "web", containertypes.WaitConditionNotRunning); err != nil || (<-answer).StatusCode != 3 {
		t.Error(err)
	}
}

func TestStoppingAPausedContainerThawsIt(t *testing.T) {
	k := containerstest.New(t)
	m := k.Run(t, "web")
	if err := k.Pause(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	m.OnSignal(func(m *containerstest.Monitor, sig int) {
		if sig == 15 {
			go func() {
				for m.Frozen() {
					time.Sleep(0) // a frozen process handles no signal
				}
				m.End(0)
			}()
		}
	})
	if err := k.Stop(t.Context(), "web", containers.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	want := []string{"create", "start", "pause", "kill", "unpause", "die", "stop"}
	got := k.Events.Actions(events.ContainerEventType)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestPauseRecordsItsOutcomeAfterTheCallerLeft(t *testing.T) {
	k := containerstest.New(t)
	m := k.Run(t, "web")
	gate := make(chan struct{})
	m.HoldPause(gate, nil)
	done := make(chan error, 1)
	go func() { done <- k.Pause(t.Context(), "web") }()
	<-k.Launcher.Entered
	// Another verb waits for the outcome and then is told that it is paused.
	started := make(chan error, 1)
	go func() { started <- k.Start(t.Context(), "web") }()
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantText(t, <-started, errdefs.IsConflict, "cannot start a paused container, try unpause instead")
}

func TestAnExitDuringPauseIsTheOutcome(t *testing.T) {
	k := containerstest.New(t)
	m := k.Run(t, "web")
	gate := make(chan struct{})
	m.HoldPause(gate, nil)
	done := make(chan error, 1)
	go func() { done <- k.Pause(t.Context(), "web") }()
	<-k.Launcher.Entered
	exit, err := k.Wait(t.Context(), "web", containertypes.WaitConditionNotRunning)
	if err != nil {
		t.Fatal(err)
	}
	m.End(7)
	if r := wait(t, exit); r.StatusCode != 7 {
		t.Errorf("wait answered %+v", r)
	}
	close(gate)
	if err := <-done; !errdefs.IsConflict(err) {
		t.Errorf("pause of a container that ended: %v", err)
	}
	if s := k.State(t, "web"); s.Status != containertypes.StateExited || s.ExitCode != 7 {
		t.Errorf("state %+v", s)
	}
}

func TestStopDuringStartWaitsForIt(t *testing.T) {
	k := containerstest.New(t)
	k.Make(t, "web")
	gate := make(chan struct{})
	k.Launcher.Gate = gate
	started := make(chan error, 1)
	go func() { started <- k.Start(t.Context(), "web") }()
	<-k.Launcher.Entered
	stopped := make(chan error, 1)
	zero := 0
	go func() { stopped <- k.Stop(t.Context(), "web", containers.StopOptions{Timeout: &zero}) }()
	close(gate)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if s := k.State(t, "web"); s.Status != containertypes.StateExited || s.ExitCode != 137 {
		t.Errorf("state %+v", s)
	}
}

func TestForcedRemovalKillsFirst(t *testing.T) {
	k := containerstest.New(t)
	m := k.Run(t, "web")
	if err := k.Remove(t.Context(), "web", containers.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if got := m.Signals(); !slices.Equal(got, []int{9}) {
		t.Errorf("signals %v", got)
	}
	want := []string{"create", "start", "kill", "die", "destroy"}
	if got := k.Events.Actions(events.ContainerEventType); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestARemovalThatFailsLeavesADeadContainerThatCanBeRemoved(t *testing.T) {
	k := containerstest.New(t)
	k.Make(t, "web")
	gone, err := k.Wait(t.Context(), "web", containertypes.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	k.Store.DeleteError = errors.New("device or resource busy")
	if err := k.Remove(t.Context(), "web", containers.RemoveOptions{}); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Fatalf("remove: %v", err)
	}
	if r := wait(t, gone); r.Error == nil || !strings.Contains(r.Error.Message, "busy") {
		t.Errorf("wait for the removal answered %+v", r)
	}
	if s := k.State(t, "web"); s.Status != containertypes.StateDead || !s.Dead {
		t.Errorf("state %+v", s)
	}
	wantText(t, k.Start(t.Context(), "web"), errdefs.IsConflict, "container is marked for removal and cannot be started")
	k.Store.DeleteError = nil
	if err := k.Remove(t.Context(), "web", containers.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestRestartPolicyBacksOffAndGivesUp(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web", policy(containertypes.RestartPolicyOnFailure, 2))
	id := k.Launcher.Launches()[0].ID
	for i, delay := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond} {
		k.Launcher.Monitor(id).End(1)
		k.Clock.WaitFor(t, delay-10*time.Millisecond, delay)
		if s := k.State(t, "web"); s.Status != containertypes.StateRestarting || !s.Restarting || !s.Running {
			t.Errorf("state while it waits %+v", s)
		}
		k.Clock.Move(delay)
		eventually(t, "restarted", func() bool { return len(k.Launcher.Launches()) == i+2 && k.State(t, "web").Status == "running" })
	}
	exit, err := k.Wait(t.Context(), id, containertypes.WaitConditionNextExit)
	if err != nil {
		t.Fatal(err)
	}
	k.Launcher.Monitor(id).End(1)
	wait(t, exit)
	if s := k.State(t, "web"); s.Status != containertypes.StateExited {
		t.Errorf("state after the last try %+v", s)
	}
	if r, _ := k.Inspect(t.Context(), "web", false); r.RestartCount != 2 {
		t.Errorf("restart count %d", r.RestartCount)
	}
}

func TestStopCallsAWaitingRestartOff(t *testing.T) {
	k := containerstest.New(t)
	m := k.Run(t, "web", policy(containertypes.RestartPolicyAlways, 0))
	m.End(0)
	k.Clock.WaitFor(t, 90*time.Millisecond, 100*time.Millisecond)
	eventually(t, "it waits for its restart", func() bool { return k.State(t, "web").Restarting })
	if err := k.Stop(t.Context(), "web", containers.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	k.Clock.Move(time.Minute)
	if s := k.State(t, "web"); s.Status != containertypes.StateExited || len(k.Launcher.Launches()) != 1 {
		t.Errorf("state %+v after %d launches", s, len(k.Launcher.Launches()))
	}
}

func TestRestartKeepsARmContainer(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web", autoRemove)
	zero := 0
	if err := k.Restart(t.Context(), "web", containers.StopOptions{Timeout: &zero}); err != nil {
		t.Fatal(err)
	}
	if s := k.State(t, "web"); s.Status != containertypes.StateRunning {
		t.Errorf("state %+v", s)
	}
	want := []string{"create", "start", "kill", "kill", "die", "stop", "start", "restart"}
	if got := k.Events.Actions(events.ContainerEventType); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestADaemonThatReturnsFindsWhatRuns(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web")
	paused := k.Run(t, "paused")
	if err := k.Pause(t.Context(), "paused"); err != nil {
		t.Fatal(err)
	}
	k.Make(t, "idle")
	k.Reboot(t)
	if s := k.State(t, "web"); s.Status != containertypes.StateRunning || s.Pid != containerstest.InitPid {
		t.Errorf("web: %+v", s)
	}
	if s := k.State(t, "paused"); s.Status != containertypes.StatePaused || !paused.Frozen() {
		t.Errorf("paused: %+v", s)
	}
	if s := k.State(t, "idle"); s.Status != containertypes.StateCreated {
		t.Errorf("idle: %+v", s)
	}
	if len(k.Networks.Restored) != 2 {
		t.Errorf("%d sandboxes were handed to the networks", len(k.Networks.Restored))
	}
	// It is in our hands again.
	zero := 0
	if err := k.Stop(t.Context(), "web", containers.StopOptions{Timeout: &zero}); err != nil {
		t.Fatal(err)
	}
}

func TestAnExitWithoutADaemonIsReportedWithItsCode(t *testing.T) {
	k := containerstest.New(t)
	web := k.Run(t, "web")
	gone := k.Run(t, "gone", autoRemove)
	again := k.Run(t, "again", policy(containertypes.RestartPolicyAlways, 0))
	old := k.Service
	if err := old.Shutdown(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	web.End(5)
	gone.End(6)
	again.EndBecause(137, container.ReasonMonitorLost)
	k.Reboot(t)
	if s := k.State(t, "web"); s.Status != containertypes.StateExited || s.ExitCode != 5 {
		t.Errorf("web: %+v", s)
	}
	if _, err := k.Inspect(t.Context(), "gone", false); !errdefs.IsNotFound(err) {
		t.Errorf("--rm container that ended meanwhile: %v", err)
	}
	k.Clock.WaitFor(t, 90*time.Millisecond, 100*time.Millisecond)
	if s := k.State(t, "again"); !s.Restarting || s.ExitCode != 137 || s.Error != "monitor lost" {
		t.Errorf("again: %+v", s)
	}
	k.Clock.Move(100 * time.Millisecond)
	eventually(t, "restarted by its policy", func() bool { return k.State(t, "again").Status == "running" })
}

// A daemon is killed while it removes what an earlier run left, or before a new
// run has its process: the end that is recorded stays.
func TestARecordedExitIsNotReplacedByALostMonitor(t *testing.T) {
	for name, c := range map[string]struct {
		restarted, told bool
		want            int
	}{
		"the run's folder was being removed":  {want: 5},
		"the next start had no process":       {restarted: true, want: 5},
		"the next run's start was not stored": {restarted: true, told: true, want: 137},
	} {
		t.Run(name, func(t *testing.T) {
			k := containerstest.New(t)
			web := k.Run(t, "web")
			id := k.Launcher.Launches()[0].ID
			folder, err := k.RunDir.Read(id, "run.json")
			if err != nil {
				t.Fatal(err)
			}
			k.Clock.Move(time.Second)
			web.End(5)
			eventually(t, "it ends", func() bool { return k.State(t, "web").Status == containertypes.StateExited })
			records, _, err := k.Store.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			k.Clock.Move(time.Second)
			if c.restarted {
				if err := k.Start(t.Context(), "web"); err != nil {
					t.Fatal(err)
				}
				if folder, err = k.RunDir.Read(id, "run.json"); err != nil {
					t.Fatal(err)
				}
				if !c.told {
					folder = []byte("{}")
				}
			}
			if err := k.Shutdown(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(k.Store.Save(t.Context(), records[0]), k.RunDir.Write(id, "run.json", folder)); err != nil {
				t.Fatal(err)
			}
			k.Launcher.Leave(id, container.Exit{Code: 137, Time: k.Clock.Now().Add(time.Second), Reason: container.ReasonMonitorLost})
			k.Reboot(t)
			if s := k.State(t, "web"); s.Status != containertypes.StateExited || s.ExitCode != c.want {
				t.Errorf("status %d wanted: %+v", c.want, s)
			}
			eventually(t, "its folder goes", func() bool {
				left, err := k.Launcher.Leftovers()
				return err == nil && len(left) == 0
			})
		})
	}
}

func TestAfterAnotherBootRunningBecomesExited255(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web")
	k.Run(t, "always", policy(containertypes.RestartPolicyAlways, 0))
	k.Run(t, "unless", policy(containertypes.RestartPolicyUnlessStopped, 0))
	zero := 0
	if err := k.Stop(t.Context(), "unless", containers.StopOptions{Timeout: &zero}); err != nil {
		t.Fatal(err)
	}
	if err := k.Shutdown(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	k.Launcher.PowerOff()
	k.Reboot(t)
	if s := k.State(t, "web"); s.Status != containertypes.StateExited || s.ExitCode != 255 {
		t.Errorf("web: %+v", s)
	}
	eventually(t, "always runs again", func() bool { return k.State(t, "always").Status == "running" })
	if s := k.State(t, "unless"); s.Status != containertypes.StateExited {
		t.Errorf("unless: %+v", s)
	}
}

func TestALeftoverWithoutARecordIsSwept(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web")
	id := k.Launcher.Launches()[0].ID
	if err := k.Shutdown(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := k.Store.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	m := k.Launcher.Monitor(id)
	k.Reboot(t)
	select {
	case <-m.Exited():
	default:
		t.Error("a container without a record goes on")
	}
	if left, _ := k.Launcher.Leftovers(); len(left) != 0 {
		t.Errorf("run folders %v are left", left)
	}
}

func TestShutdownStopsDependentsFirst(t *testing.T) {
	k := containerstest.New(t)
	var mu sync.Mutex
	var order []string
	ended := func(name string) func(*containerstest.Monitor, int) {
		return func(m *containerstest.Monitor, _ int) {
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			m.End(0)
		}
	}
	k.Run(t, "db").OnSignal(ended("db"))
	k.Run(t, "app", func(r *containertypes.CreateRequest) { r.HostConfig.NetworkMode = "container:db" }).OnSignal(ended("app"))
	k.Run(t, "probe", func(r *containertypes.CreateRequest) { r.HostConfig.PidMode = "container:app" }).OnSignal(ended("probe"))
	if err := k.Shutdown(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if want := []string{"probe", "app", "db"}; !slices.Equal(order, want) {
		t.Errorf("stopped in order %v, want %v", order, want)
	}
	if s := k.Store.Saved(t, k.Launcher.Launches()[0].ID); s.ManuallyStopped {
		t.Error("a shutdown counts as a stop by a user")
	}
}

func TestClientsAttachedBeforeTheStartSeeTheFirstByte(t *testing.T) {
	k := containerstest.New(t)
	id := k.Make(t, "web", func(r *containertypes.CreateRequest) { r.Config.OpenStdin, r.Config.StdinOnce = true, true })
	in, typed := io.Pipe()
	out, seen := newCapture()
	opened := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- k.Attach(t.Context(), id, containers.AttachOptions{
			Stdin: true, Stdout: true, Stderr: true, Stream: true,
			Streams: func(tty bool) (containers.Streams, error) {
				close(opened)
				return containers.Streams{In: in, Out: out, Err: out}, nil
			},
		})
	}()
	<-opened
	eventually(t, "attach event", func() bool {
		return slices.Contains(k.Events.Actions(events.ContainerEventType), "attach")
	})
	if err := k.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	m := k.Launcher.Monitor(id)
	m.Write(1, "first byte")
	eventually(t, "output arrived", func() bool { return seen() == "first byte" })
	if _, err := typed.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	typed.Close()
	m.End(0)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := []string{"create", "attach", "start", "die"}
	if got := k.Events.Actions(events.ContainerEventType); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestDetachKeysEndTheSessionAndNotTheContainer(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web", func(r *containertypes.CreateRequest) { r.Config.OpenStdin, r.Config.Tty = true, true })
	in, typed := io.Pipe()
	out, _ := newCapture()
	done := make(chan error, 1)
	go func() {
		done <- k.Attach(t.Context(), "web", containers.AttachOptions{
			Stdin: true, Stdout: true, Stream: true,
			Streams: func(bool) (containers.Streams, error) { return containers.Streams{In: in, Out: out}, nil },
		})
	}()
	if _, err := typed.Write([]byte{16, 17}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := k.State(t, "web"); s.Status != containertypes.StateRunning {
		t.Errorf("state %+v", s)
	}
	if _, ok := k.Events.Last(events.ActionDetach); !ok {
		t.Error("no detach event")
	}
}

func TestUsersAreResolvedFromTheContainersOwnFiles(t *testing.T) {
	k := containerstest.New(t)
	etc := filepath.Join(k.Store.Layer(), "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(etc, "passwd"), "root:x:0:0::/root:/bin/sh\napp:x:900:901::/srv:/bin/sh\n")
	write(filepath.Join(etc, "group"), "root:x:0:\nbin:x:1:root,app\nstaff:x:50:\n")
	userOf := func(name string, change func(*containertypes.CreateRequest)) string {
		t.Helper()
		id := k.Make(t, name, change)
		if err := k.Start(t.Context(), id); err != nil {
			return err.Error()
		}
		launches := k.Launcher.Launches()
		return fmt.Sprint(launches[len(launches)-1].Spec.Process.User)
	}
	for _, c := range []struct {
		user string
		add  []string
		want string
	}{
		{"", nil, "{0 0 <nil> [0 1] }"},
		{"app", nil, "{900 901 <nil> [901 1] }"},
		{"app:staff", nil, "{900 50 <nil> [50] }"},
		{"1234", nil, "{1234 0 <nil> [0] }"},
		{"900", []string{"staff"}, "{900 901 <nil> [901 1 50] }"},
		{"900", []string{"77"}, "{900 901 <nil> [901 1 77] }"},
		{"ghost", nil, "unable to find user ghost: no matching entries in passwd file"},
		{"", []string{"ghosts"}, "unable to find group ghosts: no matching entries in group file"},
	} {
		got := userOf("c-"+strings.Map(func(r rune) rune {
			if r == ':' {
				return '-'
			}
			return r
		}, c.user)+strings.Join(c.add, ""), func(r *containertypes.CreateRequest) {
			r.Config.User, r.HostConfig.GroupAdd = c.user, c.add
		})
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("user %q, groups %v: %s\nwant %s", c.user, c.add, got, c.want)
		}
	}

	// What the container itself has written counts, and nothing of the host.
	id := k.Make(t, "own", func(r *containertypes.CreateRequest) { r.Config.User = "app" })
	upper := filepath.Join(k.Store.Dir(id), "upper", "etc")
	if err := os.MkdirAll(upper, 0o755); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(upper, "passwd"), "app:x:7:8::/:/bin/sh\n")
	if err := k.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	launches := k.Launcher.Launches()
	if u := launches[len(launches)-1].Spec.Process.User; u.UID != 7 || u.GID != 8 {
		t.Errorf("user %+v", u)
	}
	_, err := k.ExecCreate(t.Context(), "own", containertypes.ExecCreateRequest{Cmd: []string{"id"}, User: "ghost"})
	wantText(t, err, errdefs.IsInvalidArgument, "unable to find user ghost: no matching entries in passwd file")
}

func TestTheWorkingDirectoryIsMadeWhereTheImageHasNone(t *testing.T) {
	k := containerstest.New(t)
	run := func(name, dir string) string {
		t.Helper()
		id := k.Make(t, name, func(r *containertypes.CreateRequest) { r.Config.WorkingDir = dir })
		if err := k.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(k.Store.Dir(id), "upper")
	}
	// The fake's view is its writable layer.
	if info, err := os.Stat(filepath.Join(run("new", "/srv/app"), "srv", "app")); err != nil || !info.IsDir() {
		t.Errorf("/srv/app: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(k.Store.Layer(), "opt", "app"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(run("old", "/opt/app"), "opt")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder of the image was made again: %v", err)
	}
	// A path that the container itself has removed is not the image's any more.
	id := k.Make(t, "gone", func(r *containertypes.CreateRequest) { r.Config.WorkingDir = "/opt/app" })
	upper := filepath.Join(k.Store.Dir(id), "upper")
	if err := os.MkdirAll(upper, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mknod(filepath.Join(upper, "opt"), syscall.S_IFCHR, 0); err != nil {
		t.Skipf("whiteouts cannot be made here: %v", err)
	}
	if err := k.Start(t.Context(), id); err == nil {
		t.Error("the whiteout was not seen: nothing tried to make the folder")
	}
}

func TestAnAdoptedExecIsShownAsItWasAskedFor(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web")
	id, err := k.ExecCreate(t.Context(), "web", containertypes.ExecCreateRequest{
		Cmd: []string{"sh", "-c", "sleep 1h"}, User: "1000", Privileged: true, Env: []string{"SECRET=1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.ExecStart(t.Context(), id, containers.ExecStartOptions{Detach: true}); err != nil {
		t.Fatal(err)
	}
	before, err := k.ExecInspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	note := k.Launcher.Monitor(k.Launcher.Launches()[0].ID).ExecOf(id).Note()
	if strings.Contains(string(note), "SECRET") {
		t.Errorf("the monitor keeps the environment: %s", note)
	}
	k.Reboot(t)
	after, err := k.ExecInspect(t.Context(), id)
	if diff := cmp.Diff(before, after); err != nil || diff != "" {
		t.Errorf("%v, after the daemon's restart:\n%s", err, diff)
	}
}

func TestExecTellsItsExit(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web", func(r *containertypes.CreateRequest) { r.Config.User = "1000" })
	id, err := k.ExecCreate(t.Context(), "web", containertypes.ExecCreateRequest{Cmd: []string{"true"}, AttachStdout: true, Env: []string{"FROM=exec"}})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := newCapture()
	start := containers.ExecStartOptions{Streams: func(bool) (containers.Streams, error) { return containers.Streams{Out: out, Err: out}, nil }}
	if err := k.ExecStart(t.Context(), id, start); err != nil {
		t.Fatal(err)
	}
	x, err := k.ExecInspect(t.Context(), id)
	if err != nil || x.Running || x.ExitCode == nil || *x.ExitCode != 0 || x.Pid != 77 {
		t.Errorf("inspect %+v, %v", x, err)
	}
	process := k.Launcher.Monitor(k.Launcher.Launches()[0].ID).ExecOf(id).Process
	if process.User.UID != 1000 || !slices.Contains(process.Env, "FROM=exec") || slices.Contains(process.Env, "FROM=image") {
		t.Errorf("process %+v", process)
	}
	wantText(t, k.ExecStart(t.Context(), id, start), errdefs.IsConflict, "exec command "+id+" has already run")
	eventually(t, "exec_die", func() bool { _, ok := k.Events.Last(events.ActionExecDie); return ok })

	id, err = k.ExecCreate(t.Context(), "web", containertypes.ExecCreateRequest{Cmd: []string{"missing"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.ExecStart(t.Context(), id, start); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("exec of a missing program: %v", err)
	}
	if x, err = k.ExecInspect(t.Context(), id); err != nil || *x.ExitCode != 127 {
		t.Errorf("inspect %+v, %v", x, err)
	}
	if _, err := k.ExecInspect(t.Context(), "nope"); err == nil || err.Error() != "No such exec instance: nope" {
		t.Errorf("inspect of no exec: %v", err)
	}
}

func TestImageVolumesAreFilledAndGoWithTheirContainer(t *testing.T) {
	k := containerstest.New(t)
	k.Images.Add("db", func(i *containers.Image) { i.Config.Config.Volumes = map[string]struct{}{"/var/data": {}} })
	// The layer that every fake container stands on.
	seed := filepath.Join(k.Store.Layer(), "var", "data")
	if err := os.MkdirAll(seed, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(seed, "seed"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := k.Make(t, "db", func(r *containertypes.CreateRequest) { r.Config.Image = "db" })
	resp, err := k.Inspect(t.Context(), id, false)
	if err != nil || len(resp.Mounts) != 1 || resp.Mounts[0].Destination != "/var/data" {
		t.Fatalf("mounts %+v, %v", resp.Mounts, err)
	}
	if data, err := os.ReadFile(filepath.Join(resp.Mounts[0].Source, "seed")); err != nil || string(data) != "x" {
		t.Errorf("volume has %q, %v", data, err)
	}
	if info, err := os.Stat(resp.Mounts[0].Source); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("volume's folder is %v, %v; want the mode of the image's", info.Mode(), err)
	}
	if err := k.Remove(t.Context(), id, containers.RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if left := k.Volumes.List(t); len(left) != 0 {
		t.Errorf("volumes %v are left", left)
	}
}

func TestLabelsOfAnImageDoNotSayHowPortsArePublished(t *testing.T) {
	k := containerstest.New(t)
	const all, one = "orlop.publish.input", "orlop.publish.80/tcp.input"
	k.Images.Add("pushy", func(i *containers.Image) { i.Config.Config.Labels = map[string]string{all: "bypass", "tier": "front"} })
	labeled := func(labels map[string]string) func(*containertypes.CreateRequest) {
		return func(r *containertypes.CreateRequest) {
			r.Config.Image, r.Config.Labels = "pushy", labels
			r.HostConfig = &containertypes.HostConfig{PortBindings: networktypes.PortMap{networktypes.MustParsePort("80/tcp"): {{HostPort: "8080"}}}}
		}
	}
	k.Run(t, "quiet", labeled(nil))
	k.Run(t, "loud", labeled(map[string]string{one: "obey", "x": "y"}))
	want := []map[string]string{nil, {one: "obey"}}
	for i, req := range k.Networks.Opened {
		if !maps.Equal(req.Publish, want[i]) {
			t.Errorf("container %d is published by %v, want %v", i, req.Publish, want[i])
		}
	}
	// Everybody sees all of them.
	resp, err := k.Inspect(t.Context(), "quiet", false)
	if err != nil || resp.Config.Labels[all] != "bypass" {
		t.Errorf("labels %v, %v", resp.Config.Labels, err)
	}
	for _, labels := range []map[string]string{{all: "maybe"}, {"orlop.publish.8080/tcp.input": "obey"}, {"orlop.publish.80": "obey"}} {
		req := containertypes.CreateRequest{Config: &containertypes.Config{}}
		labeled(labels)(&req)
		_, err := k.Create(t.Context(), containers.CreateOptions{Name: "odd", Request: req})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("labels %v: %v", labels, err)
		}
	}
}

func TestListFiltersAsDocker(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web", func(r *containertypes.CreateRequest) { r.Config.Labels = map[string]string{"tier": "front"} })
	k.Run(t, "db").End(3)
	k.Make(t, "idle")
	eventually(t, "db has ended", func() bool { return k.State(t, "db").Status == "exited" })
	names := func(opts containers.ListOptions) string {
		list, err := k.List(t.Context(), opts)
		if err != nil {
			t.Fatalf("list %+v: %v", opts, err)
		}
		var out []string
		for _, c := range list {
			out = append(out, strings.TrimPrefix(c.Names[0], "/"))
		}
		return strings.Join(out, ",")
	}
	for _, c := range []struct {
		opts containers.ListOptions
		want string
	}{
		{containers.ListOptions{}, "web"},
		{containers.ListOptions{All: true}, "idle,db,web"},
		{containers.ListOptions{Limit: 2}, "idle,db"},
		{containers.ListOptions{Filters: map[string][]string{"status": {"exited"}}}, "db"},
		{containers.ListOptions{All: true, Filters: map[string][]string{"exited": {"3"}}}, "db"},
		{containers.ListOptions{All: true, Filters: map[string][]string{"label": {"tier=front"}}}, "web"},
		{containers.ListOptions{All: true, Filters: map[string][]string{"name": {"^/d"}}}, "db"},
		{containers.ListOptions{All: true, Filters: map[string][]string{"before": {"db"}}}, "web"},
		{containers.ListOptions{All: true, Filters: map[string][]string{"since": {"db"}}}, "idle"},
		{containers.ListOptions{All: true, Filters: map[string][]string{"ancestor": {"busybox"}}}, "idle,db,web"},
		{containers.ListOptions{All: true, Filters: map[string][]string{"ancestor": {"other"}}}, ""},
		{containers.ListOptions{All: true, Filters: map[string][]string{"network": {"bridge"}}}, "idle,db,web"},
		{containers.ListOptions{All: true, Filters: map[string][]string{"health": {"none"}}}, "idle,db,web"},
	} {
		if got := names(c.opts); got != c.want {
			t.Errorf("list %+v: %q, want %q", c.opts, got, c.want)
		}
	}
	_, err := k.List(t.Context(), containers.ListOptions{Filters: map[string][]string{"size": {"big"}}})
	wantText(t, err, errdefs.IsInvalidArgument, "invalid filter 'size'")
	_, err = k.List(t.Context(), containers.ListOptions{Filters: map[string][]string{"status": {"asleep"}}})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown status: %v", err)
	}
}

func TestLogsFollowUntilTheExit(t *testing.T) {
	k := containerstest.New(t)
	m := k.Run(t, "web")
	log, err := k.Logs(t.Context(), "web", containers.LogsOptions{Stdout: true, Follow: true, Tail: "all"})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var lines []string
	for {
		e, err := log.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.TrimSpace(string(e.Line)))
		m.End(0)
	}
	if want := []string{"out", "last"}; !slices.Equal(lines, want) {
		t.Errorf("lines %v, want %v", lines, want)
	}
	_, err = k.Logs(t.Context(), "web", containers.LogsOptions{})
	wantText(t, err, errdefs.IsInvalidArgument, "You must choose at least one stream")
	k.Make(t, "mute", func(r *containertypes.CreateRequest) { r.HostConfig.LogConfig.Type = "none" })
	_, err = k.Logs(t.Context(), "mute", containers.LogsOptions{Stdout: true})
	wantText(t, err, errdefs.IsNotImplemented, "configured logging driver does not support reading")
}

func TestRenameFreesTheOldName(t *testing.T) {
	k := containerstest.New(t)
	id := k.Make(t, "web")
	k.Make(t, "db")
	err := k.Rename(t.Context(), "web", "db")
	if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), `The container name "/db" is already in use`) {
		t.Errorf("rename to a taken name: %v", err)
	}
	wantText(t, k.Rename(t.Context(), "web", "/web"), errdefs.IsInvalidArgument, "Renaming a container with the same name as its current name")
	if err := k.Rename(t.Context(), "web", "front"); err != nil {
		t.Fatal(err)
	}
	if ev, _ := k.Events.Last(events.ActionRename); ev.Actor.Attributes["oldName"] != "/web" || ev.Actor.Attributes["name"] != "front" {
		t.Errorf("rename event %v", ev.Actor.Attributes)
	}
	k.Make(t, "web")
	if r, err := k.Inspect(t.Context(), id[:12], false); err != nil || r.Name != "/front" {
		t.Errorf("inspect by the beginning of the id: %v, %v", r.Name, err)
	}
}

func TestHealthTurnsUnhealthyAfterItsRetries(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web", func(r *containertypes.CreateRequest) {
		r.Config.Healthcheck = &containertypes.HealthConfig{Test: []string{"CMD", "missing"}, Interval: time.Second, Retries: 2}
	})
	for range 2 {
		k.Clock.WaitFor(t, time.Second/2, time.Second)
		before := len(k.Events.Actions(events.ContainerEventType))
		k.Clock.Move(time.Second)
		eventually(t, "a check ran", func() bool { return len(k.Events.Actions(events.ContainerEventType)) > before })
	}
	eventually(t, "unhealthy", func() bool { _, ok := k.Events.Last("health_status: unhealthy"); return ok })
	if got := k.State(t, "web").Health.Status; got != containertypes.Unhealthy {
		t.Errorf("its state is %s", got)
	}
}

func TestPruneKeepsWhatRuns(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web")
	id := k.Make(t, "idle")
	report, err := k.Prune(t.Context(), nil)
	if err != nil || !slices.Equal(report.ContainersDeleted, []string{id}) || report.SpaceReclaimed != 10 {
		t.Errorf("prune %+v, %v", report, err)
	}
}

// newCapture collects what is written to it.
func newCapture() (io.Writer, func() string) {
	c := &capture{}
	return c, c.text
}

type capture struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.Write(p)
}

func (c *capture) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}

// A program that starts a container and only then waits for it (dockerode's
// run) must get the exit code although the container is already gone.
func TestTheExitOfAContainerThatRemovedItselfCanStillBeAskedFor(t *testing.T) {
	k := containerstest.New(t)
	k.Run(t, "web", autoRemove)
	id := k.Launcher.Launches()[0].ID
	k.Launcher.Monitor(id).End(7)
	eventually(t, "removed", func() bool {
		_, err := k.Inspect(t.Context(), id, false)
		return errdefs.IsNotFound(err)
	})
	answer, err := k.Wait(t.Context(), id, containertypes.WaitConditionNotRunning)
	if err != nil {
		t.Fatal(err)
	}
	if r := wait(t, answer); r.StatusCode != 7 || r.Error != nil {
		t.Errorf("wait answered %+v", r)
	}
	k.Clock.Move(2 * time.Minute)
	if _, err := k.Wait(t.Context(), id, containertypes.WaitConditionNotRunning); !errdefs.IsNotFound(err) {
		t.Errorf("wait long after: %v", err)
	}
}

package capability

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestNamesAreTheKernelsNumbers(t *testing.T) {
	for name, nr := range map[string]Cap{
		"CAP_CHOWN": unix.CAP_CHOWN, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_SYS_RESOURCE": unix.CAP_SYS_RESOURCE,
		"CAP_SETFCAP": unix.CAP_SETFCAP, "CAP_AUDIT_READ": unix.CAP_AUDIT_READ, "CAP_CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
	} {
		if c, err := Parse(name); err != nil || c != nr || c.String() != name {
			t.Errorf("%s is %d %v", name, c, err)
		}
	}
	if len(names) != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names, the kernel's headers have %d", len(names), unix.CAP_LAST_CAP+1)
	}
	for _, s := range []string{"net_admin", "NET_ADMIN", "cap_net_admin"} {
		if c, err := Parse(s); err != nil || c != unix.CAP_NET_ADMIN {
			t.Errorf("%s: %v %v", s, c, err)
		}
	}
	if _, err := Parse("CAP_FLY"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("CAP_FLY: %v", err)
	}
	if Cap(63).String() != "CAP_63" {
		t.Error(Cap(63).String())
	}
}

func TestLastIsWhatProcSays(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		t.Skip(err)
	}
	last, err := Last()
	if err != nil || last.String() != Cap(atoi(string(b))).String() {
		t.Errorf("%v %v, /proc says %s", last, err, b)
	}
	if s, err := Supported(); err != nil || !s.Has(last) || s.Has(last+1) {
		t.Errorf("%v %v", s, err)
	}
}

func atoi(s string) (n int) {
	for _, c := range strings.TrimSpace(s) {
		n = 10*n + int(c-'0')
	}
	return n
}

func TestSpecRoundTripAndUnknownNames(t *testing.T) {
	in := &specs.LinuxCapabilities{
		Bounding: []string{"CAP_KILL", "CAP_FLY", "CAP_CHOWN"}, Effective: []string{"CAP_CHOWN", "CAP_FLY"},
		Permitted: []string{"CAP_CHOWN"}, Inheritable: []string{"CAP_KILL"}, Ambient: nil,
	}
	st, unknown := FromSpec(in)
	if !slices.Equal(unknown, []string{"CAP_FLY"}) {
		t.Errorf("unknown %v", unknown)
	}
	out := st.Spec()
	if !slices.Equal(out.Bounding, []string{"CAP_CHOWN", "CAP_KILL"}) || out.Ambient != nil || !slices.Equal(out.Inheritable, []string{"CAP_KILL"}) {
		t.Errorf("%+v", out)
	}
	if st, _ := FromSpec(nil); st != (State{}) {
		t.Errorf("no object is %+v", st)
	}
}

func TestClipKeepsTheKernelsRules(t *testing.T) {
	all := Known()
	have := State{Permitted: all &^ Of(unix.CAP_SYS_RESOURCE), Bounding: all &^ Of(unix.CAP_SYS_RESOURCE)}
	privileged := State{Effective: all, Permitted: all, Inheritable: all, Bounding: all, Ambient: all}
	got, lost := privileged.Clip(have)
	if lost != Of(unix.CAP_SYS_RESOURCE) {
		t.Errorf("lost %v", lost)
	}
	if got.Effective != have.Permitted || got.Ambient != have.Permitted || got.Bounding != have.Bounding {
		t.Errorf("%+v", got)
	}
	odd := State{Effective: Of(1, 2), Permitted: Of(2, 3), Inheritable: Of(3), Ambient: Of(2, 3), Bounding: Of(1, 2, 3)}
	got, lost = odd.Clip(State{Permitted: all, Bounding: all})
	if got.Effective != Of(2) || got.Ambient != Of(3) || lost != 0 {
		t.Errorf("%+v lost %v", got, lost)
	}
}

func TestApplyInTheKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	onThreadOfItsOwn(func() {
		have, err := Current()
		if err != nil {
			t.Error(err)
			return
		}
		want := State{
			Bounding: Of(unix.CAP_CHOWN, unix.CAP_KILL, unix.CAP_NET_RAW), Permitted: Of(unix.CAP_CHOWN, unix.CAP_KILL),
			Effective: Of(unix.CAP_KILL), Inheritable: Of(unix.CAP_KILL), Ambient: Of(unix.CAP_KILL),
		}
		clipped, lost := want.Clip(have)
		if lost != 0 {
			t.Logf("cannot have %v", lost)
		}
		if err := DropBounding(clipped.Bounding); err != nil {
			t.Error(err)
		}
		if err := clipped.Apply(); err != nil {
			t.Error(err)
		}
		now, err := Current()
		if err != nil || now != clipped {
			t.Errorf("%+v %v\nwant %+v", now, err, clipped)
		}
	})
	// Other threads keep theirs.
	if now, err := Current(); err != nil || !now.Effective.Has(unix.CAP_SYS_ADMIN) {
		t.Errorf("this thread has %v %v", now.Effective, err)
	}
}

func onThreadOfItsOwn(f func()) {
	done := make(chan struct{})
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			go run()
			<-done
			runtime.UnlockOSThread()
			return
		}
		defer close(done)
		f()
	}
	go run()
	<-done
}

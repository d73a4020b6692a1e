package testkit

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// owner is a file's user and group.
func owner(f os.FileInfo) [2]uint32 {
	st := f.Sys().(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}

// The command gets no stream: os/exec opens the host's /dev/null for it.
func TestCommandInASandboxHasNoStreamOfTheHost(t *testing.T) {
	s := NewSandbox(t)
	// /proc/self is chown's: the owner is changed through the inherited descriptor.
	cmd := s.Command(t.Context(), "sh", "-ec", "chown 4321:1234 /proc/self/fd/0; stat -Lc %u:%g /proc/self/fd/0 /dev/null")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); len(got) != 2 || got[0] != "4321:1234" || got[1] != got[0] {
		t.Errorf("the owners inside are %q", got)
	}
	after, err := os.Stat("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if owner(after) == [2]uint32{4321, 1234} {
		t.Error("the host's /dev/null has another owner")
	}
}

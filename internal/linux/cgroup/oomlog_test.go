package cgroup

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAKillInTheLogIsItsGroups(t *testing.T) {
	const unit = "orlop-1-abc.scope"
	line := func(group string) string {
		return "6,1045,65297764,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=" + unit +
			",mems_allowed=0,oom_memcg=/orlop_1.slice/" + unit + ",task_memcg=" + group + ",task=tail,pid=855,uid=0\n"
	}
	for _, c := range []struct {
		record string
		want   bool
	}{
		{line("/orlop_1.slice/" + unit), true},
		{line("/orlop_1.slice/" + unit + "/exec-1"), true},
		{line("/orlop_1.slice/orlop-1-abcd.scope"), false},
		{line("/orlop_1.slice"), false},
		{line("/other,task=/" + unit), false},
		{"6,1045,65297764,-;tail invoked oom-killer: task_memcg=/" + unit + ",task=x", false},
		{"6,1045,1,-;a line of somebody: oom-kill:,task_memcg=/" + unit + ",task=x", false},
		{"", false},
		{";", false},
	} {
		if got := killedIn([]byte(c.record), unit); got != c.want {
			t.Errorf("killedIn(%q) = %v", c.record, got)
		}
	}
}

func TestTheLogIsReadToItsEnd(t *testing.T) {
	answers := []struct {
		n   int
		err error
	}{{5, nil}, {-1, unix.EPIPE}, {-1, unix.EINTR}, {7, nil}, {-1, unix.EAGAIN}, {9, nil}}
	next, got := 0, 0
	err := eachRecord(func() (int, error) {
		a := answers[next]
		next++
		return a.n, a.err
	}, func(n int) { got += n })
	if err != nil || got != 12 || next != 5 {
		t.Errorf("read %d bytes in %d calls, %v; want 12 in 5", got, next, err)
	}
	if err := eachRecord(func() (int, error) { return -1, unix.EPERM }, func(int) {}); !errors.Is(err, unix.EPERM) {
		t.Errorf("error %v, want EPERM", err)
	}
}

package lifecycle

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What is written and read without reflection is what encoding/json writes and reads.
func TestTheStateIsPlainJSON(t *testing.T) {
	for _, s := range []saved{
		{},
		{
			Schema: 1, ID: "a.b+c_d-e", Bundle: "/b", Rootfs: "/b/rootfs", Created: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Owner: 1000, Pid: 42,
			PidStart: 1<<64 - 1, BootID: "0-1", CgroupPath: "/c", SystemdCgroup: true,
		},
		{Bundle: "/with \"quotes\" <and> \n\u2028 \xff", Created: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), Owner: -1},
	} {
		want, err := json.Marshal(&s)
		if err != nil {
			t.Fatal(err)
		}
		got := s.encode()
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("(-encoding/json +encode):\n%s", diff)
		}
		var a, b saved
		if err := json.Unmarshal(want, &a); err != nil {
			t.Fatal(err)
		}
		if err := b.decode(got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("(-encoding/json +decode):\n%s", diff)
		}
	}
	// Not written by us, and understood nevertheless.
	var s saved
	if err := s.decode([]byte(`{"schema":1,"new":null,"id":"x"}`)); err != nil || s.ID != "x" {
		t.Errorf("%+v, %v", s, err)
	}
}

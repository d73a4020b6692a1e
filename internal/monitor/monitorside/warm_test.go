package monitorside

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/orlop/orlop/internal/linux/seccomp"
)

func TestTheUsualLaunchIsOne(t *testing.T) {
	d := json.NewDecoder(bytes.NewReader([]byte(usualLaunch)))
	d.DisallowUnknownFields()
	var l launch
	if err := d.Decode(&l); err != nil {
		t.Fatal(err)
	}
	if _, err := seccomp.Compile(l.Spec.Linux.Seccomp); err != nil {
		t.Error(err)
	}
}

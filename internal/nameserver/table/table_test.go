package table

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestPackedPortsAreTheSamePorts(t *testing.T) {
	var ports []Port
	for i := range 1000 {
		for _, host := range []string{"0.0.0.0", "::"} {
			ports = append(ports, Port{
				Proto: "tcp", HostIP: netip.MustParseAddr(host), HostPort: uint16(8000 + i), Relay: host == "::",
				Target: netip.AddrPortFrom(netip.MustParseAddr("172.17.0.2"), uint16(80+i)),
			})
		}
	}
	ports = append(ports, Port{Proto: "udp", HostIP: netip.MustParseAddr("0.0.0.0"), HostPort: 9000, Target: netip.MustParseAddrPort("172.17.0.2:80")})
	packed := Pack(ports)
	if len(packed) != 3 {
		t.Errorf("%d lines for three runs", len(packed))
	}
	set := func(list []Port) map[Port]bool {
		m := map[Port]bool{}
		for _, p := range list {
			m[p] = true
		}
		return m
	}
	if got := Unpack(packed); len(got) != len(ports) || !reflect.DeepEqual(set(got), set(ports)) {
		t.Errorf("%d ports of %d, or others", len(got), len(ports))
	}
}

func TestTableIsCompleteOrNotThere(t *testing.T) {
	d := Dir(t.TempDir())
	s := Sandbox{ID: "a", Pid: 7, DNS: &DNS{Forward: true}}
	if err := d.Write(s); err != nil {
		t.Fatal(err)
	}
	got, err := d.Read("a")
	if err != nil || got.Pid != 7 || got.Schema != Schema || !got.DNS.Forward {
		t.Errorf("read %+v %v", got, err)
	}
	// What a killed writer leaves is not part of the table.
	if err := os.WriteFile(filepath.Join(string(d), ".b.tmp"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	ids, err := d.List()
	if err != nil || len(ids) != 1 || ids[0] != "a" {
		t.Errorf("list %v %v", ids, err)
	}
	if err := errors.Join(d.Remove("a"), d.Remove("a")); err != nil {
		t.Error(err)
	}
	if _, err := d.Read("a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the removal: %v", err)
	}
	if err := os.WriteFile(filepath.Join(string(d), "c.json"), []byte(`{"schema":99,"id":"c"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read("c"); err == nil {
		t.Error("a schema of the future was read")
	}
}

func TestUnknownKeysOfANewerReleaseAreNoObstacle(t *testing.T) {
	d := Dir(t.TempDir())
	if err := os.WriteFile(filepath.Join(string(d), "a.json"), []byte(`{"schema":1,"id":"a","novelty":{"x":1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read("a"); err != nil {
		t.Error(err)
	}
}

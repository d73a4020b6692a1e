package flagvalue

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// Most of what these types take and refuse is compared with Docker's client in package cli; here stand the texts that
// are newer than the client compared with, and what only a caller sees.

func TestAMountIsRefusedInTheWordsOfDocker29(t *testing.T) {
	for in, want := range map[string]string{
		"":                                          "value is empty",
		"type=bind, src=/a,dst=/b":                  "invalid option 'src' in ' src=/a': option should not have whitespace",
		"type=bind,src=,dst=/b":                     "invalid value for 'src': value is empty",
		"type=bind,src=/a,dst=/b,readonly=x":        `invalid value for 'readonly': invalid boolean value ("x")`,
		"type=bind,src=/a,dst=/b,nonsense=1":        "unknown option 'nonsense' in 'nonsense=1'",
		"type=bind,src=/a,dst=/b,bind-nonrecursive": "use bind-recursive=disabled instead",
	} {
		if err := new(Mounts).Set(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
	}
}

func TestAPortRangeReachesToTheLastPort(t *testing.T) {
	exposed, bindings, err := ParsePublished([]string{"65534-65535:65534-65535"})
	if err != nil {
		t.Fatal(err)
	}
	last := network.MustParsePort("65535/tcp")
	if _, ok := exposed[last]; !ok || len(exposed) != 2 || bindings[last][0].HostPort != "65535" {
		t.Errorf("exposed %v, bindings %v", exposed, bindings)
	}
}

func TestVolumesKeepTheirOrderAndCountOnce(t *testing.T) {
	binds, volumes, err := SplitVolumes([]string{"/z:/z", "/only", "/a:/a:ro", "/z:/z"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/z:/z", "/a:/a:ro"}, binds); diff != "" || len(volumes) != 1 {
		t.Errorf("volumes %v, binds:\n%s", volumes, diff)
	}
}

func TestAnAddressOfTheWrongFamilyIsRefused(t *testing.T) {
	for _, c := range []struct{ kind, text string }{{"IPv4", "::1"}, {"IPv6", "1.2.3.4"}, {"IPv4", "x"}, {"link-local IP", ""}} {
		if _, err := ParseAddr(c.kind, c.text); err == nil || err.Error() != "invalid "+c.kind+" address: "+c.text {
			t.Errorf("%s %s: %v", c.kind, c.text, err)
		}
	}
}

func TestAnEmptyFlagShowsNoDefault(t *testing.T) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	for name, v := range map[string]pflag.Value{"list": NewList(nil), "bytes": new(Bytes), "swap": new(SwapBytes), "cpus": new(CPUs), "mount": new(Mounts), "network": new(Networks), "gpus": new(GPUs), "filter": new(Filter), "umask": new(Umask)} {
		f.Var(v, name, "x")
	}
	if usage := f.FlagUsages(); strings.Contains(usage, "default") {
		t.Error(usage)
	}
}

func TestFiltersGivenToACommandAreTheCommandsOwn(t *testing.T) {
	var f Filter
	if err := f.Set("a=1"); err != nil {
		t.Fatal(err)
	}
	f.Value().Add("b", "2")
	if f.Value()["b"] != nil {
		t.Error("adding to the value changed the flag")
	}
}

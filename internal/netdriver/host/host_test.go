package host

import "testing"

func TestResolversStubIsRecognized(t *testing.T) {
	for file, want := range map[string]bool{
		"nameserver 127.0.0.53\noptions edns0\n":        true,
		"nameserver 127.0.0.53\nnameserver 192.0.2.1\n": false,
		"nameserver 127.0.0.1\n":                        false,
		"# nameserver 127.0.0.53\n":                     false,
		"":                                              false,
	} {
		if got := onlyStub([]byte(file)); got != want {
			t.Errorf("%q: %v", file, got)
		}
	}
}

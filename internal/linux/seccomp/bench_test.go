package seccomp

import "testing"

// dockerCaps is the capability set of a default container.
var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

func BenchmarkCompileDefault(b *testing.B) {
	p, err := DefaultProfile(dockerCaps)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		f, err := Compile(p)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(f.Len()), "instructions")
	}
}

func BenchmarkDefaultProfile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DefaultProfile(dockerCaps); err != nil {
			b.Fatal(err)
		}
	}
}

package cgroup

import (
	"testing"

	"golang.org/x/sys/unix"
)

func BenchmarkFind(b *testing.B) {
	for _, f := range []string{"/proc/self/cgroup", "/proc/self/mountinfo"} {
		b.Run(f, func(b *testing.B) {
			for b.Loop() {
				readFile(f)
			}
		})
	}
	m, _ := readFile("/proc/self/mountinfo")
	o, _ := readFile("/proc/self/cgroup")
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			parse(m, o, "")
		}
	})
	b.Run("find", func(b *testing.B) {
		for b.Loop() {
			find("", false)
		}
	})
	hs, _ := find("", false)
	b.Run("newgroup", func(b *testing.B) {
		for b.Loop() {
			newGroup(Config{Path: "/a/b"}, hs)
		}
	})
}

func BenchmarkDeviceProgram(b *testing.B) {
	prog := deviceProgram(defaultRules())
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			fd, err := loadDevices(prog)
			if err != nil {
				b.Skip(err)
			}
			unix.Close(fd)
		}
	})
}

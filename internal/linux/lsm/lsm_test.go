package lsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// TestMain is also a program that enters a profile and tells what it may do.
func TestMain(m *testing.M) {
	switch os.Getenv("ORLOP_TEST_DO") {
	case "":
		os.Exit(m.Run())
	case "enter":
		runtime.LockOSThread()
		err := SetAppArmorExec(nil, os.Getenv("ORLOP_TEST_PROFILE"))
		if err == nil {
			os.Setenv("ORLOP_TEST_DO", "tell")
			err = unix.Exec("/proc/self/exe", os.Args[:1], os.Environ())
		}
		fmt.Println("enter:", err)
	case "tell":
		b, err := os.ReadFile("/proc/self/attr/current")
		fmt.Printf("profile %s %v\n", strings.TrimSpace(string(b)), err)
		tell := func(what string, err error) {
			fmt.Printf("%s: %v\n", what, errors.Is(err, unix.EACCES))
		}
		_, err = os.OpenFile("/proc/sysrq-trigger", os.O_WRONLY, 0)
		tell("sysrq denied", err)
		_, err = os.OpenFile("/proc/sys/kernel/shmmax", os.O_WRONLY, 0)
		tell("shmmax denied", err)
		tell("mount denied", unix.Mount("x", "/tmp", "tmpfs", 0, ""))
		_, err = os.OpenFile("/sys/kernel/mm/ksm/run", os.O_WRONLY, 0)
		tell("sysfs denied", err)
	}
	os.Exit(0)
}

func TestTheDefaultProfileConfines(t *testing.T) {
	if !AppArmorEnabled() {
		t.Skip("the kernel has no AppArmor")
	}
	name := fmt.Sprintf("orlop-test-%d", os.Getpid())
	if err := LoadDefaultAppArmor(context.Background(), name); errdefs.IsUnavailable(err) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(securityFS+"/.remove", []byte(name), 0); err != nil {
			t.Error(err)
		}
	})
	if ok, err := AppArmorLoaded(name); !ok || err != nil {
		t.Fatalf("not in the kernel's list: %v", err)
	}
	run := func(profile string) string {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), "ORLOP_TEST_DO=enter", "ORLOP_TEST_PROFILE="+profile)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%v", err)
		}
		return string(out)
	}
	want := "profile " + name + " (enforce) <nil>\nsysrq denied: true\nshmmax denied: false\nmount denied: true\nsysfs denied: true\n"
	if got := run(name); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := run("orlop-not-loaded"); !strings.Contains(got, "enter: set AppArmor profile orlop-not-loaded: it is not loaded") {
		t.Error(got)
	}
	// A second load leaves it alone.
	if err := LoadDefaultAppArmor(context.Background(), name); err != nil {
		t.Error(err)
	}
}

func TestDefaultProfileText(t *testing.T) {
	text, err := appArmorText("orlop-default", "/etc/apparmor.d", func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"@{PROC}=/proc/\n", "profile orlop-default flags=(attach_disconnected,mediate_deleted) {\n",
		"  deny mount,\n", "  deny @{PROC}/kcore rwklx,\n", "peer=orlop-default,\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "#include") || strings.Contains(text, "PROFILE") {
		t.Errorf("text depends on files that are not there:\n%s", text)
	}
	full, err := appArmorText("x", "/d", func(string) bool { return true })
	if err != nil || !strings.HasPrefix(full, "abi <abi/3.0>,\n#include <tunables/global>\n") || !strings.Contains(full, "#include <abstractions/base>") {
		t.Errorf("%v\n%s", err, full)
	}
	for _, bad := range []string{"", "unconfined", "a b", "a{", "x\n}"} {
		if _, err := DefaultAppArmorText(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("profile name %q: %v", bad, err)
		}
	}
}

// The parser is unpacked from its package, not installed: installing it would
// change the host.
func TestDefaultProfileCompiles(t *testing.T) {
	parser := ""
	for _, p := range []string{"/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"} {
		if _, err := os.Stat(p); err == nil {
			parser = p
		}
	}
	if parser == "" {
		if os.Getenv("ORLOP_TEST_APPARMOR_PARSER") == "" {
			t.Skip("apparmor_parser is not installed; ORLOP_TEST_APPARMOR_PARSER may name one")
		}
		parser = os.Getenv("ORLOP_TEST_APPARMOR_PARSER")
	}
	dir := filepath.Join(filepath.Dir(parser), "../etc/apparmor.d")
	has := func(p string) bool { _, err := os.Stat(p); return err == nil }
	for _, base := range []string{dir, "/nowhere"} {
		text, err := appArmorText(DefaultProfile, base, has)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(parser, "--skip-kernel-load", "--skip-cache", "--stdout", "--quiet", "--base", dir)
		cmd.Stdin = strings.NewReader(text)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		policy, err := cmd.Output()
		if err != nil || len(policy) == 0 {
			t.Fatalf("%v: %s\n%s", err, stderr.String(), text)
		}
		t.Logf("%d bytes of policy", len(policy))
	}
}

func TestProfileListOfTheKernel(t *testing.T) {
	list := "docker-default (enforce)\n/usr/bin/man (complain)\nname with (parens) (enforce)\n"
	for name, want := range map[string]bool{"docker-default": true, "docker": false, "/usr/bin/man": true, "name with (parens)": true, "": false} {
		if listed(list, name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestLabelsAreNotSilentlyIgnored(t *testing.T) {
	if AppArmorEnabled() || SELinuxEnabled() {
		t.Skip("this kernel has a module that takes labels")
	}
	if err := SetAppArmorExec(nil, DefaultProfile); !errdefs.IsNotImplemented(err) {
		t.Errorf("AppArmor: %v", err)
	}
	if err := SetSELinuxExec(nil, "system_u:system_r:container_t:s0:c1,c2"); !errdefs.IsNotImplemented(err) {
		t.Errorf("SELinux: %v", err)
	}
	if err := LoadDefaultAppArmor(context.Background(), DefaultProfile); !errdefs.IsNotImplemented(err) {
		t.Errorf("load: %v", err)
	}
	if err := RelabelSELinux("/", "system_u:object_r:container_file_t:s0", true); err != nil {
		t.Errorf("relabel without SELinux: %v", err)
	}
}

// A process's oom_score_adj stands for an attribute file: this kernel has no
// module that takes a label, the way there is the same.
func TestAttributesAreOnlyWrittenInARealProc(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := writeAttr(dir, "exec x", "exec"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a folder was taken for /proc: %v", err)
	}
	proc, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if err := writeAttr(proc, "0", "../oom_score_adj"); err != nil {
		t.Errorf("write a file of this thread: %v", err)
	}
	done := make(chan struct{})
	go onThreadOfItsOwn(func() {
		defer close(done)
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Errorf("private: %v", err)
			return
		}
		// What a hostile image did to runc: another proc file over the one
		// that is to be written (CVE-2025-52881).
		if err := unix.Mount("/proc/self/sched", "/proc/thread-self/oom_score_adj", "", unix.MS_BIND, ""); err != nil {
			t.Errorf("bind: %v", err)
			return
		}
		if err := os.WriteFile("/proc/thread-self/oom_score_adj", []byte("0"), 0); err != nil {
			t.Errorf("the attack itself does not work: %v", err)
		}
		if err := writeAttr(nil, "0", "../oom_score_adj"); !errors.Is(err, unix.EXDEV) {
			t.Errorf("the write went to a file mounted over the attribute: %v", err)
		}
	})
	<-done
}

// onThreadOfItsOwn runs f on a thread that ends with it and is not the
// process's first.
func onThreadOfItsOwn(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go onThreadOfItsOwn(func() { defer close(done); f() })
	<-done
	runtime.UnlockOSThread()
}

func TestMountOptionQuotesTheLabel(t *testing.T) {
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	if got := SELinuxMountOption("mode=0755", label); got != `mode=0755,context="`+label+`"` {
		t.Error(got)
	}
	if got := SELinuxMountOption("", label); got != `context="`+label+`"` {
		t.Error(got)
	}
	if got := SELinuxMountOption("x", ""); got != "x" {
		t.Error(got)
	}
	if got := withoutCategories(label); got != "system_u:object_r:container_file_t:s0" {
		t.Error(got)
	}
}

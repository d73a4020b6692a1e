//go:build ignore

// Gen writes the system call tables of this package from the number files of
// golang.org/x/sys/unix, which are generated from the kernel's headers.
//
//	go generate ./internal/linux/seccomp
//
// What x/sys does not have is stated here with its source: the x32 ABI
// (Linux arch/x86/entry/syscalls/syscall_64.tbl: the "64" rows do not exist
// there, the "x32" rows have numbers of their own), arm's private calls
// (arch/arm/include/uapi/asm/unistd.h, __ARM_NR_*), and that two ABIs have no
// port of Go at all: those of mips64n32 and s390 are asked of libseccomp (gcc and
// libseccomp-dev), and from call 424 on, where Linux numbers are the same for
// all ABIs, taken from mips64 and s390x.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"go/format"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const x32Bit = 0x40000000

// only64 are the calls of syscall_64.tbl with ABI "64" that have no "x32" twin.
var only64 = strings.Fields(`uselib create_module get_kernel_syms query_module nfsservctl _sysctl
	set_thread_area get_thread_area epoll_ctl_old epoll_wait_old vserver map_shadow_stack uretprobe uprobe`)

// x32Own are the "x32" rows, numbered from 512.
var x32Own = strings.Fields(`rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace
	rt_sigpending rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load waitid
	set_robust_list get_robust_list vmsplice move_pages preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg
	process_vm_readv process_vm_writev setsockopt getsockopt io_setup io_submit execveat preadv2 pwritev2`)

// armPrivate are __ARM_NR_BASE (0xf0000) + 1, 2, ….
var armPrivate = strings.Fields("breakpoint cacheflush usr26 usr32 set_tls get_tls")

// notCalls are bases and masks among the numbers.
var notCalls = []string{"arch_specific_syscall", "syscall_mask", "oabi_syscall_base"}

// numbered are the gaps of the tables of mips.
var numbered = regexp.MustCompile(`^(unused|reserved)[0-9]+$`)

// unified is the first call that has one number in all ABIs, above their base
// (Linux Documentation/process/adding-syscalls.rst).
const unified = 424

type numbers map[string]int

func main() {
	log.SetFlags(0)
	dir, version := module("golang.org/x/sys")
	read := func(arch string) numbers { return parse(filepath.Join(dir, "unix", "zsysnum_linux_"+arch+".go")) }

	amd64, x86, arm64, arm := read("amd64"), read("386"), read("arm64"), read("arm")

	x32 := numbers{}
	for name, nr := range amd64 {
		if !slices.Contains(only64, name) {
			x32[name] = x32Bit + nr
		}
	}
	for i, name := range x32Own {
		if _, ok := amd64[name]; !ok {
			log.Fatalf("x32 call %s is not a call of amd64", name)
		}
		x32[name] = x32Bit + 512 + i
	}
	// arm64 has the generic table, whose names x/sys takes before the
	// kernel's renaming for 64-bit (include/uapi/asm-generic/unistd.h).
	rename(arm64, "fstatat", "newfstatat")
	// One number, two names; lookup knows the other.
	rename(arm, "arm_sync_file_range", "sync_file_range2")
	for i, name := range armPrivate {
		arm[name] = 0xf0001 + i
	}

	mips64, mips := read("mips64"), read("mips")
	n32 := asked("mips64n32", 6000, mips64, 5000)
	s390x := read("s390x")
	s390 := asked("s390", 0, s390x, 0)

	write("x86_table.go", "tableX86", version, []string{"x86_64", "x86", "x32"}, amd64, x86, x32)
	write("arm_table.go", "tableARM", version, []string{"aarch64", "arm"}, arm64, arm)
	write("mips_table.go", "tableMIPS", version, []string{"mips64", "mips64n32", "mips"}, mips64, n32, mips)
	write("s390_table.go", "tableS390", version, []string{"s390x", "s390"}, s390x, s390)
	write("power_table.go", "tablePower", version, []string{"ppc64le"}, read("ppc64le"))
	write("riscv_table.go", "tableRISCV", version, []string{"riscv64"}, read("riscv64"))
	write("loong_table.go", "tableLoong", version, []string{"loongarch64"}, read("loong64"))
}

// asked are the numbers of an ABI by libseccomp, and those of its sister where
// they are the same.
func asked(abi string, base int, sister numbers, sisterBase int) numbers {
	dir, err := os.MkdirTemp("", "gen")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	oracle := filepath.Join(dir, "oracle")
	if out, err := exec.Command("gcc", "-o", oracle, "testdata/oracle.c", "-lseccomp").CombinedOutput(); err != nil {
		log.Fatalf("build testdata/oracle.c: %v\n%s", err, out)
	}
	var question strings.Builder
	for nr := range unified {
		fmt.Fprintf(&question, "name %s %d\n", abi, base+nr)
	}
	cmd := exec.Command(oracle)
	cmd.Stdin = strings.NewReader(question.String())
	out, err := cmd.Output()
	if err != nil {
		log.Fatalf("ask libseccomp: %v", err)
	}
	n := numbers{}
	for line := range strings.Lines(string(out)) {
		var name string
		var nr int
		if _, err := fmt.Sscan(line, &nr, &name); err != nil {
			log.Fatalf("libseccomp says %q: %v", line, err)
		}
		if name != "-" {
			n[name] = nr
		}
	}
	for name, nr := range sister {
		if nr >= sisterBase+unified {
			n[name] = nr - sisterBase + base
		}
	}
	return n
}

func rename(n numbers, from, to string) {
	if nr, ok := n[from]; ok {
		delete(n, from)
		n[to] = nr
	}
}

func module(path string) (dir, version string) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", path).Output()
	if err != nil {
		log.Fatal(err)
	}
	f := strings.Fields(string(out))
	return f[0], f[1]
}

func parse(path string) numbers {
	f, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	out := numbers{}
	for s := bufio.NewScanner(f); s.Scan(); {
		w := strings.Fields(s.Text())
		if len(w) != 3 || w[1] != "=" || !strings.HasPrefix(w[0], "SYS_") {
			continue
		}
		nr, err := strconv.Atoi(w[2])
		if err != nil {
			continue
		}
		if name := strings.ToLower(strings.TrimPrefix(w[0], "SYS_")); !slices.Contains(notCalls, name) && !numbered.MatchString(name) {
			out[name] = nr
		}
	}
	return out
}

func write(file, name, version string, abis []string, columns ...numbers) {
	var all []string
	for _, c := range columns {
		for n := range c {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, cmp.Compare[string])
	all = slices.Compact(all)
	var b bytes.Buffer
	fmt.Fprintf(&b, "// Code generated by gen.go from golang.org/x/sys %s; DO NOT EDIT.\n\npackage seccomp\n\n", version)
	fmt.Fprintf(&b, "// %s has a row per call, sorted by name: its numbers for %s; -1 is none.\n", name, strings.Join(abis, ", "))
	fmt.Fprintf(&b, "var %s = [...]row{\n", name)
	for _, n := range all {
		fmt.Fprintf(&b, "{%q, [maxABIs]int32{", n)
		for i := range 3 {
			nr := -1
			if i < len(columns) {
				if v, ok := columns[i][n]; ok {
					nr = v
				}
			}
			if i > 0 {
				b.WriteString(", ")
			}
			if nr >= x32Bit {
				fmt.Fprintf(&b, "x32Bit + %d", nr-x32Bit)
			} else {
				fmt.Fprintf(&b, "%d", nr)
			}
		}
		b.WriteString("}},\n")
	}
	b.WriteString("}\n")
	src, err := format.Source(b.Bytes())
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(file, src, 0o644); err != nil {
		log.Fatal(err)
	}
}

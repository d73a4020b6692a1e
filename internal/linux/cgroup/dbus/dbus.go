// Package dbus speaks as much of the D-Bus protocol as asking systemd for a
// scope takes: calls with simple arguments, their replies, and signals.
//
// Dial is the entry point. The complete libraries cost every start of a
// program that links them hundreds of microseconds; this one costs nothing
// until it is used. A Conn is for one goroutine.
package dbus

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// SystemBus is where a system's bus listens.
const SystemBus = "/run/dbus/system_bus_socket"

// Kinds of messages (D-Bus specification, "Message Format").
const (
	kindCall   = 1
	kindReturn = 2
	kindError  = 3
	kindSignal = 4
)

// Error is an error reply.
type Error struct{ Name, Message string }

func (e *Error) Error() string { return e.Message + " (" + e.Name + ")" }

// Message is a reply or a signal.
type Message struct {
	kind                    byte
	serial                  uint32
	Path, Interface, Member string
	errorName, signature    string
	body                    []byte
}

// Conn is a connection to a bus.
type Conn struct {
	f      *os.File
	serial uint32
	// signals that came while a reply was waited for.
	signals []*Message
}

// Dial connects to the bus at a unix socket and says hello.
func Dial(ctx context.Context, socket string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect to D-Bus at %s: %w", socket, err)
	}
	c := &Conn{f: os.NewFile(uintptr(fd), socket)}
	done := c.bound(ctx)
	defer done()
	if err := c.authenticate(); err != nil {
		c.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("authenticate to D-Bus at %s: %w", socket, err)
	}
	if _, err := c.Call(ctx, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.f.Close() }

// bound ends reads and writes when ctx does.
func (c *Conn) bound(ctx context.Context) (done func()) {
	stop := context.AfterFunc(ctx, func() { _ = c.f.SetDeadline(time.Unix(1, 0)) }) // fails only once it is closed
	return func() { stop() }
}

// authenticate uses EXTERNAL: the bus knows the peer's user from the socket.
func (c *Conn) authenticate() error {
	uid := hex.EncodeToString([]byte(strconv.Itoa(os.Geteuid())))
	if _, err := c.f.WriteString("\x00AUTH EXTERNAL " + uid + "\r\n"); err != nil {
		return err
	}
	line, err := c.line()
	if err != nil {
		return err
	}
	if len(line) < 3 || line[:3] != "OK " {
		return errors.New("refused: " + line)
	}
	_, err = c.f.WriteString("BEGIN\r\n")
	return err
}

func (c *Conn) line() (string, error) {
	var b []byte
	one := make([]byte, 1)
	for len(b) < 512 {
		if _, err := io.ReadFull(c.f, one); err != nil {
			return "", err
		}
		if b = append(b, one[0]); len(b) >= 2 && b[len(b)-2] == '\r' && b[len(b)-1] == '\n' {
			return string(b[:len(b)-2]), nil
		}
	}
	return "", errors.New("line too long")
}

// Call calls a method and waits for its reply; args may be nil. An error
// reply is an *Error.
func (c *Conn) Call(ctx context.Context, destination, path, iface, member string, args *Args) (*Message, error) {
	done := c.bound(ctx)
	defer done()
	fail := func(err error) (*Message, error) {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("call %s.%s: %w", iface, member, err)
	}
	c.serial++
	serial := c.serial
	if args == nil {
		args = &Args{}
	}
	if _, err := c.f.Write(call(serial, destination, path, iface, member, args)); err != nil {
		return fail(err)
	}
	for {
		m, err := c.read()
		if err != nil {
			return fail(err)
		}
		switch {
		case m.kind == kindSignal:
			c.signals = append(c.signals, m)
		case m.serial != serial:
		case m.kind == kindError:
			e := &Error{Name: m.errorName}
			if m.signature != "" && m.signature[0] == 's' {
				e.Message = m.Body().Text()
			}
			return fail(e)
		default:
			return m, nil
		}
	}
}

// Signal waits for a signal that match accepts. Others are dropped.
func (c *Conn) Signal(ctx context.Context, match func(*Message) bool) error {
	done := c.bound(ctx)
	defer done()
	for {
		for len(c.signals) > 0 {
			m := c.signals[0]
			c.signals = c.signals[1:]
			if match(m) {
				return nil
			}
		}
		m, err := c.read()
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return fmt.Errorf("wait for a D-Bus signal: %w", err)
		}
		if m.kind == kindSignal {
			c.signals = append(c.signals, m)
		}
	}
}

// Args are the arguments of a call. Strings and numbers are added in order.
type Args struct {
	signature string
	e         encoder
}

// Text adds a string.
func (a *Args) Text(s string) *Args {
	a.signature += "s"
	a.e.str(s)
	return a
}

// Bool adds a boolean.
func (a *Args) Bool(v bool) *Args {
	a.signature += "b"
	a.e.bool(v)
	return a
}

// Property is a named value: string, bool, uint32, uint64, []uint32 or []byte.
type Property struct {
	Name  string
	Value any
}

// Properties adds an array of (name, variant).
func (a *Args) Properties(list []Property) *Args {
	a.signature += "a(sv)"
	a.e.array(8, func() {
		for _, p := range list {
			a.e.align(8)
			a.e.str(p.Name)
			a.e.variant(p.Value)
		}
	})
	return a
}

// NoUnits adds the empty array of auxiliary units that StartTransientUnit
// takes last.
func (a *Args) NoUnits() *Args {
	a.signature += "a(sa(sv))"
	a.e.array(8, func() {})
	return a
}

// encoder writes values in D-Bus's alignment, little-endian.
type encoder struct{ b []byte }

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) u32(v uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, v)
}

func (e *encoder) u64(v uint64) {
	e.align(8)
	e.b = binary.LittleEndian.AppendUint64(e.b, v)
}

func (e *encoder) bool(v bool) {
	if v {
		e.u32(1)
	} else {
		e.u32(0)
	}
}

func (e *encoder) str(s string) {
	e.u32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) sig(s string) { e.b = append(append(append(e.b, byte(len(s))), s...), 0) }

// array writes elements whose type is aligned to n.
func (e *encoder) array(n int, elements func()) {
	e.u32(0)
	at := len(e.b) - 4
	e.align(n)
	start := len(e.b)
	elements()
	binary.LittleEndian.PutUint32(e.b[at:], uint32(len(e.b)-start))
}

func (e *encoder) variant(v any) {
	switch v := v.(type) {
	case string:
		e.sig("s")
		e.str(v)
	case bool:
		e.sig("b")
		e.bool(v)
	case uint32:
		e.sig("u")
		e.u32(v)
	case uint64:
		e.sig("t")
		e.u64(v)
	case []uint32:
		e.sig("au")
		e.array(4, func() {
			for _, n := range v {
				e.u32(n)
			}
		})
	case []byte:
		e.sig("ay")
		e.array(1, func() { e.b = append(e.b, v...) })
	default:
		panic(fmt.Sprintf("dbus: no variant of %T", v))
	}
}

// Header fields.
const (
	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// maxMessage bounds what is believed of a length; the specification allows
// 128 MiB, systemd's answers are a few hundred bytes.
const maxMessage = 1 << 20

func call(serial uint32, destination, path, iface, member string, args *Args) []byte {
	var e encoder
	e.b = append(e.b, 'l', kindCall, 0, 1)
	e.u32(uint32(len(args.e.b)))
	e.u32(serial)
	e.array(8, func() {
		field := func(code byte, sig, value string) {
			e.align(8)
			e.b = append(e.b, code)
			e.sig(sig)
			if sig == "g" {
				e.sig(value)
			} else {
				e.str(value)
			}
		}
		field(fieldPath, "o", path)
		field(fieldDestination, "s", destination)
		field(fieldInterface, "s", iface)
		field(fieldMember, "s", member)
		if args.signature != "" {
			field(fieldSignature, "g", args.signature)
		}
	})
	e.align(8)
	return append(e.b, args.e.b...)
}

func (c *Conn) read() (*Message, error) { return parse(c.f) }

// parse reads one message.
func parse(r io.Reader) (*Message, error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	if head[0] != 'l' || head[3] != 1 {
		return nil, errors.New("not a little-endian D-Bus message of version 1")
	}
	bodyLen := binary.LittleEndian.Uint32(head[4:])
	fieldsLen := binary.LittleEndian.Uint32(head[12:])
	if bodyLen > maxMessage || fieldsLen > maxMessage {
		return nil, errors.New("message too long")
	}
	padded := (fieldsLen + 7) &^ 7
	rest := make([]byte, padded+bodyLen)
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, err
	}
	m := &Message{kind: head[1], body: rest[padded:]}
	// Alignment counts from the start of the message; the fields begin at 16.
	d := Body{b: rest[:fieldsLen]}
	for d.at < len(d.b) && d.err == nil {
		d.align(8)
		if d.at >= len(d.b) {
			break
		}
		code := d.b[d.at]
		d.at++
		switch sig := d.sig(); sig {
		case "s", "o":
			v := d.Text()
			switch code {
			case fieldPath:
				m.Path = v
			case fieldInterface:
				m.Interface = v
			case fieldMember:
				m.Member = v
			case fieldErrorName:
				m.errorName = v
			}
		case "u":
			if v := d.Uint32(); code == fieldReplySerial {
				m.serial = v
			}
		case "g":
			if v := d.sig(); code == fieldSignature {
				m.signature = v
			}
		default:
			return nil, fmt.Errorf("header field %d has type %q", code, sig)
		}
	}
	return m, d.err
}

// Body is for reading a message's values in order.
func (m *Message) Body() *Body { return &Body{b: m.body} }

// Body reads values; after a malformed one every value is zero.
type Body struct {
	b   []byte
	at  int
	err error
}

func (d *Body) align(n int) {
	for d.at%n != 0 {
		d.at++
	}
}

func (d *Body) take(n int) []byte {
	if d.err != nil || n < 0 || d.at+n > len(d.b) {
		if d.err == nil {
			d.err = errors.New("message too short")
		}
		return nil
	}
	v := d.b[d.at : d.at+n]
	d.at += n
	return v
}

// Uint32 reads a number.
func (d *Body) Uint32() uint32 {
	d.align(4)
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// Text reads a string or an object path.
func (d *Body) Text() string {
	n := d.Uint32()
	if n > maxMessage {
		d.err = errors.New("string too long")
		return ""
	}
	s := string(d.take(int(n)))
	d.take(1)
	return s
}

func (d *Body) sig() string {
	n := d.take(1)
	if n == nil {
		return ""
	}
	s := string(d.take(int(n[0])))
	d.take(1)
	return s
}

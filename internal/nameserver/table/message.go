package table

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Protocol is the version of the messages. A peer that says another one in its
// answer to "hello" is replaced, never talked to.
const Protocol = 2

// maxMessage bounds one message; packets on the socket keep their bounds.
const maxMessage = 128 << 10

// MaxFiles is how many descriptors one message may carry (SCM_MAX_FD is 253).
const MaxFiles = 200

// FewPorts is how many relays a change opens before it is answered.
const FewPorts = 32

// Operations of a Request.
const (
	// OpHello asks who is there.
	OpHello = "hello"
	// OpChanged names sandboxes whose files were written or removed. It is
	// answered when the change is in force. For one sandbox that is new, its
	// network namespace may come with the message.
	OpChanged = "changed"
	// OpSettle is answered when the relays of all changes so far are open: a
	// change with more than FewPorts of them is answered when they are reserved.
	OpSettle = "settle"
	// OpTakeOver asks for all sockets; see Item.
	OpTakeOver = "takeover"
	// OpReady says that the sockets arrived and are served.
	OpReady = "ready"
	// OpQuit ends the process.
	OpQuit = "quit"
	// OpStatus asks for numbers.
	OpStatus = "status"
)

// Request is a message to netd.
type Request struct {
	Op string `json:"op"`
	// IDs of sandboxes, for OpChanged. When NS is set, the descriptor sent
	// along is the namespace of the sandbox of that id.
	IDs []string `json:"ids,omitempty"`
	NS  string   `json:"ns,omitempty"`
}

// Reply is netd's answer.
type Reply struct {
	// Protocol, Pid, Program and Version answer OpHello; Program identifies
	// the executable's file as "device:inode".
	Protocol int    `json:"protocol,omitempty"`
	Pid      int    `json:"pid,omitempty"`
	Program  string `json:"program,omitempty"`
	Version  string `json:"version,omitempty"`
	// Busy is the port that another program has bound; Error is its text then.
	// Nothing has changed.
	Busy *Port `json:"busy,omitempty"`
	// Error is "" when all went well.
	Error string `json:"error,omitempty"`
	// Items answer OpTakeOver, each with its descriptor, in the order of
	// descriptors; More says that another message follows.
	Items []Item `json:"items,omitempty"`
	More  bool   `json:"more,omitempty"`
	// Status answers OpStatus.
	Status *Status `json:"status,omitempty"`
}

// Kinds of Item.
const (
	ItemControl = "control" // the listening socket of this protocol
	ItemPort    = "port"    // reservation or relay of Port
	ItemSession = "session" // a UDP relay's socket towards the container
	ItemDNSUDP  = "dns-udp"
	ItemDNSTCP  = "dns-tcp"
	ItemNetNS   = "netns"
)

// Item describes a descriptor that is handed over.
type Item struct {
	Kind    string `json:"kind"`
	Sandbox string `json:"sandbox,omitempty"`
	Port    *Port  `json:"port,omitempty"`
	// Dual: the socket holds 0.0.0.0 as well as [::].
	Dual bool `json:"dual,omitempty"`
	// Client and Local are the two ends of a session on the host's side.
	Client string `json:"client,omitempty"`
	Local  string `json:"local,omitempty"`
}

// Status are numbers of a running netd.
type Status struct {
	Sandboxes int `json:"sandboxes"`
	Servers   int `json:"servers"`
	Ports     int `json:"ports"`
	Relays    int `json:"relays"`
	Sessions  int `json:"sessions"`
	Queries   int `json:"queries"`
	Cached    int `json:"cached"`
}

// Conn exchanges messages with descriptors over a unix socket of type
// SOCK_SEQPACKET. It is not safe for concurrent use.
type Conn struct {
	*net.UnixConn
	buf, oob []byte
}

// NewConn wraps a connection.
func NewConn(c *net.UnixConn) *Conn { return &Conn{UnixConn: c} }

// Dial connects to netd.
func Dial(path string) (*Conn, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	return NewConn(c), nil
}

// Send writes one message; the descriptors stay open here.
func (c *Conn) Send(msg any, fds ...int) error {
	data, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	if len(data) > maxMessage {
		return fmt.Errorf("send message: %d bytes are too many", len(data))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	if _, _, err := c.WriteMsgUnix(data, oob, nil); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// Receive reads one message. The descriptors belong to the caller, also when
// the message cannot be read. io.EOF or net.ErrClosed at the end.
func (c *Conn) Receive(msg any) (fds []int, err error) {
	if c.buf == nil {
		c.buf = make([]byte, maxMessage)
		c.oob = make([]byte, syscall.CmsgSpace(MaxFiles*4))
	}
	n, oobn, flags, _, err := c.ReadMsgUnix(c.buf, c.oob)
	if err != nil {
		return nil, err
	}
	if oobn > 0 {
		if fds, err = descriptors(c.oob[:oobn]); err != nil {
			return fds, err
		}
	}
	if n == 0 {
		return fds, net.ErrClosed
	}
	if flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
		return fds, errors.New("receive message: it is too long")
	}
	if err := json.Unmarshal(c.buf[:n], msg); err != nil {
		return fds, fmt.Errorf("receive message: %w", err)
	}
	return fds, nil
}

func descriptors(oob []byte) ([]int, error) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive descriptors: %w", err)
	}
	var fds []int
	for _, m := range msgs {
		got, err := syscall.ParseUnixRights(&m)
		if err != nil {
			return fds, fmt.Errorf("receive descriptors: %w", err)
		}
		fds = append(fds, got...)
	}
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
	return fds, nil
}

// Package endpoint finds out which daemon a command talks to and how: from flags, environment, and the contexts
// stored under the client's configuration folder, to the options of an API client.
//
// Entry points: ParseHost normalizes what a user wrote as a daemon's address, Store reads and writes contexts, and
// Endpoint.ClientOptions builds the transport (unix socket, TCP, TLS, ssh). Values are immutable after they are made
// and there are no locks.
package endpoint

import (
	"fmt"
	"net"
	"net/url"
	"runtime"
	"strings"
)

// Docker's defaults for an address that names only the protocol.
const (
	dockerSocket = "/var/run/docker.sock"
	dockerPipe   = "//./pipe/docker_engine"
	defaultHost  = "localhost"
	plainPort    = "2375"
	tlsPort      = "2376"
)

// DockerHost is where Docker's own daemon listens on this system.
func DockerHost() string {
	if runtime.GOOS == "windows" {
		return "npipe://" + dockerPipe
	}
	return "unix://" + dockerSocket
}

// DefaultTLSHost is the address meant by TLS flags without a host.
func DefaultTLSHost() string { return "tcp://" + net.JoinHostPort(defaultHost, tlsPort) }

// ParseHost normalizes the address of a daemon: PROTO://ADDRESS with the protocols tcp, unix, npipe, fd and ssh, or
// HOST[:PORT]. An address without a place has Docker's default for its protocol.
func ParseHost(text string) (string, error) {
	text = strings.TrimSpace(text)
	proto, addr, ok := strings.Cut(text, "://")
	if !ok {
		proto, addr = "tcp", text
	}
	switch proto {
	case "tcp":
		return parseTCP(addr)
	case "unix":
		return local(proto, addr, dockerSocket)
	case "npipe":
		return local(proto, addr, dockerPipe)
	case "fd", "ssh":
		return text, nil
	}
	return "", fmt.Errorf("invalid bind address format: %s", text)
}

func local(proto, addr, byDefault string) (string, error) {
	if strings.Contains(addr, "://") {
		return "", fmt.Errorf("invalid proto, expected %s: %s", proto, addr)
	}
	if addr == "" {
		addr = byDefault
	}
	return proto + "://" + addr, nil
}

func parseTCP(addr string) (string, error) {
	if addr == "" {
		return "tcp://" + net.JoinHostPort(defaultHost, plainPort), nil
	}
	if strings.Contains(addr, "://") {
		return "", fmt.Errorf("invalid proto, expected tcp: %s", addr)
	}
	if strings.HasSuffix(addr, "]:") {
		addr += plainPort
	}
	u, err := url.Parse("tcp://" + addr)
	if err != nil {
		return "", err
	}
	host, port := u.Hostname(), u.Port()
	if host == "" {
		host = defaultHost
	}
	if port == "" {
		port = plainPort
	}
	return "tcp://" + net.JoinHostPort(host, port) + u.Path, nil
}

// isLocal reports whether host is a socket of this machine, where TLS has no meaning.
func isLocal(host string) bool {
	proto, _, _ := strings.Cut(host, "://")
	return proto == "unix" || proto == "npipe" || proto == "fd"
}

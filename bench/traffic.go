package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// traffic runs inside containers, and on the host's side, to load a network: the
// same program for every engine, mounted into its containers.
//
//	bench traffic serve ADDR            bytes are swallowed after 'S', sent back after 'E'
//	bench traffic throughput ADDR 2s    MB/s over one connection
//	bench traffic connections ADDR 2s   connections per second, one byte each way
//	bench traffic names SERVER NAME 2s  questions per second by 8 clients, and the 99th percentile in µs
//
// It prints numbers only.
func traffic(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: bench traffic serve|throughput|connections|names …")
	}
	length := 2 * time.Second
	if len(args) > 2 {
		d, err := time.ParseDuration(args[len(args)-1])
		if err != nil {
			return err
		}
		length = d
	}
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	switch args[0] {
	case "serve":
		return serveTraffic(args[1])
	case "throughput":
		return throughput(ctx, args[1])
	case "connections":
		return connections(ctx, args[1])
	case "names":
		return lookups(ctx, args[1], args[2])
	}
	return fmt.Errorf("unknown traffic %q", args[0])
}

func serveTraffic(addr string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			var kind [1]byte
			if _, err := io.ReadFull(c, kind[:]); err != nil {
				return
			}
			if kind[0] == 'E' {
				_, _ = c.Write(kind[:])
				return
			}
			buf := make([]byte, 256<<10)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
			}
		}()
	}
}

func throughput(ctx context.Context, addr string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("S")); err != nil {
		return err
	}
	buf, sent, start := make([]byte, 256<<10), 0, time.Now()
	for ctx.Err() == nil {
		n, err := c.Write(buf)
		if err != nil {
			return err
		}
		sent += n
	}
	fmt.Printf("%.0f\n", float64(sent)/1e6/time.Since(start).Seconds())
	return nil
}

// workers that load at the same time.
const workers = 8

func connections(ctx context.Context, addr string) error {
	took, elapsed, failed := parallel(ctx, func(int) func() error {
		return func() error {
			d := net.Dialer{Timeout: 3 * time.Second}
			c, err := d.DialContext(context.Background(), "tcp", addr)
			if err != nil {
				return err
			}
			defer c.Close()
			// The end is abrupt, so that no port waits for a minute.
			if err := c.(*net.TCPConn).SetLinger(0); err != nil {
				return err
			}
			if _, err := c.Write([]byte("E")); err != nil {
				return err
			}
			var b [1]byte
			_, err = io.ReadFull(c, b[:])
			return err
		}
	})
	return rate(took, failed, elapsed)
}

func rate(took []time.Duration, failed error, elapsed time.Duration) error {
	if failed != nil {
		return failed
	}
	fmt.Printf("%.0f %d\n", float64(len(took))/elapsed.Seconds(), at(took, 0.99).Microseconds())
	return nil
}

// parallel has all workers repeat an act until ctx is done.
func parallel(ctx context.Context, prepare func(worker int) func() error) (took []time.Duration, elapsed time.Duration, failed error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	start := time.Now()
	for i := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			act := prepare(i)
			var own []time.Duration
			var err error
			for err == nil && ctx.Err() == nil {
				begin := time.Now()
				if err = act(); err == nil {
					own = append(own, time.Since(begin))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			took, failed = append(took, own...), errors.Join(failed, err)
		}()
	}
	wg.Wait()
	return took, time.Since(start), failed
}

// lookups asks for the IPv4 address of a name.
func lookups(ctx context.Context, server, name string) error {
	question := []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, label := range strings.Split(name, ".") {
		question = append(append(question, byte(len(label))), label...)
	}
	question = append(question, 0, 0, 1, 0, 1)
	took, elapsed, failed := parallel(ctx, func(worker int) func() error {
		var d net.Dialer
		conn, err := d.DialContext(context.Background(), "udp", server)
		if err != nil {
			return func() error { return err }
		}
		q, buf := append([]byte{}, question...), make([]byte, 512)
		id := uint16(worker)
		return func() error {
			id += workers
			binary.BigEndian.PutUint16(q, id)
			if err := conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
				return err
			}
			if _, err := conn.Write(q); err != nil {
				return err
			}
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return err
				}
				if n > 12 && binary.BigEndian.Uint16(buf) == id {
					if buf[3]&0xf != 0 || buf[7] == 0 {
						return fmt.Errorf("look up %s: code %d, %d answers", name, buf[3]&0xf, buf[7])
					}
					return nil
				}
			}
		}
	})
	return rate(took, failed, elapsed)
}

// footprint is the proportional set size in KiB of every process of the sandbox
// but its first one and the agent, and how many there are.
func footprint() (kb, processes int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		data, err := os.ReadFile("/proc/" + e.Name() + "/smaps_rollup")
		if err != nil {
			continue // it has just ended, or is the kernel's
		}
		processes++
		for _, line := range strings.Split(string(data), "\n") {
			var n int
			if _, err := fmt.Sscanf(line, "Pss: %d kB", &n); err == nil {
				kb += n
			}
		}
	}
	return kb, processes, nil
}

func median(values []float64) float64 {
	sorted := append([]float64{}, values...)
	sort.Float64s(sorted)
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)/2]
}

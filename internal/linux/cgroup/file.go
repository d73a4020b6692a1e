package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"

	"golang.org/x/sys/unix"
)

// Control files are small and never block, so they are used with raw system
// calls: package os would stat each and offer it to the poller.

// writeFile writes value in one call, as the kernel demands.
func writeFile(path, value string) error { return writeEach(path, []string{value}) }

// writeEach writes values, each in one call, up to the first that fails.
func writeEach(path string, values []string) error {
	if len(values) == 0 {
		return nil
	}
	fd, err := retryEINTR(func() (int, error) { return unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, v := range values {
		if _, err := retryEINTR(func() (int, error) { return unix.Write(fd, []byte(v)) }); err != nil {
			return err
		}
	}
	return nil
}

func retryEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// readFile reads a whole control file.
func readFile(path string) ([]byte, error) {
	fd, err := retryEINTR(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 1024)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := retryEINTR(func() (int, error) { return unix.Read(fd, buf[len(buf):cap(buf)]) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return buf, nil
		}
		buf = buf[:len(buf)+n]
	}
}

func readText(path string) (string, error) {
	b, err := readFile(path)
	return string(bytes.TrimSpace(b)), err
}

// readUint reads a file with one number; "max" is ^uint64(0), and v1's
// negative numbers (which mean no limit) are too.
func readUint(path string) (uint64, error) {
	b, err := readFile(path)
	if err != nil {
		return 0, err
	}
	return parseUint(bytes.TrimSpace(b))
}

func parseUint(b []byte) (uint64, error) {
	if string(b) == "max" {
		return math.MaxUint64, nil
	}
	v, err := strconv.ParseUint(string(b), 10, 64)
	if err == nil {
		return v, nil
	}
	if n, serr := strconv.ParseInt(string(b), 10, 64); serr == nil && n < 0 {
		return math.MaxUint64, nil
	}
	return 0, fmt.Errorf("not a number: %.40q", b)
}

// eachLine calls f with the lines of data.
func eachLine(data []byte, f func(line []byte)) {
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte{'\n'})
		data = rest
		if len(line) > 0 {
			f(line)
		}
	}
}

// eachPair calls f with the lines "key value" of a flat-keyed file.
func eachPair(path string, f func(key string, value uint64)) error {
	b, err := readFile(path)
	if err != nil {
		return err
	}
	eachLine(b, func(line []byte) {
		k, v, ok := bytes.Cut(line, []byte{' '})
		if !ok {
			return
		}
		if n, err := parseUint(bytes.TrimSpace(v)); err == nil {
			f(string(k), n)
		}
	})
	return nil
}

func exists(path string) bool {
	return unix.Access(path, unix.F_OK) == nil
}

// gone reports whether err means that the group, or its file, is not there.
// ENODEV is what an open file of a removed group answers.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

package process

import (
	"os"

	"golang.org/x/sys/unix"
)

// shuffle places the descriptors of a child: Files go to 0…n-1, and what the
// program still needs meanwhile is moved out of their way first.
type shuffle struct {
	files []int // source of each target, -1 is closed
	moved map[int]int
	moves [][2]int
}

func newShuffle(c *Command, keep ...int) *shuffle {
	s := &shuffle{moved: map[int]int{}}
	var used []int
	for _, f := range c.Files {
		fd := -1
		if f != nil {
			fd = int(f.Fd())
			used = append(used, fd)
		}
		s.files = append(s.files, fd)
	}
	for _, j := range c.Join {
		used = append(used, int(j.NS.Fd()))
	}
	for _, w := range c.Writes {
		used = append(used, int(w.File.Fd()))
	}
	used = append(append(used, int(c.Exe.Fd())), keep...)
	next := len(c.Files)
	for _, fd := range used {
		next = max(next, fd+1)
	}
	for _, fd := range used {
		if _, done := s.moved[fd]; done || fd < 0 || fd >= len(c.Files) {
			continue
		}
		s.moved[fd] = next
		s.moves = append(s.moves, [2]int{fd, next})
		next++
	}
	return s
}

// now returns where the parent's descriptor fd is in the child.
func (s *shuffle) now(fd uintptr) int {
	if to, ok := s.moved[int(fd)]; ok {
		return to
	}
	return int(fd)
}

// fds moves descriptors out of the way; the first steps of a program.
func (p *program) fds(s *shuffle) {
	for _, m := range s.moves {
		p.add("move descriptor", unix.SYS_DUP3, uintptr(m[0]), uintptr(m[1]), unix.O_CLOEXEC)
	}
}

// files puts Files into their places; the last steps before execve.
func (p *program) files(s *shuffle) {
	for to, from := range s.files {
		if from < 0 {
			p.add("close descriptor", unix.SYS_CLOSE, uintptr(to)).flags = ignoreError
			continue
		}
		// Whatever was at a target has been moved, so source and target differ.
		p.add("place descriptor", unix.SYS_DUP3, uintptr(s.now(uintptr(from))), uintptr(to), 0)
	}
}

// Null opens /dev/null for a stream that nobody gave.
func Null() (*os.File, error) { return os.OpenFile("/dev/null", os.O_RDWR, 0) }

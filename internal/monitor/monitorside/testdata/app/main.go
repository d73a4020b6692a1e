// Command app is the only program in the containers of the kernel tests.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() { os.Exit(app(os.Args[1:])) }

func app(args []string) int {
	switch args[0] {
	case "print":
		fmt.Println(strings.Join(args[1:], " "))
	case "exit":
		n, _ := strconv.Atoi(args[1])
		return n
	case "cat":
		io.Copy(os.Stdout, os.Stdin)
	case "wait":
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGTERM)
		fmt.Println("waiting")
		<-c
		return 15
	case "behind": // leaves a process behind that holds the pipes
		cmd := exec.Command("/app", "wait")
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
			return 1
		}
	case "count": // writes all the time until its input says something
		stop := make(chan struct{})
		go func() {
			var b [5]byte
			os.Stdin.Read(b[:])
			close(stop)
		}()
		for i := 0; ; i++ {
			line := strconv.Itoa(i) + ","
			if i%7 == 6 {
				line += "\n"
			}
			os.Stdout.WriteString(line)
			if i%7 == 3 { // its reader, and its monitor, catch up in the middle of a line
				time.Sleep(5 * time.Millisecond)
			}
			select {
			case <-stop:
				return 9
			case <-time.After(100 * time.Microsecond):
			}
		}
	case "reopen":
		f, err := os.OpenFile("/proc/self/fd/1", os.O_WRONLY, 0)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Fprintln(f, "opened")
	case "size":
		ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		for err == nil && ws.Row == 0 {
			ws, err = unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		}
		fmt.Println(ws, err)
	case "eat":
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
		}
	}
	return 0
}

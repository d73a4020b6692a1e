// Command hello-web is the web server of the demo: it answers every request
// with its host's name and a count, and logs it to its standard output.
package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	addr := ":8080"
	if len(os.Args) > 1 {
		addr = os.Args[1]
	}
	host, err := os.Hostname()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hello-web:", err)
		os.Exit(1)
	}
	var count atomic.Int64
	server := &http.Server{Addr: addr, ReadHeaderTimeout: 10 * time.Second}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := count.Add(1)
		fmt.Printf("%s %s %s #%d\n", r.RemoteAddr, r.Method, r.URL.Path, n)
		fmt.Fprintf(w, "Hello from %s, request %d\n", host, n)
	})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		_ = server.Close()
	}()
	fmt.Println("listening on", addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, "hello-web:", err)
		os.Exit(1)
	}
}

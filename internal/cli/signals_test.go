//go:build unix

package cli

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// killRecorder is a daemon that tells which signals a container was sent.
func killRecorder(t *testing.T) (*client.Client, chan string) {
	t.Helper()
	got := make(chan string, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/containers/web/kill") {
			got <- r.URL.Query().Get("signal")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.WriteHeader(http.StatusOK)
	}))
	t.Cleanup(srv.Close)
	api, err := client.New(client.WithHost("tcp://" + srv.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	return api, got
}

func TestUsualSignalsAreForwardedAtOnceAndRareOnesLater(t *testing.T) {
	// Without it, a signal that is not caught yet would end the test.
	held := make(chan os.Signal, 1)
	signal.Notify(held, unix.SIGUSR1, unix.SIGPWR)
	defer signal.Stop(held)
	api, got := killRecorder(t)
	defer forwardSignals(t.Context(), api, "web")()
	send := func(sig unix.Signal) {
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	send(unix.SIGUSR1)
	if name := <-got; name != "USR1" {
		t.Fatalf("the container got %q", name)
	}
	for again := time.NewTicker(5 * time.Millisecond); ; {
		send(unix.SIGPWR)
		select {
		case name := <-got:
			if name != "PWR" {
				t.Fatalf("the container got %q", name)
			}
		case <-again.C:
			continue
		}
		break
	}
}

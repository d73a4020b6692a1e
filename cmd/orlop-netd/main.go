// Command orlop-netd is the network helper of one engine: it answers names in
// containers, reserves published ports and relays those that the kernel cannot
// translate. It goes on when the daemon is gone, and is replaced by starting
// another one: that takes the sockets over.
//
// It prints "ready" on its standard output when everything in the table is
// served.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/nameserver"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "orlop-netd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("orlop-netd", flag.ContinueOnError)
	table := flags.String("table", "", "`folder` of the table that the daemon writes")
	socket := flags.String("socket", "", "`path` of the socket that the daemon talks to")
	debugging := flags.Bool("debug", false, "log every step")
	version := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *version {
		fmt.Println("orlop-netd", buildVersion())
		return nil
	}
	if *table == "" || *socket == "" || flags.NArg() > 0 {
		return fmt.Errorf("usage: orlop-netd --table FOLDER --socket PATH")
	}
	level := slog.LevelInfo
	if *debugging {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))

	// A descriptor per published port: take what the system allows.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			log.Warn("raise the limit of open files", "error", err)
		}
	}
	// Little garbage is made; a small heap is worth more than a rare collection.
	debug.SetGCPercent(50)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	s, err := nameserver.New(nameserver.Config{
		Table: *table, Socket: *socket, Version: buildVersion(), Logger: log, Now: time.Now,
		Ready: func() {
			fmt.Println("ready")
			// The daemon listens for this one line only.
			if err := os.Stdout.Close(); err != nil {
				log.Warn("close standard output", "error", err)
			}
			debug.FreeOSMemory()
		},
	})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}

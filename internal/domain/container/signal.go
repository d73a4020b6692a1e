package container

import (
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Signals of Linux on every architecture but mips, by their name without SIG.
// RTMIN and RTMAX are those of glibc.
var signals = map[string]int{
	"ABRT": 6, "ALRM": 14, "BUS": 7, "CHLD": 17, "CLD": 17, "CONT": 18, "FPE": 8, "HUP": 1, "ILL": 4, "INT": 2,
	"IO": 29, "IOT": 6, "KILL": 9, "PIPE": 13, "POLL": 29, "PROF": 27, "PWR": 30, "QUIT": 3, "SEGV": 11,
	"STKFLT": 16, "STOP": 19, "SYS": 31, "TERM": 15, "TRAP": 5, "TSTP": 20, "TTIN": 21, "TTOU": 22,
	"URG": 23, "USR1": 10, "USR2": 12, "VTALRM": 26, "WINCH": 28, "XCPU": 24, "XFSZ": 25,
}

const (
	// SIGTERM ends a container politely, SIGKILL at once.
	SIGTERM = 15
	SIGKILL = 9

	rtMin, rtMax = 34, 64
)

// ParseSignal reads a signal's name (with or without SIG, any case, RTMIN+n,
// RTMAX-n) or its number, as Docker does. ErrInvalidArgument.
func ParseSignal(raw string) (int, error) {
	if n, err := strconv.Atoi(raw); err == nil {
		if n == 0 {
			return -1, withTextf(errdefs.ErrInvalidArgument, "invalid signal: %s", raw)
		}
		return n, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(raw), "SIG")
	if n, ok := signals[name]; ok {
		return n, nil
	}
	switch name {
	case "RTMIN":
		return rtMin, nil
	case "RTMAX":
		return rtMax, nil
	}
	if rest, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		if n, err := strconv.Atoi(rest); err == nil && n >= 1 && n <= 15 {
			return rtMin + n, nil
		}
	}
	if rest, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		if n, err := strconv.Atoi(rest); err == nil && n >= 1 && n <= 14 {
			return rtMax - n, nil
		}
	}
	return -1, withTextf(errdefs.ErrInvalidArgument, "invalid signal: %s", raw)
}

// ValidSignal reports whether the kernel delivers the signal n.
func ValidSignal(n int) bool { return n >= 1 && n <= 64 }

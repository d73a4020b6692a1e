package flagvalue

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"

	"github.com/docker/go-units"
)

// Bytes is an amount of memory or storage in bytes, written with an optional unit (b, k, m, g, t; powers of 1024).
type Bytes int64

// Set parses a number with an optional unit; -1 is refused.
func (b *Bytes) Set(value string) error {
	n, err := units.RAMInBytes(value)
	*b = Bytes(n)
	return err
}

// String is the amount in binary units, "0" for zero.
func (b *Bytes) String() string {
	if *b == 0 {
		return "0"
	}
	return units.BytesSize(float64(*b))
}

// Type is "bytes".
func (*Bytes) Type() string { return "bytes" }

// SwapBytes is Bytes that also accepts -1: unlimited swap.
type SwapBytes int64

// Set parses -1 or a number with an optional unit.
func (b *SwapBytes) Set(value string) error {
	if value == "-1" {
		*b = -1
		return nil
	}
	n, err := units.RAMInBytes(value)
	*b = SwapBytes(n)
	return err
}

// String is as Bytes.String.
func (b *SwapBytes) String() string {
	plain := Bytes(*b)
	return plain.String()
}

// Type is "bytes".
func (*SwapBytes) Type() string { return "bytes" }

// CPUs is a number of processors in units of 10⁻⁹, written as a decimal or a fraction.
type CPUs int64

// Set parses a rational number exactly representable in 10⁻⁹ steps.
func (c *CPUs) Set(value string) error {
	r, ok := new(big.Rat).SetString(value)
	if !ok {
		return fmt.Errorf("failed to parse %v as a rational number", value)
	}
	r.Mul(r, big.NewRat(1e9, 1))
	if !r.IsInt() {
		return errors.New("value is too precise")
	}
	*c = CPUs(r.Num().Int64())
	return nil
}

// String has three decimals; zero is the empty string.
func (c *CPUs) String() string {
	if *c == 0 {
		return ""
	}
	return big.NewRat(int64(*c), 1e9).FloatString(3)
}

// Type is "decimal".
func (*CPUs) Type() string { return "decimal" }

// Umask is an octal file mode mask; Value is nil when the flag was not given (the image's or runtime's umask stays).
type Umask struct{ value *uint32 }

// Set parses an octal number.
func (u *Umask) Set(value string) error {
	n, err := strconv.ParseUint(value, 8, 32)
	if err != nil {
		return err
	}
	mask := uint32(n)
	u.value = &mask
	return nil
}

// String is the mask in octal, "<nil>" when unset.
func (u *Umask) String() string {
	if u.value == nil {
		return "<nil>"
	}
	return fmt.Sprintf("%#04o", *u.value)
}

// Type is "umask".
func (*Umask) Type() string { return "umask" }

// Value returns the mask, nil when unset.
func (u *Umask) Value() *uint32 { return u.value }

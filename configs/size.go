package configs

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. Its text form is a number with B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers
// of 1024) or no unit; "0" is none.
type Size int64

var units = []struct {
	name  string
	bytes float64
}{ // the longer of two names that end alike stands first
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

// ParseSize reads a size's text form.
func ParseSize(s string) (Size, error) {
	text := strings.TrimSpace(s)
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || n < 0 || math.IsNaN(n) || n*u.bytes >= math.MaxInt64 {
			break
		}
		return Size(n * u.bytes), nil
	}
	return 0, fmt.Errorf("%q is not a size such as 512MiB or 2GB", s)
}

// String is the shortest exact form.
func (s Size) String() string {
	for i := 3; i >= 0 && s > 0; i-- {
		if unit := Size(units[i].bytes); s%unit == 0 {
			return strconv.FormatInt(int64(s/unit), 10) + units[i].name
		}
	}
	for _, u := range []string{"TB", "GB", "MB", "kB"} {
		if unit := sizeOf(u); s > 0 && s%unit == 0 {
			return strconv.FormatInt(int64(s/unit), 10) + u
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

func sizeOf(unit string) Size {
	for _, u := range units {
		if u.name == unit {
			return Size(u.bytes)
		}
	}
	return 1
}

// Set and Type make a Size a flag's value.
func (s *Size) Set(text string) (err error) {
	v, err := ParseSize(text)
	if err == nil {
		*s = v
	}
	return err
}

// Type is how a flag's help names the value.
func (s *Size) Type() string { return "size" }

package track

import (
	"errors"

	"drover/engine"
	"drover/internal/errs"
)

// Choose names the tracker to use where an engine has these features; asked, if not "", must be one that works there.
func Choose(f engine.Features, asked string) (string, error) {
	switch asked {
	case "":
		switch {
		case f.Engine != "criu":
			return "hash", nil
		case f.WPAsync:
			return "wp", nil
		case f.SoftDirty:
			return "softdirty", nil
		}
		return "hash", nil
	case "hash":
		return asked, nil
	case "wp":
		if !f.WPAsync {
			return "", errs.New(errs.Refused, "tracker wp: %w", ErrNoWatching).WithNext("leave --tracker out, or use --tracker hash")
		}
		return asked, nil
	case "softdirty":
		if !f.SoftDirty {
			return "", errs.New(errs.Refused, "tracker softdirty: %w", engine.ErrNoTracking).WithNext("leave --tracker out, or use --tracker hash")
		}
		return asked, nil
	}
	return "", errs.New(errs.Invalid, "there is no tracker %q", asked).WithNext("choose wp, softdirty or hash")
}

// After is what to fall back on when the named tracker fails there, the best first.
func After(f engine.Features, name string) []string {
	switch {
	case name == "hash":
		return nil
	case name == "wp" && f.SoftDirty:
		return []string{"softdirty", "hash"}
	}
	return []string{"hash"}
}

// ErrNoWatching is what asking for the wp tracker fails with where it does not work.
var ErrNoWatching = errors.New("the kernel cannot write-protect asynchronously and report it (userfaultfd and PAGEMAP_SCAN of Linux 6.7), or the machine is not x86-64")

package track

import (
	"drover/engine"
	"drover/internal/errs"
)

// Choose names the tracker to use where an engine has these features; asked, if not "", must be one that works there.
func Choose(f engine.Features, asked string) (string, error) {
	switch asked {
	case "":
		if f.SoftDirty && f.Engine == "criu" {
			return "softdirty", nil
		}
		return "hash", nil
	case "hash":
		return asked, nil
	case "softdirty":
		if !f.SoftDirty {
			return "", errs.New(errs.Refused, "tracker softdirty: %w", engine.ErrNoTracking).WithNext("leave --tracker out, or use --tracker hash")
		}
		return asked, nil
	}
	return "", errs.New(errs.Invalid, "there is no tracker %q", asked).WithNext("choose hash or softdirty")
}

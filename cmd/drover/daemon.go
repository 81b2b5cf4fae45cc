package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/pflag"
)

// daemonFile is a daemon's configuration: --config, or the standard one if it is there ("" if not).
func (a *app) daemonFile(standard string) string {
	if a.config != "" {
		return a.config
	}
	if there(standard) {
		return standard
	}
	return ""
}

func there(file string) bool {
	_, err := os.Stat(file)
	return !errors.Is(err, fs.ErrNotExist)
}

// loadIfThere reads a configuration, or gives the defaults if there is no such file.
func loadIfThere[T any](file string, load func(string, *pflag.FlagSet) (T, error)) (T, error) {
	if !there(file) {
		file = ""
	}
	return load(file, nil)
}

// ready tells systemd, if it asked to be told, that the daemon serves. If systemd cannot be told it will say so itself.
func ready() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) }

// stopping tells it that the daemon was asked to end.
func stopping() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) }

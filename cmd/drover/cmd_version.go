package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

var pageVersion = page{
	use: "version", short: "print the version", local: true,
	long:    `Prints drover's version, that of Go it was built with, and the platform.`,
	example: `drover version --json`,
}

func (a *app) cmdVersion() *cobra.Command {
	return a.command(pageVersion, func(*cobra.Command, []string) error {
		return a.show(versionView{version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
	})
}

// version is the module's, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}

type versionView struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (v versionView) text(w io.Writer) {
	fmt.Fprintf(w, "drover %s (%s, %s)\n", v.Version, v.Go, v.Platform)
}

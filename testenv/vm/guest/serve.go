package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"drover/testenv/vm"
)

// port is where the one virtio port of the machine is.
const port = "/dev/vport0p1"

// serve carries out one request after the other, until the port ends.
func serve() error {
	f, err := os.OpenFile(port, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(f), json.NewEncoder(f)
	if err := out.Encode(vm.Answer{}); err != nil { // the greeting
		return err
	}
	for {
		var r vm.Request
		if err := in.Decode(&r); err != nil {
			return err
		}
		if err := out.Encode(carryOut(r)); err != nil {
			return err
		}
	}
}

func carryOut(r vm.Request) (a vm.Answer) {
	var err error
	if len(r.Argv) > 0 {
		a.Out, a.Err, err = run(r.Argv)
	} else {
		err = os.MkdirAll(filepath.Dir(r.Path), 0o755)
		if err == nil {
			err = os.WriteFile(r.Path, r.Data, r.Mode)
		}
	}
	if err != nil {
		a.Failed = err.Error()
	}
	return a
}

func run(argv []string) (string, string, error) {
	var out, complaint strings.Builder
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	return out.String(), complaint.String(), err
}

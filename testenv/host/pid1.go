package host

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// pid1 reaps what nobody waits for, and ends, and with it every process of the host, when the bed's owner is gone.
func pid1() error {
	if err := os.WriteFile("/proc/self/comm", []byte("init"), 0); err != nil {
		return fmt.Errorf("take the name init: %w", err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM)

	ownerGone := make(chan struct{})
	life := os.NewFile(lifeFd, "life")
	go func() {
		_, _ = life.Read(make([]byte, 1)) // nothing is ever written: this returns when the owner's end is closed
		close(ownerGone)
	}()
	ready := os.NewFile(readyFd, "ready")
	if _, err := fmt.Fprintln(ready, "up"); err != nil {
		return fmt.Errorf("report that the host is up: %w", err)
	}
	if err := ready.Close(); err != nil {
		return err
	}
	for {
		select {
		case <-ownerGone:
			return nil
		case <-children:
			reap()
		}
	}
}

func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}

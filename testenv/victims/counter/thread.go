package main

import (
	"runtime"
	"sync"
	"time"

	"drover/testenv/victims/vital"
)

// thread is an operating system's thread that rewrites its pages, step by step.
type thread struct {
	pages *vital.Pages
	pause time.Duration

	mu     sync.Mutex
	steps  uint64
	faults uint64
	fault  string
}

func startThread(owner uint64, o options) (*thread, error) {
	pages, err := vital.NewPages(o.pages, owner)
	if err != nil {
		return nil, err
	}
	t := &thread{pages: pages, pause: o.pause}
	go t.run()
	return t, nil
}

func (t *thread) run() {
	runtime.LockOSThread()
	for {
		t.step()
		time.Sleep(t.pause)
	}
}

// step checks every page and then writes it anew. A step may be frozen at any point; what it left is checked by the next.
func (t *thread) step() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps++
	for i := range t.pages.Len() {
		if err := t.pages.Check(i); err != nil {
			t.faults++
			if t.fault == "" {
				t.fault = err.Error()
			}
		}
		t.pages.Write(i)
	}
}

func (t *thread) report() Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Report{Steps: t.steps, Faults: t.faults, Fault: t.fault}
}

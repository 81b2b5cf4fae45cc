package main

import (
	"fmt"
	"io"

	"drover/coordinator/api"
	workerapi "drover/worker/api"
)

type (
	hostsView []api.Host
	hostView  api.Host
)

func (v hostsView) text(w io.Writer) {
	if len(v) == 0 {
		none(w, "hosts", "drover token new --role worker lets one join")
		return
	}
	var rows [][]string
	for _, h := range v {
		f := h.Facts
		rows = append(rows, []string{
			h.Name, hostState(h), h.Address, memoryOf(f), fmt.Sprint(f.CPUs),
			fmt.Sprintf("%.2f", f.Load1), orDash(f.Engine.Version), orDash(f.Engine.Kernel),
		})
	}
	table(w, "NAME STATE ADDRESS FREE CPUS LOAD CRIU KERNEL", rows)
}

func hostState(h api.Host) string {
	state := h.State
	if h.Cordoned {
		state += ", cordoned"
	}
	return state + certificateWarning(h.Facts.CertificateUntil)
}

func memoryOf(f workerapi.HostFacts) string {
	if f.MemoryTotal == 0 {
		return "-"
	}
	return bytesOf(f.MemoryFree) + " of " + bytesOf(f.MemoryTotal)
}

func (v hostView) text(w io.Writer) {
	h, f := api.Host(v), v.Facts
	fact(w, "host", h.Name)
	fact(w, "state", hostState(h))
	fact(w, "last seen", since(h.LastSeen))
	fact(w, "address", h.Address)
	if h.Bandwidth > 0 {
		fact(w, "may send", rateOf(float64(h.Bandwidth)))
	}
	if f.CPUs == 0 {
		fmt.Fprintln(w, "nothing has been heard of it yet")
		return
	}
	fact(w, "memory", memoryOf(f)+" free")
	for _, k := range f.Kept {
		fact(w, "keeps", fmt.Sprintf("%s of %s, until %s or until the memory is needed", bytesOf(k.Bytes), k.Workload, clock(k.Until)))
	}
	fact(w, "disk", bytesOf(f.DiskFree)+" free")
	fact(w, "cpus", fmt.Sprintf("%d, load %.2f", f.CPUs, f.Load1))
	fact(w, "kernel", f.Engine.Kernel)
	fact(w, "engine", f.Engine.Engine+" "+f.Engine.Version)
	fact(w, "trackers", trackersOf(h))
	for _, missing := range f.Engine.Missing {
		fact(w, "missing", missing)
	}
	fact(w, "certificate", until(f.CertificateUntil))
	fact(w, "drover", f.Version)
	fact(w, "worker since", clock(f.Started))
	fact(w, "joined", clock(h.Joined))
}

func trackersOf(h api.Host) string {
	trackers := "hash"
	if h.Facts.Engine.SoftDirty {
		trackers = "softdirty, " + trackers
	}
	if h.Facts.Engine.WPAsync {
		trackers = "wp, " + trackers
	}
	return trackers
}

// Package placement chooses a workload's target: Choose, a pure function over what the record and the heartbeats say of the
// hosts. It owns no state and asks nobody; whether a host's files and CPU fit is the doctor's word, which the caller brings
// back in as Question.Exclude.
package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"drover/coordinator/api"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// Question is what is to be placed and what is known besides the hosts.
type Question struct {
	Workload string
	Memory   int64  // bytes the target must have free; see workload.MemoryNeed
	Store    int64  // bytes of them that a target's limit for stores concerns, and that may be on its disk; see workload.StoreNeed
	Source   string // the host it is on, "" for a workload that is to be started
	Version  string // of the source's CRIU, which the target's must equal; "" does not care

	Reserved  map[string]int64  // by host: bytes promised to moves that its own figures do not know of yet
	Incoming  map[string]int    // by host: moves under way to it
	Workloads map[string]int    // by host: workloads it owns
	Exclude   map[string]string // by host: why not it, such as the doctor's word
}

// Rejection says why a host was not taken.
type Rejection struct {
	Host string
	Why  string
	// Passing is true of what time alone may change: a silent host, memory that moves under way have been promised.
	Passing bool
}

func (r Rejection) String() string { return r.Host + ": " + r.Why }

// closeEnough is the part of a host's memory by which two hosts may differ and still count as equally free: within it the
// one with fewer workloads is better.
const closeEnough = 0.1

// Choose gives the best host, "" if none will do, and why each of the others that cannot take the workload cannot. The same
// question always has the same answer.
func Choose(hosts []api.Host, q Question) (string, []Rejection) {
	var fit []api.Host
	var not []Rejection
	for _, h := range hosts {
		if why, passing := reject(h, q); why != "" {
			not = append(not, Rejection{h.Name, why, passing})
		} else {
			fit = append(fit, h)
		}
	}
	slices.SortFunc(not, func(a, b Rejection) int { return strings.Compare(a.Host, b.Host) })
	if len(fit) == 0 {
		return "", not
	}
	left := func(h api.Host) int64 { return h.Facts.MemoryFree - q.Reserved[h.Name] - q.Memory }
	busy := func(h api.Host) int { return q.Workloads[h.Name] + q.Incoming[h.Name] }
	most := left(slices.MaxFunc(fit, func(a, b api.Host) int { return cmp.Compare(left(a), left(b)) }))
	fit = slices.DeleteFunc(fit, func(h api.Host) bool {
		return float64(most-left(h)) > closeEnough*float64(h.Facts.MemoryTotal) && left(h) != most
	})
	best := slices.MinFunc(fit, func(a, b api.Host) int {
		return cmp.Or(cmp.Compare(busy(a), busy(b)), cmp.Compare(left(b), left(a)), strings.Compare(a.Name, b.Name))
	})
	return best.Name, not
}

// Fit says whether one named host can take the workload; ok is false with the reason if not. A cordon is no reason when asked
// for: it keeps the coordinator from choosing a host, and a person may still name it.
func Fit(h api.Host, q Question) (r Rejection, ok bool) {
	h.Cordoned = false
	why, passing := reject(h, q)
	return Rejection{h.Name, why, passing}, why == ""
}

// reject says why a host cannot take the workload, "" if it can, and whether that may pass by itself.
func reject(h api.Host, q Question) (why string, passing bool) {
	stores := workerapi.Stores{Memory: q.Store}
	if h.Facts.Stores != nil {
		stores = *h.Facts.Stores
		q.Memory -= min(q.Store, stores.Spill)
	}
	switch {
	case h.Name == q.Source:
		return "it is there already", false
	case q.Exclude[h.Name] != "":
		return q.Exclude[h.Name], false
	case h.Cordoned:
		return "it is cordoned", false
	case h.State != "up":
		return "it is silent", true
	case h.Facts.MemoryTotal == 0: // this leader has not heard of it yet
		return "it has not said yet what it has", true
	case q.Version != "" && h.Facts.Engine.Engine == "" && h.Facts.Engine.Version == "": // its worker has just started
		return "it has not said yet which CRIU it has", true
	case q.Version != "" && h.Facts.Engine.Version != q.Version:
		return fmt.Sprintf("it has CRIU %s, the source has %s", orNone(h.Facts.Engine.Version), q.Version), false
	case stores.Memory+stores.Spill < q.Store: // others give their part back
		return fmt.Sprintf("%s free for stores, %s needed", mib(stores.Memory+stores.Spill), mib(q.Store)), q.Store <= stores.Limit
	case h.Facts.MemoryFree < q.Memory:
		return fmt.Sprintf("%s free, %s needed", mib(h.Facts.MemoryFree), mib(q.Memory)), false
	case h.Facts.MemoryFree-q.Reserved[h.Name] < q.Memory:
		return fmt.Sprintf("%s free, but %s of it is promised to moves under way; %s needed", mib(h.Facts.MemoryFree),
			mib(q.Reserved[h.Name]), mib(q.Memory)), true
	}
	return "", false
}

// Explain puts rejections into one line for people.
func Explain(not []Rejection) string {
	if len(not) == 0 {
		return "there are no hosts"
	}
	parts := make([]string, len(not))
	for i, r := range not {
		parts[i] = r.String()
	}
	return strings.Join(parts, "; ")
}

// Need is the question's memory for a workload as its host last described it.
func Need(w api.Workload) int64 { return workload.MemoryNeed(w.Status.RSS) }

// NeedOfStore is the question's part of it for the store.
func NeedOfStore(w api.Workload) int64 { return workload.StoreNeed(w.Status.RSS) }

func mib(bytes int64) string { return fmt.Sprintf("%d MiB", max(bytes, 0)>>20) }

func orNone(version string) string {
	if version == "" {
		return "none"
	}
	return version
}

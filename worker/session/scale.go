package session

import (
	"time"

	workerapi "drover/worker/api"
)

const (
	// doubt is what the measured constants count for beside the last move that was like this one.
	doubt = 0.25
	// decay is what a move counts for less than the one after it: hosts are busier at some times than at others.
	decay = 0.7
	// mostWrong bounds what a move may say: one that was held up for seconds says nothing about the next.
	mostWrong = 5
)

// scale corrects what the constants say of a cut-over's own part, by what moves over the same hosts, the newest first, have really
// taken. Those on the same way and of about the same length count most: the fixed part and the part of each page are not off
// by the same factor.
func scale(past []workerapi.PastMove, way string, own time.Duration) float64 {
	sum, weight, age := doubt, doubt, 1.0
	for _, p := range past {
		if p.Way != way || p.Own <= 0 || own <= 0 {
			continue
		}
		like := float64(min(p.Own, own)) / float64(max(p.Own, own))
		ratio := min(max(float64(p.Took)/float64(p.Own), 1.0/mostWrong), mostWrong)
		sum, weight, age = sum+age*like*ratio, weight+age*like, age*decay
	}
	return sum / weight
}
